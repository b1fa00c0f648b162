/* test_gguf_pre.c - the table of `tokenizer.ggml.pre`: each row can be loaded, each name is found
 * once, and rows cut texts as the tokenizer.json of the models they stand for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "engine/text/gguf_pre.h"
#include "engine/text/pretokenizer.h"

#include <stdlib.h>
#include <string.h>

static bool append(void *context, const char *word, size_t len, struct status *st)
{
    struct buf *out = context;
    (void)st;
    buf_append(out, word, len);
    buf_append_char(out, '/');
    return true;
}

static void check_cut(const char *name, const char *text, const char *expected)
{
    const struct gguf_pre *pre = gguf_pre_find(name, strlen(name));
    assert_non_null(pre);
    json_t *spec = gguf_pre_spec(pre);
    struct pretokenizer *p;
    struct status st = { 0 };
    if (!pretokenizer_load(spec, UNSET, &p, &st))
        fail_msg("%s: %s", name, st.message);
    assert_true(pretokenizer_take_raw_bytes(p));
    struct buf out;
    buf_init(&out, 0);
    struct pretokenizer_run run = { .pretokenizer = p, .emit = append, .context = &out };
    assert_true(pretokenizer_feed(&run, text, strlen(text), true, &st));
    assert_string_equal(buf_str(&out), expected);
    pretokenizer_run_free(&run);
    buf_free(&out);
    pretokenizer_free(p);
    json_decref(spec);
}

static void every_row_loads(void **state)
{
    (void)state;
    struct buf names;
    buf_init(&names, 0);
    gguf_pre_names(&names);
    char *list = buf_take(&names), *all[128], *save;
    int count = 0;
    for (char *name = strtok_r(list, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
        assert_true(count < 128);
        for (int i = 0; i < count; i++)
            assert_string_not_equal(all[i], name);
        all[count++] = name;
        check_cut(name, "", "");
    }
    assert_true(count > 60);
    free(list);
    assert_null(gguf_pre_find("", 0));
    assert_null(gguf_pre_find("gpt", 3));
    assert_null(gguf_pre_find("gpt-2 phi-2", 11));
}

static void cuts(void **state)
{
    (void)state;
    check_cut("gpt-2", "I'll go  to 1234\n x", "I/'ll/ go/ / to/ 1234/\n/ x/");
    check_cut("smollm", "a 12\n\nx", "a/ /1/2/\n/\n/x/"); /* Digits cuts before GPT-2's pattern */
    check_cut("llama-bpe", "I'LL 12345 (x)\n\n y", "I/'LL/ /123/45/ (/x/)\n\n/ y/");
    check_cut("qwen2", "ab 12", "ab/ /1/2/");
    check_cut("gpt-4o", "HelloWorld don't ABc", "Hello/World/ don't/ ABc/");
    check_cut("tekken", "HelloWorld 12", "Hello/World/ /1/2/");
    check_cut("deepseek-v3", "abc1234\xE4\xBD\xA0\xE5\xA5\xBD!x",
              "abc/123/4/\xE4\xBD\xA0\xE5\xA5\xBD/!x/");
    check_cut("deepseek-llm", "ab cd\n12", "ab/ cd/\n/12/");
    check_cut("falcon", "a+b 1234", "a/+/b/ /123/4/");
    check_cut("bloom", "ab, cd", "ab/,/ cd/");
    check_cut("superbpe", "a 1234567", "a /1/234/567/");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_loads),
        cmocka_unit_test(cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
