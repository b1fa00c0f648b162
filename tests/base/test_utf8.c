/* test_utf8.c - decoding against a plain restatement of the definition, over every short input
 * that can matter, and the maximal-subpart rule on known cases. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_every_scalar_round_trips(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char out[4];
        uint32_t back = 0;
        if (c >= 0xD800 && c < 0xE000)
            continue;
        int n = utf8_encode(c, out);
        assert_int_equal(utf8_decode(out, (size_t)n, &back), n);
        assert_int_equal(back, c);
        for (int cut = 1; cut < n; cut++)
            assert_int_equal(utf8_decode(out, (size_t)cut, &back), 0);
    }
}

/* Every three-byte input: accepted exactly when it is the encoding of what it decodes to. */
static void test_nothing_else_is_accepted(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 1u << 24; v += 1) {
        char text[3] = { (char)(v >> 16), (char)(v >> 8), (char)v };
        uint32_t c;
        int n = utf8_decode(text, 3, &c);
        if (n > 0) {
            char out[4];
            assert_true(c < 0xD800 || c > 0xDFFF);
            assert_int_equal(utf8_encode(c, out), n);
            assert_memory_equal(out, text, (size_t)n);
        }
    }
}

static void test_invalid_lengths(void **state)
{
    (void)state;
    assert_int_equal(utf8_invalid_len("\x80", 1), 1);
    assert_int_equal(utf8_invalid_len("\xE2\x82", 2), 2);
    assert_int_equal(utf8_invalid_len("\xE2\x82\x41", 3), 2);
    assert_int_equal(utf8_invalid_len("\xF0\x9F\x98", 3), 3);
    assert_int_equal(utf8_invalid_len("\xF0\x80\x80\x80", 4), 1); /* overlong */
    assert_int_equal(utf8_invalid_len("\xED\xA0\x80", 3), 1);     /* surrogate */
    assert_int_equal(utf8_invalid_len("\xF5\x80", 2), 1);
}

static void test_valid_prefix(void **state)
{
    (void)state;
    assert_int_equal(utf8_valid_prefix("abc", 3), 3);
    assert_int_equal(utf8_valid_prefix("a\xC3\xA9\xE2\x82", 5), 3);
    assert_true(utf8_valid("", 0));
    assert_false(utf8_valid("\xC0\x80", 2));
    assert_true(utf8_valid("\0x", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_scalar_round_trips),
        cmocka_unit_test(test_nothing_else_is_accepted),
        cmocka_unit_test(test_invalid_lengths),
        cmocka_unit_test(test_valid_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
