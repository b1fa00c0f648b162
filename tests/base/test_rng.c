/* test_rng.c - Philox4x32-10 against the known answers of the Random123 library. */
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void check(uint64_t key, uint64_t high, uint64_t low, const uint32_t expected[4])
{
    struct rng_block b = rng_philox(key, high, low);
    assert_memory_equal(b.word, expected, sizeof b.word);
}

static void test_known_answers(void **state)
{
    (void)state;
    check(0, 0, 0, (const uint32_t[]){ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 });
    check(UINT64_MAX, UINT64_MAX, UINT64_MAX,
          (const uint32_t[]){ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd });
    check(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u,
          (const uint32_t[]){ 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 });
}

static void test_uniform_is_open(void **state)
{
    (void)state;
    assert_true(rng_uniform(0) > 0.0f);
    assert_true(rng_uniform(UINT32_MAX) < 1.0f);
    assert_true(rng_uniform(UINT32_MAX) > 0.999999f);
}

static void test_system_bytes_differ(void **state)
{
    (void)state;
    unsigned char a[600], b[600];
    rng_system(a, sizeof a);
    rng_system(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_uniform_is_open),
        cmocka_unit_test(test_system_bytes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
