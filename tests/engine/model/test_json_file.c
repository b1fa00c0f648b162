/* test_json_file.c - bounded reads, and values shown in one safe line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/json_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_text(void **state)
{
    static const char *const bad[] = { "",         "{",     "[]",          "null",
                                       "{\"a\":}", "{} {}", "{\"a\":NaN}", "{\"a\":1,\"a\":2}" };
    struct status st;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(json_text_parse(bad[i], strlen(bad[i]), "f.json", &st));
        assert_int_equal(st.code, STATUS_INVALID);
        assert_non_null(strstr(st.message, "f.json: "));
    }
    assert_null(json_text_parse("{\"\x1b\n\x7f", 5, "f.json", &st));
    for (const char *c = st.message; *c; c++)
        assert_true(*c >= 0x20 && *c < 0x7f);
    json_t *good = json_text_parse(" {\"a\": [1]}\n", 12, "f.json", &st);
    assert_int_equal(json_array_size(json_object_get(good, "a")), 1);
    json_decref(good);
}

static void test_file(void **state)
{
    char dir[] = "/tmp/inferd-test-XXXXXX", path[64];
    struct status st;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/f.json", dir);
    assert_null(json_file_read(dir, "f.json", 100, &st));
    assert_int_equal(st.code, STATUS_NOT_FOUND);
    FILE *f = fopen(path, "w");
    fputs("{\"a\": 1}", f);
    fclose(f);
    json_t *root = json_file_read(dir, "f.json", 8, &st);
    assert_int_equal(json_integer_value(json_object_get(root, "a")), 1);
    json_decref(root);
    assert_null(json_file_read(dir, "f.json", 7, &st));
    assert_non_null(strstr(st.message, "f.json: 8 bytes, but at most 7"));
    assert_null(json_file_read(path, "f.json", 100, &st)); /* the "directory" is a file */
    assert_int_equal(st.code, STATUS_NOT_FOUND);
    assert_null(json_file_read(dir, ".", 1000000, &st));
    assert_non_null(strstr(st.message, "not a regular file"));
    unlink(path);
    rmdir(dir);
}

static void expect_shown(const char *text, const char *expected)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    assert_string_equal(json_show(value).text, expected);
    json_decref(value);
}

static void test_show(void **state)
{
    char long_text[300], *at = long_text;
    (void)state;
    assert_string_equal(json_show(NULL).text, "(nothing)");
    expect_shown("null", "null");
    expect_shown("1e-05", "1e-5");
    expect_shown("0.1", "0.1");
    expect_shown("\"a\\nb\\u001b\\u00e9\"", "\"a\\nb\\u001B\\u00E9\"");
    expect_shown("{\"a\": [1, 2]}", "{\"a\":[1,2]}");
    at += sprintf(at, "[1");
    for (int i = 0; i < 100; i++)
        at += sprintf(at, ",1");
    sprintf(at, "]");
    json_t *value = json_loads(long_text, 0, NULL);
    struct json_shown shown = json_show(value);
    assert_int_equal(strlen(shown.text), sizeof shown.text - 1);
    assert_string_equal(shown.text + sizeof shown.text - 4, "...");
    json_decref(value);
}

static void test_names(void **state)
{
    (void)state;
    assert_true(json_name_is_plain("model.layers.0", 14));
    assert_false(json_name_is_plain("model.layers.0", 13));
    assert_false(json_name_is_plain("", 10));
    assert_false(json_name_is_plain("a\tb", 10));
    assert_false(json_name_is_plain("a\x7f", 10));
    assert_true(json_name_is_plain("\xc3\xa9", 10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_show),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
