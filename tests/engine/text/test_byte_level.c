/* test_byte_level.c - all bytes there and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/byte_level.h"

#include <string.h>

static void test_all_bytes(void **state)
{
    (void)state;
    char bytes[256];
    struct buf text, back;
    buf_init(&text, 0);
    buf_init(&back, 0);
    for (int b = 0; b < 256; b++)
        bytes[b] = (char)b;
    byte_level_encode(bytes, sizeof bytes, &text);
    assert_true(byte_level_decode(buf_str(&text), text.len, &back));
    assert_int_equal(back.len, 256);
    assert_memory_equal(back.data, bytes, 256);
    assert_int_equal(byte_level_char(' '), 0x120);
    assert_int_equal(byte_level_char('\n'), 0x10A);
    assert_int_equal(byte_level_char(0xAD), 0x143);
    assert_int_equal(byte_level_byte(0x144), -1);
    assert_int_equal(byte_level_byte(' '), -1);
    buf_free(&text);
    buf_free(&back);
}

static void test_other_text(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 0);
    buf_append_str(&out, "<");
    assert_false(byte_level_decode("ab c", 4, &out));
    assert_string_equal(buf_str(&out), "<ab c");
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_bytes),
        cmocka_unit_test(test_other_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
