/* test_detokenizer.c - the deltas joined are the whole list's text, whatever the ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/utf8.h"
#include "engine/text/detokenizer.h"
#include "tests/engine/text/text_fixture.h"

#include <jansson.h>

static struct tokenizer *tokenizer;

static int setup(void **state)
{
    (void)state;
    fixture_make_dir();
    struct buf model = fixture_spm_model();
    fixture_write("tokenizer.model", model.data, model.len);
    fixture_write_text("tokenizer_config.json",
                       "{\"added_tokens_decoder\": {\"280\": {\"content\": \"<tool>\"}}}");
    tokenizer = fixture_load(fixture_dir);
    buf_free(&model);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_free(tokenizer);
    fixture_remove_dir();
    return 0;
}

/* Feeds ids[num_prompt..), checks that every delta is whole characters, returns them joined. */
static struct buf stream(const int32_t *ids, size_t count, size_t num_prompt)
{
    struct buf all;
    buf_init(&all, 0);
    struct detokenizer *d = detokenizer_new(tokenizer, ids, num_prompt, true);
    for (size_t i = num_prompt; i < count; i++) {
        size_t before = all.len;
        detokenizer_push(d, ids[i], &all);
        assert_true(utf8_valid(buf_str(&all) + before, all.len - before));
    }
    detokenizer_finish(d, &all);
    detokenizer_free(d);
    return all;
}

static void test_random_ids(void **state)
{
    (void)state;
    srand(2);
    for (int round = 0; round < 3000; round++) {
        int32_t ids[24];
        size_t count = (size_t)rand() % 24;
        for (size_t i = 0; i < count; i++) {
            int kind = rand() % 4;
            ids[i] = kind == 0   ? rand() % 285 - 2
                     : kind == 1 ? 3 + (int32_t) "\xF0\x9F\x90\x99\xC3"[rand() % 5] % 256
                                 : 259 + rand() % 22;
            if (kind == 1)
                ids[i] = 3 + (unsigned char)"\xF0\x9F\x90\x99\xC3"[rand() % 5];
        }
        struct buf whole, deltas = stream(ids, count, 0);
        buf_init(&whole, 0);
        tokenizer_decode(tokenizer, ids, count, true, &whole);
        assert_string_equal(buf_str(&deltas), buf_str(&whole));
        assert_true(utf8_valid(buf_str(&whole), whole.len));
        buf_free(&deltas);
        buf_free(&whole);
    }
}

/* With a prompt, what comes is the rest of the text, its leading space kept. */
static void test_continuation(void **state)
{
    (void)state;
    const int32_t ids[] = { 1, 271, 271, 280, 270 };
    struct buf out = stream(ids, 5, 2);
    assert_string_equal(buf_str(&out), " hello <tool> hello");
    buf_free(&out);
    out = stream(ids, 3, 1);
    assert_string_equal(buf_str(&out), "hello hello");
    buf_free(&out);
}

static void test_unfinished_character(void **state)
{
    (void)state;
    struct detokenizer *d = detokenizer_new(tokenizer, NULL, 0, true);
    struct buf out;
    buf_init(&out, 0);
    const unsigned char octopus[] = { 0xF0, 0x9F, 0x90, 0x99 };
    for (int i = 0; i < 3; i++) {
        detokenizer_push(d, 3 + octopus[i], &out);
        assert_int_equal(out.len, 0);
    }
    detokenizer_push(d, 3 + octopus[3], &out);
    assert_string_equal(buf_str(&out), "\xF0\x9F\x90\x99");
    detokenizer_push(d, 3 + 0xF0, &out);
    assert_int_equal(out.len, 4);
    detokenizer_finish(d, &out);
    assert_string_equal(buf_str(&out), "\xF0\x9F\x90\x99\xEF\xBF\xBD");
    buf_free(&out);
    detokenizer_free(d);
}

static void test_goldens(void **state)
{
    (void)state;
    json_t *root = json_load_file("../shared/models/goldens.json", 0, NULL);
    if (!root) {
        print_message("skip: ../shared/models/goldens.json is not there\n");
        skip();
    }
    struct tokenizer *saved = tokenizer;
    tokenizer = fixture_load("../shared/models/stories260K");
    json_t *prompts = json_object_get(root, "prompts");
    for (size_t p = 0; p < json_array_size(prompts); p++) {
        const json_t *golden = json_array_get(prompts, p);
        struct token_list ids =
            fixture_encode(tokenizer, json_string_value(json_object_get(golden, "prompt")), true);
        size_t num_prompt = ids.len;
        const json_t *more = json_object_get(golden, "greedy_ids");
        for (size_t i = 0; i < json_array_size(more); i++) {
            int32_t id = (int32_t)json_integer_value(json_array_get(more, i));
            token_list_append(&ids, &id, 1);
        }
        struct buf out = stream(ids.ids, ids.len, num_prompt);
        const char *expected = json_string_value(json_object_get(golden, "greedy_text"));
        /* Nothing stands before the first token of an empty prompt: its space goes. */
        assert_string_equal(buf_str(&out), num_prompt == 1 ? expected + 1 : expected);
        buf_free(&out);
        token_list_free(&ids);
    }
    tokenizer_free(tokenizer);
    tokenizer = saved;
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_ids),
        cmocka_unit_test(test_continuation),
        cmocka_unit_test(test_unfinished_character),
        cmocka_unit_test(test_goldens),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
