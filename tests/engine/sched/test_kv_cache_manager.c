/* test_kv_cache_manager.c - what is shared, what is not, and that refusing changes nothing. */
#include "engine/sched/block_hash.h"
#include "engine/sched/kv_cache_manager.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

enum { BLOCK_SIZE = 4, NUM_BLOCKS = 8, MAX_SEQS = 4 };

static const struct kv_cache_groups one_group = { .num_groups = 1,
                                                  .block_size = BLOCK_SIZE,
                                                  .max_chunk = 64 };

struct fixture {
    struct kv_cache_manager *m;
    struct sequence_slab slab;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->m = kv_cache_manager_new(&(struct kv_cache_config){ .groups = one_group,
                                                           .num_blocks = NUM_BLOCKS,
                                                           .max_num_seqs = MAX_SEQS,
                                                           .max_model_len = 100,
                                                           .enable_prefix_caching = true,
                                                           .hash_key = { 1, 2 } });
    sequence_slab_init(&f->slab, 16);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (int32_t i = 0; i < f->slab.num_touched; i++)
        request_unref(f->slab.slots[i].request);
    sequence_slab_free(&f->slab);
    kv_cache_manager_free(f->m);
    free(f);
    return 0;
}

/* A sequence of `num_tokens` tokens 100, 101, ... */
static struct sequence *add(struct fixture *f, int32_t num_tokens)
{
    int32_t ids[64];
    struct sampling_params params;
    sampling_params_defaults(&params);
    for (int32_t i = 0; i < num_tokens; i++)
        ids[i] = 100 + i;
    struct request *r = request_new(ids, num_tokens, 20, &params, NULL, NULL);
    return &f->slab.slots[sequence_slab_take(&f->slab, r)];
}

static void check(struct fixture *f)
{
    struct status st;
    if (!kv_cache_manager_check(f->m, &f->slab, &st))
        fail_msg("%s", st.message);
}

/* Runs all its tokens: looks up, admits, computes, registers. Returns the tokens found. */
static int32_t run(struct fixture *f, struct sequence *seq)
{
    struct kv_cache_hit hit = kv_cache_manager_lookup(f->m, seq);
    kv_cache_manager_admit(f->m, seq, &hit, seq->num_tokens);
    seq->status = SEQUENCE_RUNNING;
    assert_int_equal(seq->num_computed_tokens, hit.num_tokens);
    seq->num_computed_tokens = seq->num_tokens;
    kv_cache_manager_register(f->m, seq);
    check(f);
    return hit.num_tokens;
}

static void end(struct fixture *f, struct sequence *seq)
{
    kv_cache_manager_release(f->m, seq);
    seq->status = SEQUENCE_WAITING;
    check(f);
}

static void test_shares_full_blocks_only(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 11), *b = add(f, 11), *c = add(f, 9), *d = add(f, 8);
    assert_int_equal(run(f, a), 0);
    assert_int_equal(kv_cache_manager_num_free(f->m), NUM_BLOCKS - 3);
    assert_int_equal(run(f, b), 8);
    assert_int_equal(kv_cache_manager_num_free(f->m), NUM_BLOCKS - 4);
    assert_int_equal(kv_cache_manager_tables(f->m, a)[1], kv_cache_manager_tables(f->m, b)[1]);
    assert_int_not_equal(kv_cache_manager_tables(f->m, a)[2], kv_cache_manager_tables(f->m, b)[2]);
    assert_int_equal(run(f, c), 8);
    /* Of 8 cached tokens 7 may be used: the last one is computed for its logits. */
    assert_int_equal(run(f, d), 4);
}

static void test_found_after_release_until_overwritten(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 16), *b = add(f, 17);
    run(f, a);
    end(f, a);
    assert_int_equal(kv_cache_manager_num_free(f->m), NUM_BLOCKS);
    struct kv_cache_hit hit = kv_cache_manager_lookup(f->m, b);
    assert_int_equal(hit.num_tokens, 16);
    assert_int_equal(hit.num_free, 4);
    /* Others take 6 of 8 blocks: 4 empty ones, then the end of the cached prefix. */
    struct sequence *other = add(f, 6 * BLOCK_SIZE);
    other->request->token_ids[0] = 7;
    run(f, other);
    hit = kv_cache_manager_lookup(f->m, b);
    assert_int_equal(hit.num_tokens, 8);
}

static void test_grow_refuses_without_side_effect(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 24), *b = add(f, 5);
    b->request->token_ids[0] = 7;
    run(f, a);
    run(f, b);
    assert_int_equal(kv_cache_manager_num_free(f->m), 0);
    assert_true(kv_cache_manager_grow(f->m, b, 8));
    assert_false(kv_cache_manager_grow(f->m, b, 9));
    assert_int_equal(b->num_blocks, 2);
    check(f);
    end(f, a);
    assert_true(kv_cache_manager_grow(f->m, b, 9));
    check(f);
}

static void test_not_found_before_it_is_registered(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 9), *b = add(f, 9);
    struct kv_cache_hit hit = kv_cache_manager_lookup(f->m, a);
    kv_cache_manager_admit(f->m, a, &hit, 9);
    a->status = SEQUENCE_RUNNING;
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 0);
    a->num_computed_tokens = 7;
    kv_cache_manager_register(f->m, a);
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 4);
    a->num_computed_tokens = 8;
    kv_cache_manager_register(f->m, a);
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 8);
    kv_cache_manager_forget(f->m, a);
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 0);
    check(f);
}

static void test_salt_and_prefix_separate(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 9), *b = add(f, 9), *c = add(f, 9), *d = add(f, 9);
    run(f, a);
    b->request->cache_salt = (struct hash128){ 0, 1 };
    assert_int_equal(run(f, b), 0);
    c->request->token_ids[0] = 1; /* the second block's tokens are a's, its prefix is not */
    assert_int_equal(kv_cache_manager_lookup(f->m, c).num_tokens, 0);
    d->request->cache_salt = (struct hash128){ 0, 1 };
    assert_int_equal(kv_cache_manager_lookup(f->m, d).num_tokens, 8);
}

static void test_prompt_logprobs_are_computed_once(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 9), *b = add(f, 9);
    b->request->params.num_prompt_logprobs = 0;
    run(f, a);
    assert_false(kv_cache_manager_looks_up(f->m, b));
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 0);
    b->num_tokens++; /* there is output, so they have been computed */
    assert_true(kv_cache_manager_looks_up(f->m, b));
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 8);
    /* What it computes others may find all the same. */
    b->num_tokens--;
    end(f, a);
    assert_true(kv_cache_manager_reset(f->m));
    run(f, b);
    assert_int_equal(kv_cache_manager_lookup(f->m, a).num_tokens, 8);
}

static void test_reset(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 9), *b = add(f, 9);
    run(f, a);
    assert_false(kv_cache_manager_reset(f->m));
    end(f, a);
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 8);
    assert_true(kv_cache_manager_reset(f->m));
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 0);
}

/* --- two groups: the second with a window of 6 of the tokens; blocks of 4 ------------------------
 */

enum { WINDOW = 6 };

static int set_up_window(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->m =
        kv_cache_manager_new(&(struct kv_cache_config){ .groups = { .num_groups = 2,
                                                                    .sliding_window = { 0, WINDOW },
                                                                    .block_size = BLOCK_SIZE,
                                                                    .max_chunk = 18 },
                                                        .num_blocks = 25,
                                                        .max_num_seqs = MAX_SEQS,
                                                        .max_model_len = 100,
                                                        .enable_prefix_caching = true,
                                                        .hash_key = { 1, 2 } });
    sequence_slab_init(&f->slab, 16);
    *state = f;
    return 0;
}

static int32_t table_entry(const struct fixture *f, const struct sequence *seq, int32_t group,
                           int32_t block)
{
    return kv_cache_manager_tables(f->m, seq)[group * kv_cache_manager_stride(f->m) + block];
}

static void test_window_gives_back(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 18);
    run(f, a); /* 5 blocks in each group */
    assert_int_equal(kv_cache_manager_num_free(f->m), 25 - 10);
    kv_cache_manager_trim(f->m, a);
    check(f);
    /* Token 18 sees 13..18: blocks 0 to 2 of the second group hold 0..11. */
    assert_int_equal(kv_cache_manager_num_free(f->m), 25 - 7);
    assert_int_equal(kv_cache_manager_firsts(f->m, a)[0], 0);
    assert_int_equal(kv_cache_manager_firsts(f->m, a)[1], 3);
    assert_int_equal(table_entry(f, a, 1, 2), -1);
    assert_true(table_entry(f, a, 1, 3) >= 0 && table_entry(f, a, 0, 2) >= 0);
    kv_cache_manager_trim(f->m, a);
    assert_int_equal(kv_cache_manager_num_free(f->m), 25 - 7);
    end(f, a);
    assert_int_equal(kv_cache_manager_num_free(f->m), 25);
}

static void test_window_hit(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 18), *b = add(f, 18), *c = add(f, 12);
    run(f, a);
    kv_cache_manager_trim(f->m, a);
    /* After 16 tokens, token 16 sees 11..16: blocks 2 and 3 of the second group. */
    struct kv_cache_hit hit = kv_cache_manager_lookup(f->m, b);
    assert_int_equal(hit.num_tokens, 16);
    assert_int_equal(hit.num_free, 1); /* block 2 was given back and is found */
    assert_int_equal(hit.num_missing, 2);
    kv_cache_manager_admit(f->m, b, &hit, 18);
    b->status = SEQUENCE_RUNNING;
    check(f);
    assert_int_equal(kv_cache_manager_firsts(f->m, b)[1], 2);
    for (int32_t block = 0; block < 4; block++) {
        assert_int_equal(table_entry(f, b, 0, block), table_entry(f, a, 0, block));
        if (block < 2)
            assert_int_equal(table_entry(f, b, 1, block), -1);
    }
    assert_int_equal(table_entry(f, b, 1, 3), table_entry(f, a, 1, 3));
    assert_int_not_equal(table_entry(f, b, 1, 4), table_entry(f, a, 1, 4));
    /* A shorter prefix needs other blocks of the window: 0 and 1, given back and still found. */
    assert_int_equal(kv_cache_manager_lookup(f->m, c).num_tokens, 8);
}

/* Runs a sequence of other tokens that takes num_blocks blocks in each group. */
static void fill(struct fixture *f, int32_t num_blocks)
{
    struct sequence *seq = add(f, num_blocks * BLOCK_SIZE);
    seq->request->token_ids[0] = 7;
    assert_int_equal(run(f, seq), 0);
}

/* Where a block of the window is gone, the longest prefix is one that does not need it. */
static void test_window_hole(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 18), *b = add(f, 18), *c = add(f, 12);
    run(f, a);
    kv_cache_manager_trim(f->m, a);
    /* c uses blocks 0 and 1 of the window once more, so block 2 is the first to go. */
    assert_int_equal(run(f, c), 8);
    kv_cache_manager_trim(f->m, c);
    end(f, c);
    assert_int_equal(kv_cache_manager_num_free(f->m), 18); /* 15 of them without content */
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 16);
    fill(f, 8);
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 8);
    assert_int_equal(kv_cache_manager_lookup(f->m, c).num_tokens, 8);
}

/* Suspect content is not found any more even where it was given back. */
static void test_window_forget(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 18), *b = add(f, 18), *c = add(f, 12);
    run(f, a);
    kv_cache_manager_trim(f->m, a);
    kv_cache_manager_forget(f->m, a);
    check(f);
    assert_int_equal(kv_cache_manager_lookup(f->m, b).num_tokens, 0);
    /* Another computes them anew, and his are the ones to be found. */
    end(f, a);
    assert_int_equal(run(f, c), 0);
    assert_int_equal(run(f, b), 12);
    assert_int_equal(table_entry(f, b, 1, 1), table_entry(f, c, 1, 1)); /* not what a gave back */
}

static void test_window_missing(void **state)
{
    struct fixture *f = *state;
    struct sequence *a = add(f, 60);
    struct kv_cache_hit hit = kv_cache_manager_lookup(f->m, a);
    assert_int_equal(hit.num_missing, 15 + 7); /* 5 before a step of 18 */
    kv_cache_manager_admit(f->m, a, &hit, 10);
    a->status = SEQUENCE_RUNNING;
    assert_int_equal(kv_cache_manager_missing(f->m, a), 12 + 4);
    a->num_computed_tokens = 10;
    kv_cache_manager_register(f->m, a);
    kv_cache_manager_trim(f->m, a); /* block 0 of the window */
    assert_int_equal(kv_cache_manager_missing(f->m, a), 12 + 5);
    assert_int_equal(kv_cache_manager_num_free(f->m), 25 - 6 + 1);
    assert_true(kv_cache_manager_grow(f->m, a, 28));
    assert_int_equal(kv_cache_manager_num_free(f->m), 25 - 6 + 1 - 8);
    assert_int_equal(kv_cache_manager_missing(f->m, a), 8 + 1);
    assert_false(kv_cache_manager_grow(f->m, a, 60));
    check(f);
}

static void test_off_means_off(void **state)
{
    (void)state;
    struct fixture f;
    f.m = kv_cache_manager_new(&(struct kv_cache_config){
        .groups = one_group, .num_blocks = 8, .max_num_seqs = 2, .max_model_len = 100 });
    sequence_slab_init(&f.slab, 2);
    struct sequence *a = add(&f, 9), *b = add(&f, 9);
    run(&f, a);
    assert_int_equal(run(&f, b), 0);
    for (int32_t i = 0; i < 2; i++)
        request_unref(f.slab.slots[i].request);
    sequence_slab_free(&f.slab);
    kv_cache_manager_free(f.m);
}

static void test_hash_covers_key_parent_and_tokens(void **state)
{
    (void)state;
    struct hash_key key = { 1, 2 }, other_key = { 1, 3 };
    int32_t ids[MAX_BLOCK_SIZE] = { 0 };
    struct hash128 root = block_hash_root(key, (struct hash128){ 0, 0 });
    struct hash128 block = block_hash_chain(key, root, ids, MAX_BLOCK_SIZE);
    assert_false(hash128_equal(root, block_hash_root(other_key, (struct hash128){ 0, 0 })));
    assert_false(hash128_equal(root, block_hash_root(key, (struct hash128){ 1, 0 })));
    assert_false(hash128_equal(root, block_hash_root(key, (struct hash128){ 0, 1 })));
    assert_true(hash128_equal(block, block_hash_chain(key, root, ids, MAX_BLOCK_SIZE)));
    assert_false(hash128_equal(block, block_hash_chain(other_key, root, ids, MAX_BLOCK_SIZE)));
    assert_false(hash128_equal(block, block_hash_chain(key, block, ids, MAX_BLOCK_SIZE)));
    ids[MAX_BLOCK_SIZE - 1] = 1;
    assert_false(hash128_equal(block, block_hash_chain(key, root, ids, MAX_BLOCK_SIZE)));
    assert_true(hash128_equal(block_hash_chain(key, root, ids, 1),
                              block_hash_chain(key, root, ids + 1, 1)));
}

int main(void)
{
#define WINDOW_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_window, tear_down)
#define CACHE_TEST(test)  cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CACHE_TEST(test_shares_full_blocks_only),
        CACHE_TEST(test_found_after_release_until_overwritten),
        CACHE_TEST(test_grow_refuses_without_side_effect),
        CACHE_TEST(test_not_found_before_it_is_registered),
        CACHE_TEST(test_salt_and_prefix_separate),
        CACHE_TEST(test_prompt_logprobs_are_computed_once),
        CACHE_TEST(test_reset),
        WINDOW_TEST(test_window_gives_back),
        WINDOW_TEST(test_window_hit),
        WINDOW_TEST(test_window_hole),
        WINDOW_TEST(test_window_forget),
        WINDOW_TEST(test_window_missing),
        cmocka_unit_test(test_off_means_off),
        cmocka_unit_test(test_hash_covers_key_parent_and_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
