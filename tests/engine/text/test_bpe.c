/* test_bpe.c - every way of merging against the plain definition, on random models and words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "engine/text/bpe.h"

#include <stdlib.h>
#include <string.h>

/* Pieces over a small alphabet: single letters, then random joins of two earlier pieces. */
struct model {
    struct vocab vocab;
    json_t *spec;
    int32_t left[64], right[64], result[64];
    int num_merges;
};

static void make_model(struct model *m, const char *alphabet, int num_merges)
{
    memset(m, 0, sizeof *m);
    arena_init(&m->vocab.arena);
    json_t *merges = json_array();
    int32_t size = 0;
    for (const char *c = alphabet; *c; c++)
        vocab_put_model(&m->vocab, size++, c, 1);
    while (m->num_merges < num_merges) {
        int32_t a = rand() % size, b = rand() % size;
        struct vocab_piece *p = m->vocab.pieces;
        char text[256];
        snprintf(text, sizeof text, "%s%s", p[a].text, p[b].text);
        if (strlen(text) > 12)
            continue;
        int32_t id = vocab_find(&m->vocab, text, strlen(text));
        if (id < 0)
            vocab_put_model(&m->vocab, id = size++, text, strlen(text));
        json_array_append_new(
            merges, json_pack("[s, s]", m->vocab.pieces[a].text, m->vocab.pieces[b].text));
        m->left[m->num_merges] = a;
        m->right[m->num_merges] = b;
        m->result[m->num_merges++] = id;
    }
    m->spec = json_pack("{s:s, s:o}", "type", "BPE", "merges", merges);
}

static void free_model(struct model *m)
{
    json_decref(m->spec);
    vocab_free(&m->vocab);
}

/* The last of equal pairs counts, as in a map built in order. */
static int rank_of(const struct model *m, int32_t a, int32_t b)
{
    for (int r = m->num_merges - 1; r >= 0; r--) {
        if (m->left[r] == a && m->right[r] == b)
            return r;
    }
    return -1;
}

static size_t naive(const struct model *m, int32_t *ids, size_t n)
{
    for (;;) {
        int best_rank = -1;
        size_t best = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int rank = rank_of(m, ids[i], ids[i + 1]);
            if (rank >= 0 && (best_rank < 0 || rank < best_rank)) {
                best_rank = rank;
                best = i;
            }
        }
        if (best_rank < 0)
            return n;
        ids[best] = m->result[best_rank];
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
    }
}

static void check_word(const struct model *m, const struct bpe *bpe, struct bpe_scratch *scratch,
                       const char *word, size_t len)
{
    int32_t expected[400];
    struct token_list got = { 0 };
    struct token_sink sink = { &got, SIZE_MAX, false };
    struct status st = { 0 };
    for (size_t i = 0; i < len; i++)
        expected[i] = vocab_find(&m->vocab, word + i, 1);
    size_t n = naive(m, expected, len);
    assert_true(bpe_encode(bpe, scratch, word, len, &sink, &st));
    assert_int_equal(got.len, n);
    assert_memory_equal(got.ids, expected, n * sizeof *expected);
    token_list_free(&got);
}

static void test_random_models(void **state)
{
    (void)state;
    srand(3);
    for (int round = 0; round < 150; round++) {
        static const char *const alphabets[] = { "a", "ab", "abcdef", "abcdefghijklmnopqrst" };
        const char *alphabet = alphabets[round % 4];
        struct model m;
        struct bpe *bpe;
        struct status st = { 0 };
        struct bpe_scratch scratch = { 0 };
        make_model(&m, alphabet, round % 4 == 0 ? 6 : 4 + round % 50);
        if (!bpe_load(m.spec, &m.vocab, round % 8 >= 4, &bpe, &st))
            fail_msg("%s", st.message);
        for (int w = 0; w < 60; w++) {
            char word[400];
            size_t len = 1 + (size_t)rand() % (w % 3 == 0 ? 350 : 30);
            for (size_t i = 0; i < len; i++)
                word[i] = alphabet[(size_t)rand() % strlen(alphabet)];
            check_word(&m, bpe, &scratch, word, len);
            check_word(&m, bpe, &scratch, word, len);
        }
        bpe_scratch_free(&scratch);
        bpe_free(bpe);
        free_model(&m);
    }
}

/* Two megabytes of one letter: quadratic time would take hours. */
static void test_long_run(void **state)
{
    (void)state;
    struct model m;
    struct bpe *bpe;
    struct status st = { 0 };
    struct bpe_scratch scratch = { 0 };
    srand(1);
    make_model(&m, "a", 4);
    assert_true(bpe_load(m.spec, &m.vocab, false, &bpe, &st));
    size_t len = 2 << 20;
    char *word = malloc(len);
    memset(word, 'a', len);
    struct token_list got = { 0 };
    struct token_sink sink = { &got, SIZE_MAX, false };
    uint64_t start = clock_now_ns();
    assert_true(bpe_encode(bpe, &scratch, word, len, &sink, &st));
    assert_true(clock_seconds_between(start, clock_now_ns()) < 60);
    assert_true(got.len > 0 && got.len < len);
    token_list_free(&got);
    free(word);
    bpe_scratch_free(&scratch);
    bpe_free(bpe);
    free_model(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_models),
        cmocka_unit_test(test_long_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
