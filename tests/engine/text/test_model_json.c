/* test_model_json.c - keys with NUL characters come through JSON as they were written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "engine/text/model_json.h"

#include <string.h>

static void check_key(const struct model_json *j, const char *stored, const char *key, size_t len)
{
    struct buf room;
    size_t n;
    buf_init(&room, 0);
    const char *got = model_json_key(j, stored, &n, &room);
    assert_int_equal(n, len);
    assert_memory_equal(got, key, len);
    buf_free(&room);
}

static void nul_in_keys(void **state)
{
    (void)state;
    /* U+FDD0 is taken, as it is and as an escape: U+FDD1 stands in. */
    static const char text[] = "{\"a\\u0000b\": 1, \"\\u0000\\u0000\" : 2, \"\xEF\xB7\x90\": 3,"
                               " \"\\\\u0000\": 4, \"x\\uFDD2\": \"\\u0000\\\"\"}";
    struct model_json j;
    struct status st = { 0 };
    if (!model_json_parse(text, strlen(text), &j, &st))
        fail_msg("%s", st.message);
    assert_int_equal(json_integer_value(json_object_get(j.root, "a\xEF\xB7\x91"
                                                                "b")),
                     1);
    check_key(&j,
              "a\xEF\xB7\x91"
              "b",
              "a\0b", 3);
    assert_int_equal(json_integer_value(json_object_get(j.root, "\xEF\xB7\x91\xEF\xB7\x91")), 2);
    check_key(&j, "\xEF\xB7\x91\xEF\xB7\x91", "\0\0", 2);
    check_key(&j, "\xEF\xB7\x90", "\xEF\xB7\x90", 3);
    assert_int_equal(json_integer_value(json_object_get(j.root, "\\u0000")), 4);
    /* Values have theirs. */
    const json_t *value = json_object_get(j.root, "x\xEF\xB7\x92");
    assert_int_equal(json_string_length(value), 2);
    assert_memory_equal(json_string_value(value), "\0\"", 2);
    json_decref(j.root);
}

static void plain_files(void **state)
{
    (void)state;
    struct model_json j;
    struct status st = { 0 };
    assert_true(
        model_json_parse("{\"a\": 1e30, \"n\": 1000000000000000000000000000000}", 49, &j, &st));
    assert_int_equal(j.nul_len, 0);
    check_key(&j, "a\xEF\xB7\x90", "a\xEF\xB7\x90", 4);
    json_decref(j.root);
    assert_false(model_json_parse("[1]", 3, &j, &st));
    assert_string_equal(st.message, "not a JSON object");
    assert_false(model_json_parse("{\"a\\u0000\": 1", 13, &j, &st));
    assert_non_null(strstr(st.message, "line 1: "));
}

/* Every stand-in is taken: an error, not a wrong key. */
static void nothing_stands_in(void **state)
{
    (void)state;
    struct buf text;
    struct model_json j;
    struct status st = { 0 };
    buf_init(&text, 0);
    buf_append_str(&text, "{\"\\u0000\": \"");
    for (int i = 0; i < 32; i++)
        buf_printf(&text, "\\ufd%02x", 0xD0 + i);
    buf_append_str(&text, "\"}");
    assert_false(model_json_parse(buf_str(&text), text.len, &j, &st));
    assert_non_null(strstr(st.message, "NUL byte in object key"));
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nul_in_keys),
        cmocka_unit_test(plain_files),
        cmocka_unit_test(nothing_stands_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
