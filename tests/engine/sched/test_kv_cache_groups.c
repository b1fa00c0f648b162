/* test_kv_cache_groups.c - the arithmetic of windows against counting, position by position. */
#include "engine/sched/kv_cache_groups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static struct kv_cache_groups make(int32_t first, int32_t second, int32_t block_size, int32_t chunk)
{
    const int32_t windows[] = { first, second };
    return kv_cache_groups_make(windows, 2, block_size, chunk, 0);
}

/* Blocks that group `i` holds while a step computes positions [begin, end), counted. */
static int64_t held(const struct kv_cache_groups *g, int32_t i, int32_t begin, int32_t end)
{
    int64_t count = 0;
    for (int32_t block = 0; block * g->block_size < end; block++) {
        int32_t last = (block + 1) * g->block_size - 1; /* of its positions */
        count += g->sliding_window[i] == 0 || last > begin - g->sliding_window[i];
    }
    return count;
}

static void test_make(void **state)
{
    (void)state;
    const int32_t windows[] = { 0, 5 };
    struct kv_cache_groups g = kv_cache_groups_make(NULL, 0, 16, 100, 0);
    assert_int_equal(g.num_groups, 1);
    assert_int_equal(g.sliding_window[0], 0);
    assert_int_equal(g.max_chunk, 100);
    g = kv_cache_groups_make(windows, 2, 16, 100, 30);
    assert_int_equal(g.num_groups, 2);
    assert_int_equal(g.sliding_window[1], 5);
    assert_int_equal(g.max_chunk, 30);
    assert_int_equal(kv_cache_groups_make(windows, 2, 16, 100, 300).max_chunk, 100);
    assert_int_equal(kv_cache_groups_table_len(&g, 0), 0);
    assert_int_equal(kv_cache_groups_table_len(&g, 16), 1);
    assert_int_equal(kv_cache_groups_table_len(&g, 17), 2);
    assert_int_equal(kv_cache_groups_table_len(&g, INT32_MAX), 1 << 27);
}

static void test_first(void **state)
{
    (void)state;
    struct kv_cache_groups g = make(0, 5, 4, 8);
    assert_int_equal(kv_cache_groups_first(&g, 0, 1000), 0);
    /* Token 7 sees 3..7, token 8 sees 4..8. */
    assert_int_equal(kv_cache_groups_first(&g, 1, 0), 0);
    assert_int_equal(kv_cache_groups_first(&g, 1, 7), 0);
    assert_int_equal(kv_cache_groups_first(&g, 1, 8), 1);
    assert_int_equal(kv_cache_groups_first(&g, 1, 11), 1);
    assert_int_equal(kv_cache_groups_first(&g, 1, 12), 2);
}

/* However a sequence is cut into steps, it never holds more than was said, and at the largest chunk
 * and the worst place it does hold that. */
static void test_blocks_are_what_steps_hold(void **state)
{
    (void)state;
    srand(1);
    for (int32_t round = 0; round < 3000; round++) {
        struct kv_cache_groups g = make(0, 1 + rand() % 20, 1 << rand() % 4, 1 + rand() % 12);
        int32_t len = 1 + rand() % 80, start = rand() % len, computed = start;
        int32_t now = kv_cache_groups_table_len(&g, start);
        int64_t most[2] = { 0, 0 };
        int64_t before[2] = { now, now - kv_cache_groups_first(&g, 1, start) };
        while (computed < len) {
            int32_t chunk = 1 + rand() % g.max_chunk;
            int32_t end = computed + chunk < len ? computed + chunk : len;
            for (int32_t i = 0; i < 2; i++) {
                int64_t n = held(&g, i, computed, end);
                assert_int_equal(n, kv_cache_groups_table_len(&g, end) -
                                        kv_cache_groups_first(&g, i, computed));
                most[i] = n > most[i] ? n : most[i];
            }
            computed = end;
        }
        assert_true(most[0] + most[1] <= kv_cache_groups_blocks(&g, len));
        int64_t missing = kv_cache_groups_missing(&g, start, now, len);
        assert_true(most[0] - before[0] <= missing);
        assert_true(most[0] + most[1] - before[0] - before[1] <= missing);
    }
    struct kv_cache_groups g = make(0, 9, 4, 6);
    /* Positions 3..16: one step of 6 from token 11 on sees them, and they touch 5 blocks. */
    assert_int_equal(held(&g, 1, 11, 17), 5);
    assert_int_equal(kv_cache_groups_blocks(&g, 100), 25 + 5);
}

static void test_longest(void **state)
{
    (void)state;
    srand(2);
    for (int32_t round = 0; round < 500; round++) {
        struct kv_cache_groups g =
            make(rand() % 2 ? 0 : 3, 1 + rand() % 20, 1 << rand() % 4, 1 + rand() % 12);
        int32_t blocks = rand() % 60, max = 1 + rand() % 200, longest = 0;
        for (int32_t n = 1; n <= max; n++)
            if (kv_cache_groups_blocks(&g, n) <= blocks)
                longest = n;
        assert_int_equal(kv_cache_groups_longest(&g, blocks, max), longest);
    }
    /* Where every group has a window, length costs nothing. */
    struct kv_cache_groups g = make(9, 9, 4, 6);
    assert_int_equal(kv_cache_groups_longest(&g, 10, 1 << 24), 1 << 24);
    assert_int_equal(kv_cache_groups_longest(&g, 9, 1 << 24), 4 * 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_make),
        cmocka_unit_test(test_first),
        cmocka_unit_test(test_blocks_are_what_steps_hold),
        cmocka_unit_test(test_longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
