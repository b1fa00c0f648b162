/* test_pretokenizer.c - the pieces each pre-tokenizer makes; '|' stands between them. Expected
 * pieces are those of the tokenizers library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/pretokenizer.h"

#include <string.h>

static bool collect(void *context, const char *word, size_t len, struct status *st)
{
    (void)st;
    struct buf *out = context;
    if (out->len > 0)
        buf_append_char(out, '|');
    buf_append(out, word, len);
    return true;
}

static void check(const char *spec, const char *text, const char *expected)
{
    struct pretokenizer *p;
    struct status st = { 0 };
    struct buf out;
    buf_init(&out, 0);
    json_t *json = json_loads(spec, JSON_DECODE_ANY, NULL);
    if (!pretokenizer_load(json, UNSET, &p, &st))
        fail_msg("%s", st.message);
    struct pretokenizer_run run = { .pretokenizer = p, .emit = collect, .context = &out };
    assert_true(pretokenizer_feed(&run, text, strlen(text), true, &st));
    if (strcmp(buf_str(&out), expected) != 0)
        fail_msg("%s: %s, expected %s", spec, buf_str(&out), expected);
    pretokenizer_run_free(&run);
    pretokenizer_free(p);
    json_decref(json);
    buf_free(&out);
}

#define SPLIT(pattern, behavior, invert)                                                           \
    "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":" invert \
    "}"

static void test_behaviors(void **state)
{
    (void)state;
    const char *text = "a--b-";
    check(SPLIT("{\"String\":\"-\"}", "Removed", "false"), text, "a|b");
    check(SPLIT("{\"String\":\"-\"}", "Isolated", "false"), text, "a|-|-|b|-");
    check(SPLIT("{\"String\":\"-\"}", "MergedWithPrevious", "false"), text, "a-|-|b-");
    check(SPLIT("{\"String\":\"-\"}", "MergedWithNext", "false"), text, "a|-|-b|-");
    check(SPLIT("{\"String\":\"-\"}", "Contiguous", "false"), text, "a|--|b|-");
    check(SPLIT("{\"Regex\":\"[a-z]\"}", "Removed", "true"), text, "a|b");
    check(SPLIT("{\"Regex\":\"-+\"}", "MergedWithNext", "false"), text, "a|--b|-");
    check(SPLIT("{\"String\":\"\"}", "Isolated", "false"), "ab", "a|b");
}

static void test_each(void **state)
{
    (void)state;
    check("null", "a b", "a b");
    check("{\"type\":\"Whitespace\"}", "it's  a_b!!", "it|'|s|a_b|!!");
    check("{\"type\":\"WhitespaceSplit\"}", " it's\n\xE3\x80\x80x", "it's|x");
    check("{\"type\":\"Digits\",\"individual_digits\":true}", "a12", "a|1|2");
    check("{\"type\":\"Digits\",\"individual_digits\":false}", "a12b", "a|12|b");
    check("{\"type\":\"Punctuation\"}", "a,.b", "a|,|.|b");
    check("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "a,.b", "a|,.|b");
    check("{\"type\":\"BertPreTokenizer\"}", "hi, you", "hi|,|you");
    check("{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"x\"}", "axxb", "a|b");
    check("{\"type\":\"FixedLength\",\"length\":2}", "a\xC3\xA9z", "a\xC3\xA9|z");
    check("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":true}", "a  b",
          "_a|_|_b");
    check("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"never\",\"split\":"
          "false}",
          "a b", "a_b");
    check("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}", "I'm \xC3\xA9",
          "\xC4\xA0I|'m|\xC4\xA0\xC3\x83\xC2\xA9");
    check("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":"
          "\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}]}",
          "a b", "_a|b");
    check("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":"
          "\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}]}",
          " a b", "a|b");
}

static void test_raw_bytes(void **state)
{
    (void)state;
    static const char *const yes = "{\"type\":\"ByteLevel\"}";
    static const char *const no = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                                  "\"ByteLevel\"},{\"type\":\"Digits\"}]}";
    struct pretokenizer *p;
    struct status st = { 0 };
    json_t *json = json_loads(yes, 0, NULL);
    assert_true(pretokenizer_load(json, UNSET, &p, &st));
    assert_true(pretokenizer_take_raw_bytes(p));
    pretokenizer_free(p);
    json_decref(json);
    json = json_loads(no, 0, NULL);
    assert_true(pretokenizer_load(json, UNSET, &p, &st));
    assert_false(pretokenizer_take_raw_bytes(p));
    pretokenizer_free(p);
    json_decref(json);
    assert_false(pretokenizer_take_raw_bytes(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_behaviors),
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_raw_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
