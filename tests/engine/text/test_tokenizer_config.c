/* test_tokenizer_config.c - which file wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/tokenizer_config.h"
#include "tests/engine/text/text_fixture.h"

static struct tokenizer_config load(void)
{
    struct tokenizer_config c;
    struct status st = { 0 };
    if (!tokenizer_config_load(fixture_dir, &c, &st))
        fail_msg("%s", st.message);
    return c;
}

static int setup(void **state)
{
    (void)state;
    fixture_make_dir();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove_dir();
    return 0;
}

static void test_no_files(void **state)
{
    (void)state;
    struct tokenizer_config c = load();
    assert_false(c.present);
    assert_null(c.tokenizer_class);
    assert_null(c.special[SPECIAL_BOS].content);
    assert_int_equal(c.add_bos_token, UNSET);
    assert_int_equal(c.num_added, 0);
    tokenizer_config_free(&c);
}

static void test_added_tokens_decoder(void **state)
{
    (void)state;
    fixture_write_text("tokenizer_config.json",
                       "{\"tokenizer_class\": \"LlamaTokenizerFast\", \"add_bos_token\": false, "
                       "\"bos_token\": \"<b>\", \"pad_token\": null, \"added_tokens_decoder\": "
                       "{\"10\": {\"content\": \"x\", \"rstrip\": true}, \"9\": {\"content\": "
                       "\"<b>\", \"special\": true, \"lstrip\": true}}}");
    fixture_write_text("special_tokens_map.json", "{\"bos_token\": \"<other>\"}");
    fixture_write_text("added_tokens.json", "{\"y\": 11}");
    struct tokenizer_config c = load();
    assert_string_equal(c.tokenizer_class, "LlamaTokenizer");
    assert_string_equal(c.special[SPECIAL_BOS].content, "<b>"); /* the other files are not read */
    assert_true(c.special[SPECIAL_BOS].lstrip);                 /* flags of the added token */
    assert_int_equal(c.special[SPECIAL_BOS].id, 9);
    assert_true(c.special_null[SPECIAL_PAD]);
    assert_int_equal(c.num_added, 2);
    assert_int_equal(c.added[0].id, 9);
    assert_true(c.added[1].rstrip && c.added[1].normalized && !c.added[1].special);
    assert_int_equal(c.add_bos_token, NO);
    assert_true(tokenizer_config_is_special(&c, "<b>", 3));
    assert_false(tokenizer_config_is_special(&c, "x", 1));
    tokenizer_config_free(&c);
}

static void test_older_files(void **state)
{
    (void)state;
    fixture_write_text("tokenizer_config.json", "{\"bos_token\": \"<b>\", \"eos_token\": \"<e>\"}");
    fixture_write_text("special_tokens_map.json",
                       "{\"bos_token\": {\"content\": \"<c>\", \"rstrip\": true}, "
                       "\"additional_special_tokens\": [\"<q>\"]}");
    fixture_write_text("added_tokens.json", "{\"<q>\": 31, \"plain\": 30}");
    struct tokenizer_config c = load();
    assert_string_equal(c.special[SPECIAL_BOS].content, "<c>");
    assert_true(c.special[SPECIAL_BOS].rstrip);
    assert_string_equal(c.special[SPECIAL_EOS].content, "<e>");
    assert_int_equal(c.num_additional, 1);
    assert_int_equal(c.num_added, 2);
    assert_string_equal(c.added[0].content, "plain");
    assert_false(c.added[0].special);
    assert_true(c.added[1].special);
    tokenizer_config_free(&c);
}

static void test_broken(void **state)
{
    (void)state;
    static const char *const files[] = {
        "[]",
        "{\"bos_token\": 3}",
        "{\"bos_token\": {\"content\": 3}}",
        "{\"additional_special_tokens\": [1]}",
        "{\"added_tokens_decoder\": []}",
        "{\"added_tokens_decoder\": {\"-1\": {\"content\": \"x\"}}}",
        "{\"added_tokens_decoder\": {\"1x\": {\"content\": \"x\"}}}"
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct tokenizer_config c;
        struct status st = { 0 };
        fixture_write_text("tokenizer_config.json", files[i]);
        assert_false(tokenizer_config_load(fixture_dir, &c, &st));
        assert_non_null(strstr(st.message, "tokenizer_config.json"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_added_tokens_decoder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_older_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broken, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
