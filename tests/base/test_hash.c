/* test_hash.c - SipHash-2-4-128 against the vectors of its reference implementation. */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct hash_key key = { 0x0706050403020100u, 0x0f0e0d0c0b0a0908u };

static void check(size_t len, uint64_t low, uint64_t high)
{
    unsigned char data[64];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)i;
    struct hash128 h = hash_sip128(key, data, len);
    assert_int_equal(h.low, low);
    assert_int_equal(h.high, high);
}

static void test_vectors(void **state)
{
    (void)state;
    check(0, 0xe6a825ba047f81a3u, 0x930255c71472f66du);
    check(1, 0x44af996bd8c187dau, 0x45fc229b11597634u);
}

static void test_every_byte_and_length_counts(void **state)
{
    (void)state;
    unsigned char data[40] = { 0 };
    struct hash128 seen[81];
    int n = 0;
    for (size_t len = 0; len <= 40; len++)
        seen[n++] = hash_sip128(key, data, len);
    for (size_t i = 0; i < 40; i++) {
        data[i] = 1;
        seen[n++] = hash_sip128(key, data, 40);
        data[i] = 0;
    }
    for (int a = 0; a < n; a++)
        for (int b = 0; b < a; b++)
            assert_false(hash128_equal(seen[a], seen[b]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_every_byte_and_length_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
