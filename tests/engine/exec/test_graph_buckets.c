/* test_graph_buckets.c - the lists of sizes and lengths, and the bucket of a step. */
#include "engine/exec/graph_buckets.h"
#include "config/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct graph_buckets make(const char *sizes, int32_t max_num_seqs, int32_t max_model_len)
{
    struct status st;
    struct graph_buckets b;
    struct graph_buckets_options options = { .mode = GRAPH_MODE_FULL,
                                             .sizes = sizes,
                                             .max_num_seqs = max_num_seqs,
                                             .max_model_len = max_model_len,
                                             .max_seq_len_to_capture = 8192 };
    if (!graph_buckets_make(&options, &b, &st))
        fail_msg("%s", st.message);
    return b;
}

static void assert_sizes(const struct graph_buckets *b, const int32_t *sizes, size_t count)
{
    assert_int_equal(b->num_sizes, count);
    assert_memory_equal(b->sizes, sizes, count * sizeof *sizes);
}

static void test_sizes(void **state)
{
    (void)state;
    const int32_t for_20[] = { 1, 2, 4, 8, 16, 20 }, for_1[] = { 1 }, given[] = { 3, 7, 30 };
    struct graph_buckets b = make(NULL, 20, 100);
    assert_sizes(&b, for_20, 6);
    b = make(NULL, 1, 100);
    assert_sizes(&b, for_1, 1);
    b = make("7,3,7,31,30", 30, 100);
    assert_sizes(&b, given, 3);
    b = make("64", 30, 100); /* no step is of that size */
    assert_int_equal(graph_buckets_count(&b), 0);
    b = make(NULL, 4096, 100);
    assert_int_equal(b.num_sizes, 3 + 512 / 8);
    assert_int_equal(b.sizes[b.num_sizes - 1], 512);
    b = make(NULL, 509, 100);
    assert_int_equal(b.sizes[b.num_sizes - 1], 509);
    assert_true((int)GRAPH_MAX_SIZES >= (int)LIMIT_LIST_ENTRIES);
}

static void test_lens(void **state)
{
    (void)state;
    struct graph_buckets b = make("4", 8, 2048);
    assert_int_equal(b.num_lens, 1);
    assert_int_equal(b.lens[0], 2048);
    b = make("4", 8, 2049);
    assert_int_equal(b.num_lens, 2);
    assert_int_equal(b.lens[1], 2049);
    b = make("4", 8, 1 << 24);
    assert_int_equal(b.lens[1], 8192);
}

static void test_find(void **state)
{
    (void)state;
    struct graph_buckets b = make("2,4,6", 8, 5000);
    assert_int_equal(graph_buckets_count(&b), 6);
    const struct {
        int32_t num_seqs, len, size, max_len;
    } rows[] = { { 1, 1, 2, 2048 },    { 2, 2048, 2, 2048 }, { 3, 2049, 4, 5000 },
                 { 5, 5000, 6, 5000 }, { 6, 5001, 0, 0 },    { 7, 10, 0, 0 },
                 { 0, 0, 0, 0 } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct graph_bucket found = graph_buckets_find(&b, rows[i].num_seqs, 1, rows[i].len);
        assert_int_equal(found.num_seqs, rows[i].size);
        assert_int_equal(found.max_seq_len, rows[i].max_len);
        if (found.num_seqs == 0)
            continue;
        struct graph_bucket same = graph_buckets_get(&b, found.index);
        assert_int_equal(same.num_seqs, found.num_seqs);
        assert_int_equal(same.max_seq_len, found.max_seq_len);
    }
    b.mode = GRAPH_MODE_NONE;
    assert_int_equal(graph_buckets_find(&b, 1, 1, 1).num_seqs, 0);
    assert_int_equal(graph_buckets_count(&b), 0);
}

/* Steps with all their drafts have buckets of their own, as far as a step has room for them. */
static void test_drafts(void **state)
{
    (void)state;
    struct status st;
    struct graph_buckets b;
    struct graph_buckets_options options = { .mode = GRAPH_MODE_FULL,
                                             .sizes = "2,4,6",
                                             .max_num_seqs = 8,
                                             .max_num_tokens = 19,
                                             .max_model_len = 5000,
                                             .max_seq_len_to_capture = 8192,
                                             .max_draft_tokens = 3 };
    assert_true(graph_buckets_make(&options, &b, &st));
    assert_int_equal(b.num_draft_sizes, 2); /* 6 sequences of 4 tokens are too many */
    assert_int_equal(graph_buckets_count(&b), (3 + 2) * 2);
    const struct {
        int32_t num_seqs, query_len, len, size, max_len;
    } rows[] = { { 1, 4, 1, 2, 2048 },    { 3, 4, 2049, 4, 5000 }, { 4, 4, 5001, 0, 0 },
                 { 5, 4, 1, 0, 0 },       { 2, 3, 1, 0, 0 },       { 2, 5, 1, 0, 0 },
                 { 5, 1, 2049, 6, 5000 }, { 1, 0, 1, 0, 0 } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct graph_bucket found =
            graph_buckets_find(&b, rows[i].num_seqs, rows[i].query_len, rows[i].len);
        assert_int_equal(found.num_seqs, rows[i].size);
        assert_int_equal(found.max_seq_len, rows[i].max_len);
        if (found.num_seqs == 0)
            continue;
        assert_int_equal(found.query_len, rows[i].query_len);
        struct graph_bucket same = graph_buckets_get(&b, found.index);
        assert_memory_equal(&same, &found, sizeof found);
    }
    for (int32_t i = 0; i < graph_buckets_count(&b); i++)
        assert_int_equal(graph_buckets_get(&b, i).index, i);
    options.sizes = NULL;
    options.max_num_seqs = 64;
    options.max_num_tokens = 4096;
    assert_true(graph_buckets_make(&options, &b, &st));
    assert_int_equal(b.sizes[b.num_draft_sizes - 1], 32);
    options.max_draft_tokens = 0;
    assert_true(graph_buckets_make(&options, &b, &st));
    assert_int_equal(graph_buckets_count(&b), b.num_sizes * 2);
    assert_true(GRAPH_MAX_BUCKETS >= 2 * GRAPH_MAX_SIZES * GRAPH_MAX_LENS);
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "0", "-1", "1,,2", "1,", ",1", "x", "1 2", "4294967297", "1;2", "", "99999999999999999999"
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct status st;
        struct graph_buckets b;
        struct graph_buckets_options options = { .mode = GRAPH_MODE_FULL,
                                                 .sizes = texts[i],
                                                 .max_num_seqs = 8,
                                                 .max_model_len = 8,
                                                 .max_seq_len_to_capture = 8 };
        assert_false(graph_buckets_make(&options, &b, &st));
        assert_non_null(strstr(st.message, "--cudagraph-capture-sizes: '"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),  cmocka_unit_test(test_lens),     cmocka_unit_test(test_find),
        cmocka_unit_test(test_drafts), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
