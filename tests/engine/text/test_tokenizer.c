/* test_tokenizer.c - the interface over a real model, where ../shared has it, and over bad input.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/text/text_fixture.h"

#include <jansson.h>

#define SHARED "../shared/models"

static json_t *load_goldens(void)
{
    json_t *root = json_load_file(SHARED "/goldens.json", JSON_ALLOW_NUL, NULL);
    if (!root) {
        print_message("skip: " SHARED "/goldens.json is not there\n");
        skip();
    }
    return root;
}

static void check_prompt(const struct tokenizer *t, const json_t *golden)
{
    const char *prompt = json_string_value(json_object_get(golden, "prompt"));
    const json_t *ids = json_object_get(golden, "ids"),
                 *more = json_object_get(golden, "greedy_ids");
    struct token_list got = fixture_encode(t, prompt, true);
    assert_int_equal(got.len, json_array_size(ids));
    for (size_t i = 0; i < got.len; i++)
        assert_int_equal(got.ids[i], json_integer_value(json_array_get(ids, i)));
    for (size_t i = 0; i < json_array_size(more); i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(more, i));
        token_list_append(&got, &id, 1);
    }
    struct buf text;
    buf_init(&text, 0);
    tokenizer_decode(t, got.ids, got.len, true, &text);
    assert_string_equal(buf_str(&text), json_string_value(json_object_get(golden, "full_text")));
    buf_free(&text);
    token_list_free(&got);
}

static void test_goldens(void **state)
{
    (void)state;
    json_t *root = load_goldens(), *prompts = json_object_get(root, "prompts");
    struct tokenizer *t = fixture_load(SHARED "/stories260K");
    assert_true(json_array_size(prompts) > 5);
    for (size_t i = 0; i < json_array_size(prompts); i++)
        check_prompt(t, json_array_get(prompts, i));
    assert_int_equal(tokenizer_vocab_size(t), 512);
    assert_int_equal(tokenizer_bos_id(t), 1);
    assert_int_equal(tokenizer_eos_id(t), 2);
    tokenizer_free(t);
    json_decref(root);
}

static void test_empty_text_is_bos(void **state)
{
    (void)state;
    fixture_make_dir();
    struct buf model = fixture_spm_model();
    fixture_write("tokenizer.model", model.data, model.len);
    struct tokenizer *t = fixture_load(fixture_dir);
    assert_encodes(t, "", true, 1);
    struct token_list none = fixture_encode(t, "", false);
    assert_int_equal(none.len, 0);
    token_list_free(&none);
    tokenizer_free(t);
    buf_free(&model);
    fixture_remove_dir();
}

static void test_pieces(void **state)
{
    (void)state;
    fixture_make_dir();
    struct buf model = fixture_spm_model();
    fixture_write("tokenizer.model", model.data, model.len);
    struct tokenizer *t = fixture_load(fixture_dir);
    assert_string_equal(tokenizer_id_to_piece(t, 270), "hello");
    assert_int_equal(tokenizer_piece_to_id(t, "hello"), 270);
    assert_int_equal(tokenizer_piece_to_id(t, "nothing"), -1);
    assert_null(tokenizer_id_to_piece(t, -1));
    assert_null(tokenizer_id_to_piece(t, tokenizer_vocab_size(t)));
    assert_true(tokenizer_is_special(t, 1));
    assert_false(tokenizer_is_special(t, 270));
    struct buf out;
    buf_init(&out, 0);
    tokenizer_id_bytes(t, 271, &out); /* a leading space stays */
    tokenizer_id_bytes(t, 3 + 0xE9, &out);
    tokenizer_id_bytes(t, 2, &out);
    tokenizer_id_bytes(t, 1 << 30, &out);
    assert_string_equal(buf_str(&out), " hello\xE9</s>");
    buf_free(&out);
    tokenizer_free(t);
    buf_free(&model);
    fixture_remove_dir();
}

static void test_limit_and_invalid_bytes(void **state)
{
    (void)state;
    fixture_make_dir();
    struct buf model = fixture_spm_model();
    fixture_write("tokenizer.model", model.data, model.len);
    struct tokenizer *t = fixture_load(fixture_dir);
    struct token_list list = { 0 };
    struct status st = { 0 };
    assert_true(tokenizer_encode(t, "hello", 5, true, 2, &list, &st));
    assert_int_equal(list.len, 2);
    assert_false(tokenizer_encode(t, "hello hello", 11, true, 2, &list, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_non_null(strstr(st.message, "2 tokens"));
    assert_int_equal(list.len, 2);
    token_list_free(&list);
    /* A lone continuation byte is U+FFFD, which falls back to its three bytes. */
    assert_encodes(t, "\x80", false, 259, 3 + 0xEF, 3 + 0xBF, 3 + 0xBD);
    tokenizer_free(t);
    buf_free(&model);
    fixture_remove_dir();
}

static void expect_refused(const char *why)
{
    struct tokenizer *t;
    struct status st = { 0 };
    assert_false(tokenizer_load(fixture_dir, &t, &st));
    assert_null(t);
    assert_non_null(strstr(st.message, fixture_dir));
    if (!strstr(st.message, why))
        fail_msg("\"%s\" does not say \"%s\"", st.message, why);
}

static void test_bad_model_files(void **state)
{
    (void)state;
    fixture_make_dir();
    expect_refused("tokenizer.model");
    struct buf model = fixture_spm_model();
    for (size_t len = 0; len < model.len; len += 97) {
        fixture_write("tokenizer.model", model.data, len);
        struct tokenizer *t;
        struct status st = { 0 };
        if (tokenizer_load(fixture_dir, &t, &st))
            tokenizer_free(t); /* cut between two fields: a smaller but whole model */
        else
            assert_non_null(strstr(st.message, "tokenizer.model"));
    }
    fixture_write("tokenizer.model", model.data, 100);
    expect_refused("truncated");
    srand(1);
    for (int round = 0; round < 200; round++) {
        char noise[512];
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (char)rand();
        fixture_write("tokenizer.model", noise, sizeof noise);
        expect_refused("tokenizer.model");
    }
    fixture_write("tokenizer.model", model.data, model.len);
    fixture_write_text("tokenizer_config.json", "{\"tokenizer_class\": \"T5Tokenizer\"}");
    expect_refused("T5Tokenizer");
    fixture_write_text("tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": \"y\"}}");
    expect_refused("tokenizer_config.json");
    fixture_write_text("tokenizer_config.json", "{");
    expect_refused("tokenizer_config.json: line 1");
    fixture_write_text("tokenizer_config.json",
                       "{\"added_tokens_decoder\": {\"99999999999\": {\"content\": \"y\"}}}");
    expect_refused("99999999999");
    buf_free(&model);
    fixture_remove_dir();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),         cmocka_unit_test(test_empty_text_is_bos),
        cmocka_unit_test(test_pieces),          cmocka_unit_test(test_limit_and_invalid_bytes),
        cmocka_unit_test(test_bad_model_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
