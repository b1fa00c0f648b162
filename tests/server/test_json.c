/* Tests of json.h: errors that name the place, bounds, and output that is always valid. */
#include "config/limits.h"
#include "server/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static json_t *parse(const char *text)
{
    struct status st;
    json_t *root = NULL;
    if (!json_parse(text, strlen(text), &root, &st))
        fail_msg("%s: %s", text, st.message);
    return root;
}

static void test_paths_in_errors(void **state)
{
    struct status st;
    const char *text;
    (void)state;
    json_t *value = parse("{\"messages\":[{},{\"content\":[{\"text\":5}]}]}");
    struct json_node root = json_root(value), messages = json_member(&root, "messages");
    struct json_node second = json_element(&messages, 1), content = json_member(&second, "content");
    struct json_node part = json_element(&content, 0), leaf = json_member(&part, "text");
    assert_false(json_read_string(&leaf, &text, NULL, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_string_equal(st.param, "messages[1].content[0].text");
    assert_string_equal(st.reason, "invalid_type");
    assert_string_equal(st.message,
                        "'messages[1].content[0].text' must be a string, not an integer");
    json_decref(value);
}

static void test_long_paths_are_cut(void **state)
{
    char key[300];
    struct status st;
    bool flag;
    (void)state;
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    json_t *value = json_pack("{s:{s:i}}", key, key, 1);
    struct json_node root = json_root(value), a = json_member(&root, key), b = json_member(&a, key);
    assert_false(json_read_bool(&b, &flag, &st));
    assert_int_equal(strlen(st.param), sizeof st.param - 1);
    json_decref(value);
}

static bool read_int(const char *text, int64_t *out, struct status *st)
{
    json_t *value = parse(text);
    struct json_node root = json_root(value), n = json_member(&root, "n");
    bool ok = json_read_int(&n, -5, 100, out, st);
    json_decref(value);
    return ok;
}

static void test_integers(void **state)
{
    struct status st;
    int64_t out = 7;
    (void)state;
    assert_true(read_int("{}", &out, &st));
    assert_true(read_int("{\"n\":null}", &out, &st));
    assert_int_equal(out, 7);
    assert_true(read_int("{\"n\":100}", &out, &st));
    assert_int_equal(out, 100);
    assert_true(read_int("{\"n\":16.0}", &out, &st));
    assert_int_equal(out, 16);
    static const char *const wrong[] = { "{\"n\":16.5}", "{\"n\":\"16\"}", "{\"n\":true}",
                                         "{\"n\":1e300}", "{\"n\":[1]}" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(read_int(wrong[i], &out, &st));
        assert_string_equal(st.reason, "invalid_type");
        assert_string_equal(st.param, "n");
    }
    assert_false(read_int("{\"n\":101}", &out, &st));
    assert_string_equal(st.reason, "integer_above_max_value");
    assert_false(read_int("{\"n\":-6}", &out, &st));
    assert_string_equal(st.reason, "integer_below_min_value");
    assert_int_equal(out, 16);
}

static void test_floats(void **state)
{
    struct status st;
    double out = 0;
    (void)state;
    json_t *value = parse("{\"a\":0,\"b\":1,\"c\":1.5}");
    struct json_node root = json_root(value);
    struct json_node a = json_member(&root, "a"), b = json_member(&root, "b"),
                     c = json_member(&root, "c");
    const struct json_range open = { .min = 0, .max = 1, .min_open = true };
    assert_false(json_read_float(&a, &open, &out, &st));
    assert_string_equal(st.reason, "decimal_below_min_value");
    assert_true(json_read_float(&b, &open, &out, &st));
    assert_true(out == 1);
    assert_false(json_read_float(&c, &open, &out, &st));
    assert_string_equal(st.reason, "decimal_above_max_value");
    json_decref(value);
}

static void test_nul_in_strings(void **state)
{
    struct status st;
    const char *text = NULL;
    size_t len = 0;
    (void)state;
    json_t *value = parse("{\"s\":\"a\\u0000b\"}");
    struct json_node root = json_root(value), n = json_member(&root, "s");
    assert_true(json_read_string(&n, &text, &len, &st));
    assert_int_equal(len, 3);
    assert_false(json_read_string(&n, &text, NULL, &st));
    json_decref(value);
}

static void test_bad_bodies(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "nul",
        "{\"a\":1}x",
        "{'a':1}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":123456789012345678901}",
        "{\"a\":1e999}",
        "\"\\ud800\"",
        "\"\xff\"",
        "[1,]",
        "{\"a\":01}",
    };
    struct status st;
    json_t *root;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (json_parse(bad[i], strlen(bad[i]), &root, &st))
            fail_msg("accepted: %s", bad[i]);
        assert_string_equal(st.reason, "invalid_json");
        assert_non_null(strstr(st.message, "line"));
    }
}

static void test_depth(void **state)
{
    char text[2 * (LIMIT_JSON_DEPTH + 1) + 1];
    struct status st;
    json_t *root;
    (void)state;
    memset(text, '[', LIMIT_JSON_DEPTH);
    memset(text + LIMIT_JSON_DEPTH, ']', LIMIT_JSON_DEPTH);
    assert_true(json_parse(text, 2 * LIMIT_JSON_DEPTH, &root, &st));
    json_decref(root);
    memset(text, '[', LIMIT_JSON_DEPTH + 1);
    memset(text + LIMIT_JSON_DEPTH + 1, ']', LIMIT_JSON_DEPTH + 1);
    assert_false(json_parse(text, 2 * LIMIT_JSON_DEPTH + 2, &root, &st));
    assert_string_equal(st.reason, "json_too_deep");
    /* Brackets inside a string nest nothing. */
    struct buf b = { 0 };
    buf_append_str(&b, "[\"\\\"");
    for (int i = 0; i < 1000; i++)
        buf_append_char(&b, '[');
    buf_append_str(&b, "\"]");
    assert_true(json_parse(b.data, b.len, &root, &st));
    json_decref(root);
    buf_free(&b);
}

/* Thirty megabytes of "[]," would become gigabytes. */
static void test_amplification(void **state)
{
    struct status st;
    json_t *root;
    size_t len = (size_t)30 << 20;
    char *text = malloc(len);
    (void)state;
    text[0] = '[';
    for (size_t i = 1; i + 2 < len; i += 3)
        memcpy(text + i, "[],", 3);
    text[len - 1] = ']';
    assert_false(json_parse(text, len, &root, &st));
    assert_string_equal(st.reason, "json_too_large");
    free(text);
}

static void test_writer(void **state)
{
    struct buf out = { 0 };
    struct json_writer w;
    (void)state;
    json_writer_init(&w, &out);
    json_open_object(&w);
    json_key(&w, "text");
    static const char text[] = "q\" b\\ n\n nul\0 esc\x1b \xc3\xa9 \xff \xe2\x82";
    json_put_text(&w, text, sizeof text - 1);
    json_key(&w, "list");
    json_open_array(&w);
    json_put_int(&w, -5);
    json_put_bool(&w, true);
    json_put_null(&w);
    json_put_string(&w, NULL);
    json_open_object(&w);
    json_close_object(&w);
    json_close_array(&w);
    json_close_object(&w);
    assert_string_equal(buf_str(&out),
                        "{\"text\":\"q\\\" b\\\\ n\\n nul\\u0000 esc\\u001b \xc3\xa9 \xef\xbf\xbd "
                        "\xef\xbf\xbd\",\"list\":[-5,true,null,null,{}]}");
    buf_free(&out);
}

static void test_any_bytes_give_valid_json(void **state)
{
    unsigned seed = 1;
    (void)state;
    for (int round = 0; round < 2000; round++) {
        char bytes[24];
        struct buf out = { 0 };
        struct json_writer w;
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (char)((seed = seed * 1103515245 + 12345) >> 16);
        json_writer_init(&w, &out);
        json_put_text(&w, bytes, sizeof bytes);
        json_t *back = json_loadb(out.data, out.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
        if (!back)
            fail_msg("invalid JSON: %s", out.data);
        json_decref(back);
        buf_free(&out);
    }
}

static void test_float_output(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        { -0.25, "-0.25" },
        { 1, "1.0" },
        { -INFINITY, "-9999.0" },
        { NAN, "-9999.0" },
        { -20000, "-9999.0" },
        { INFINITY, "1e+300" },
        { (double)0.1f, "0.100000001" },
        { 1e-20, "1e-20" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = { 0 };
        struct json_writer w;
        json_writer_init(&w, &out);
        json_put_float(&w, cases[i].value);
        assert_string_equal(buf_str(&out), cases[i].text);
        buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths_in_errors), cmocka_unit_test(test_long_paths_are_cut),
        cmocka_unit_test(test_integers),        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_nul_in_strings),  cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_depth),           cmocka_unit_test(test_amplification),
        cmocka_unit_test(test_writer),          cmocka_unit_test(test_any_bytes_give_valid_json),
        cmocka_unit_test(test_float_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
