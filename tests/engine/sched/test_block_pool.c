/* test_block_pool.c - order of the free list, sharing, and the hash index against a plain model. */
#include "engine/sched/block_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static struct hash128 hash_of(uint64_t n)
{
    return (struct hash128){ n, ~n };
}

static void test_takes_all_then_none(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(5);
    bool seen[5] = { false };
    assert_int_equal(block_pool_num_blocks(p), 5);
    for (int32_t i = 0; i < 5; i++) {
        int32_t block = block_pool_take(p);
        assert_in_range(block, 0, 4);
        assert_false(seen[block]);
        seen[block] = true;
        assert_int_equal(block_pool_ref_count(p, block), 1);
    }
    assert_int_equal(block_pool_num_free(p), 0);
    for (int32_t i = 0; i < 5; i++)
        block_pool_unref(p, i);
    assert_int_equal(block_pool_num_free(p), 5);
    block_pool_free(p);
}

/* Blocks without cached content go first; cached ones in the order of their release. */
static void test_cached_content_lives_longest(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(4);
    int32_t b[4];
    for (int32_t i = 0; i < 4; i++)
        b[i] = block_pool_take(p);
    block_pool_register(p, b[0], hash_of(10));
    block_pool_register(p, b[1], hash_of(11));
    block_pool_register(p, b[2], hash_of(12));
    /* Released last one first, as a sequence's blocks are. */
    for (int32_t i = 3; i >= 0; i--)
        block_pool_unref(p, b[i]);
    assert_int_equal(block_pool_find(p, hash_of(12)), b[2]);
    assert_int_equal(block_pool_take(p), b[3]);
    assert_int_equal(block_pool_take(p), b[2]);
    assert_int_equal(block_pool_find(p, hash_of(12)), BLOCK_NONE);
    assert_int_equal(block_pool_find(p, hash_of(11)), b[1]);
    assert_int_equal(block_pool_take(p), b[1]);
    assert_int_equal(block_pool_find(p, hash_of(10)), b[0]);
    block_pool_free(p);
}

static void test_a_hit_leaves_the_free_list(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(3);
    int32_t a = block_pool_take(p), b = block_pool_take(p), c = block_pool_take(p);
    block_pool_register(p, a, hash_of(1));
    block_pool_register(p, b, hash_of(2));
    block_pool_register(p, c, hash_of(3));
    block_pool_unref(p, a);
    block_pool_unref(p, b);
    block_pool_unref(p, c);
    block_pool_ref(p, b); /* from the middle */
    assert_int_equal(block_pool_num_free(p), 2);
    block_pool_ref(p, b);
    assert_int_equal(block_pool_ref_count(p, b), 2);
    block_pool_unref(p, b);
    assert_int_equal(block_pool_num_free(p), 2);
    assert_int_equal(block_pool_take(p), a);
    assert_int_equal(block_pool_take(p), c);
    assert_int_equal(block_pool_find(p, hash_of(2)), b);
    block_pool_unref(p, b);
    assert_int_equal(block_pool_take(p), b);
    block_pool_free(p);
}

static void test_equal_blocks_are_not_merged(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(2);
    int32_t a = block_pool_take(p), b = block_pool_take(p);
    block_pool_register(p, a, hash_of(1));
    block_pool_register(p, b, hash_of(1));
    assert_int_equal(block_pool_find(p, hash_of(1)), a);
    block_pool_unref(p, b);
    block_pool_forget(p, a);
    assert_int_equal(block_pool_find(p, hash_of(1)), BLOCK_NONE);
    block_pool_forget(p, a);
    block_pool_free(p);
}

static void test_reset_only_when_all_are_free(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(2);
    int32_t a = block_pool_take(p);
    block_pool_register(p, a, hash_of(1));
    assert_false(block_pool_reset(p));
    assert_int_equal(block_pool_find(p, hash_of(1)), a);
    block_pool_unref(p, a);
    assert_true(block_pool_reset(p));
    assert_int_equal(block_pool_find(p, hash_of(1)), BLOCK_NONE);
    block_pool_free(p);
}

/* Thousands of operations on few home slots, so that clusters form, wrap and break up. */
static void test_index_against_model(void **state)
{
    (void)state;
    enum { NUM_BLOCKS = 37, NUM_KEYS = 60 };
    struct block_pool *p = block_pool_new(NUM_BLOCKS);
    int32_t refs[NUM_BLOCKS] = { 0 }, owner[NUM_KEYS], key_of[NUM_BLOCKS];
    uint64_t rng = 12345;
    memset(owner, -1, sizeof owner);
    memset(key_of, -1, sizeof key_of);
    for (int32_t i = 0; i < 20000; i++) {
        rng = rng * 6364136223846793005u + 1442695040888963407u;
        int32_t key = (int32_t)(rng >> 33) % NUM_KEYS;
        struct hash128 hash = { (uint64_t)(key % 4 == 0 ? 125 : key % 7), (uint64_t)key };
        int32_t found = block_pool_find(p, hash);
        assert_int_equal(found, owner[key]);
        if (found != BLOCK_NONE && (rng >> 20) % 3 == 0) {
            block_pool_forget(p, found);
            key_of[found] = owner[key] = -1;
        } else if (found == BLOCK_NONE && block_pool_num_free(p) > 0) {
            int32_t block = block_pool_take(p);
            if (key_of[block] >= 0)
                owner[key_of[block]] = -1;
            block_pool_register(p, block, hash);
            owner[key] = block;
            key_of[block] = key;
            refs[block] = 1;
        } else {
            int32_t block = (int32_t)(rng >> 40) % NUM_BLOCKS;
            if (refs[block] > 0) {
                refs[block]--;
                block_pool_unref(p, block);
            }
        }
        struct status st;
        if (!block_pool_check(p, refs, &st))
            fail_msg("operation %d: %s", i, st.message);
    }
    block_pool_free(p);
}

static void test_check_sees_wrong_counts(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(3);
    struct status st;
    int32_t refs[3] = { 0 };
    assert_true(block_pool_check(p, refs, &st));
    refs[block_pool_take(p)] = 2;
    assert_false(block_pool_check(p, refs, &st));
    assert_non_null(strstr(st.message, "references"));
    block_pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_all_then_none),
        cmocka_unit_test(test_cached_content_lives_longest),
        cmocka_unit_test(test_a_hit_leaves_the_free_list),
        cmocka_unit_test(test_equal_blocks_are_not_merged),
        cmocka_unit_test(test_reset_only_when_all_are_free),
        cmocka_unit_test(test_index_against_model),
        cmocka_unit_test(test_check_sees_wrong_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
