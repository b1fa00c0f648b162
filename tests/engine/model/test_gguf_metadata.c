/* test_gguf_metadata.c - getters: each kind of value, what each refuses, and with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/gguf_builder.h"

#include <math.h>

static struct gguf *opened;
static unsigned char *bytes;

static void number(struct builder *b, const char *key, enum gguf_value_type type, uint64_t bits,
                   size_t size)
{
    put(key_begin(b, key, type), &bits, size);
}

static void numbers(struct builder *b, const char *key, enum gguf_value_type type,
                    const void *values, uint64_t count, size_t size)
{
    struct buf *at = key_begin(b, key, GGUF_ARRAY);
    put_u32(at, type);
    put_u64(at, count);
    put(at, values, count * size);
}

static int setup(void **state)
{
    static const int32_t same[3] = { 7, 7, 7 }, differ[3] = { 7, 8, 7 };
    static const float floats[2] = { 0.5f, -2.0f };
    static const uint8_t flags[3] = { 1, 0, 1 };
    (void)state;
    struct builder b;
    struct status st;
    size_t size;
    double real = 1.25;
    uint64_t bits;
    builder_open(&b);
    number(&b, "u8", GGUF_U8, 200, 1);
    number(&b, "i8", GGUF_I8, 0xff, 1);
    number(&b, "u16", GGUF_U16, 65535, 2);
    number(&b, "i16", GGUF_I16, 0x8000, 2);
    number(&b, "u32", GGUF_U32, UINT32_MAX, 4);
    number(&b, "i32", GGUF_I32, 0xffffffff, 4);
    number(&b, "u64", GGUF_U64, UINT64_MAX, 8);
    number(&b, "i64", GGUF_I64, (uint64_t)INT64_MIN, 8);
    key_f32(&b, "f32", 0.1f);
    key_f32(&b, "nan", NAN);
    key_f32(&b, "infinite", INFINITY);
    memcpy(&bits, &real, sizeof bits);
    number(&b, "f64", GGUF_F64, bits, 8);
    key_bool(&b, "true", 1);
    key_bool(&b, "false", 0);
    key_bool(&b, "two", 2);
    key_text(&b, "text", "h\xc3\xa9llo");
    key_text(&b, "latin", "h\xe9llo");
    put_u64(key_begin(&b, "zero", GGUF_STRING), 3);
    put(&b.keys, "a\0b", 3);
    key_texts(&b, "texts", 3);
    key_texts(&b, "none", 0);
    numbers(&b, "same", GGUF_I32, same, 3, 4);
    numbers(&b, "differ", GGUF_I32, differ, 3, 4);
    numbers(&b, "floats", GGUF_F32, floats, 2, 4);
    numbers(&b, "flags", GGUF_BOOL, flags, 3, 1);
    numbers(&b, "empty", GGUF_I32, same, 0, 4);
    bytes = builder_file(&b, &size);
    builder_close(&b);
    opened = read_memory(bytes, size, &st);
    return opened ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    gguf_close(opened);
    free(bytes);
    return 0;
}

static void expect_words(bool ok, const struct status *st, const char *words)
{
    if (ok || !strstr(st->message, words) || !strstr(st->message, "x.gguf"))
        fail_msg("expected: %s\n  message:  %s", words, ok ? "(taken)" : st->message);
}

static void test_int(void **state)
{
    static const struct {
        const char *key;
        int64_t value;
    } good[] = { { "u8", 200 },         { "i8", -1 },  { "u16", 65535 },     { "i16", -32768 },
                 { "u32", UINT32_MAX }, { "i32", -1 }, { "i64", INT64_MIN }, { "absent", 42 } };
    (void)state;
    struct status st;
    int64_t value = 0;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        value = 42;
        assert_true(
            gguf_get_int(&opened->metadata, good[i].key, INT64_MIN, INT64_MAX, &value, &st));
        assert_int_equal(value, good[i].value);
    }
    value = 42;
    expect_words(gguf_get_int(&opened->metadata, "u8", 0, 199, &value, &st), &st,
                 "key 'u8' is 200, expected a whole number from 0 to 199");
    expect_words(gguf_get_int(&opened->metadata, "u64", 0, INT32_MAX, &value, &st), &st,
                 "key 'u64' is 9223372036854775807");
    expect_words(gguf_get_int(&opened->metadata, "true", 0, 1, &value, &st), &st,
                 "key 'true' is bool, expected a whole number");
    expect_words(gguf_get_int(&opened->metadata, "f32", 0, 1, &value, &st), &st, "is float32");
    expect_words(gguf_get_int(&opened->metadata, "same", 0, 9, &value, &st), &st,
                 "key 'same' is an array of numbers");
    assert_int_equal(value, 42);
}

static void test_uniform_int(void **state)
{
    (void)state;
    struct status st;
    int64_t value = 0;
    assert_true(gguf_get_uniform_int(&opened->metadata, "same", 0, 9, &value, &st));
    assert_int_equal(value, 7);
    assert_true(gguf_get_uniform_int(&opened->metadata, "u8", 0, 255, &value, &st));
    assert_int_equal(value, 200);
    expect_words(gguf_get_uniform_int(&opened->metadata, "differ", 0, 9, &value, &st), &st,
                 "key 'differ' differs between layers (7 and 8)");
    expect_words(gguf_get_uniform_int(&opened->metadata, "same", 0, 6, &value, &st), &st, "is 7");
    expect_words(gguf_get_uniform_int(&opened->metadata, "empty", 0, 6, &value, &st), &st,
                 "expected a whole number, or one for each layer");
    expect_words(gguf_get_uniform_int(&opened->metadata, "texts", 0, 6, &value, &st), &st,
                 "is an array of strings");
}

static void test_float(void **state)
{
    (void)state;
    struct status st;
    double value = 42;
    assert_true(gguf_get_float(&opened->metadata, "absent", &value, &st));
    assert_true(value == 42);
    assert_true(gguf_get_float(&opened->metadata, "f32", &value, &st));
    assert_true(value == (double)0.1f);
    assert_true(gguf_get_float(&opened->metadata, "f64", &value, &st));
    assert_true(value == 1.25);
    assert_true(gguf_get_float(&opened->metadata, "i16", &value, &st));
    assert_true(value == -32768);
    expect_words(gguf_get_float(&opened->metadata, "nan", &value, &st), &st, "no finite number");
    expect_words(gguf_get_float(&opened->metadata, "infinite", &value, &st), &st, "no finite");
    expect_words(gguf_get_float(&opened->metadata, "true", &value, &st), &st, "is bool");
    assert_true(value == -32768);
}

static void test_bool_and_string(void **state)
{
    (void)state;
    struct status st;
    bool flag = true;
    const char *text = "unchanged";
    size_t len = 0;
    assert_true(gguf_get_bool(&opened->metadata, "absent", &flag, &st) && flag);
    assert_true(gguf_get_bool(&opened->metadata, "false", &flag, &st) && !flag);
    assert_true(gguf_get_bool(&opened->metadata, "true", &flag, &st) && flag);
    expect_words(gguf_get_bool(&opened->metadata, "two", &flag, &st), &st, "a bool of value 2");
    expect_words(gguf_get_bool(&opened->metadata, "u8", &flag, &st), &st, "expected a bool");
    assert_true(gguf_get_string(&opened->metadata, "absent", &text, &len, &st));
    assert_string_equal(text, "unchanged");
    assert_true(gguf_get_string(&opened->metadata, "text", &text, &len, &st));
    assert_int_equal(len, 6);
    assert_memory_equal(text, "h\xc3\xa9llo", 6);
    expect_words(gguf_get_string(&opened->metadata, "latin", &text, &len, &st), &st, "no UTF-8");
    expect_words(gguf_get_string(&opened->metadata, "zero", &text, &len, &st), &st, "no UTF-8");
    expect_words(gguf_get_string(&opened->metadata, "u8", &text, &len, &st), &st, "a string");
}

static void test_arrays(void **state)
{
    (void)state;
    struct status st;
    const struct gguf_value *v;
    assert_true(gguf_get_array(&opened->metadata, "absent", GGUF_STRING, &v, &st) && !v);
    assert_true(gguf_get_array(&opened->metadata, "texts", GGUF_STRING, &v, &st));
    assert_int_equal(v->count, 3);
    struct gguf_cursor at = v->data;
    for (int i = 0; i < 3; i++) {
        const char *text;
        size_t len;
        gguf_array_next_string(&at, &text, &len);
        assert_int_equal(len, 1);
        assert_int_equal(text[0], '0' + i);
    }
    assert_ptr_equal(at.at, at.end);
    assert_true(gguf_get_array(&opened->metadata, "none", GGUF_STRING, &v, &st));
    assert_int_equal(v->count, 0);
    assert_true(gguf_get_array(&opened->metadata, "differ", GGUF_I32, &v, &st));
    assert_int_equal(gguf_array_int(v, 1), 8);
    assert_true(gguf_get_array(&opened->metadata, "flags", GGUF_BOOL, &v, &st));
    assert_int_equal(gguf_array_int(v, 0), 1);
    assert_int_equal(gguf_array_int(v, 1), 0);
    assert_true(gguf_get_array(&opened->metadata, "floats", GGUF_F32, &v, &st));
    assert_true(gguf_array_float(v, 1) == -2.0);
    assert_true(gguf_get_array(&opened->metadata, "differ", GGUF_F32, &v, &st));
    assert_true(gguf_array_float(v, 1) == 8.0);
    expect_words(gguf_get_array(&opened->metadata, "floats", GGUF_I32, &v, &st), &st,
                 "expected an array of whole numbers");
    expect_words(gguf_get_array(&opened->metadata, "same", GGUF_STRING, &v, &st), &st,
                 "expected an array of strings");
    expect_words(gguf_get_array(&opened->metadata, "texts", GGUF_F32, &v, &st), &st,
                 "expected an array of numbers");
    expect_words(gguf_get_array(&opened->metadata, "u8", GGUF_I32, &v, &st), &st, "is uint8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int),    cmocka_unit_test(test_uniform_int),
        cmocka_unit_test(test_float),  cmocka_unit_test(test_bool_and_string),
        cmocka_unit_test(test_arrays),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
