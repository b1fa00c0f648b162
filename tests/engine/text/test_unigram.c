/* test_unigram.c - the best path against trying every way to cut a short word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/unigram.h"

#include <stdlib.h>
#include <string.h>

struct model {
    struct vocab vocab;
    json_t *spec;
    double scores[32];
    int num;
    double unknown;
};

static void make_model(struct model *m)
{
    memset(m, 0, sizeof *m);
    arena_init(&m->vocab.arena);
    json_t *list = json_array();
    double lowest = 0;
    for (int i = 0; i < 12; i++) {
        char text[8] = "<unk>";
        if (i > 0) {
            int n = 1 + rand() % 3;
            for (int k = 0; k < n; k++)
                text[k] = (char)('a' + rand() % 3);
            text[n] = '\0';
            if (vocab_find(&m->vocab, text, strlen(text)) >= 0)
                continue;
        }
        m->scores[m->num] = i ? -1.0 - rand() % 1000 / 100.0 : 0;
        lowest = m->scores[m->num] < lowest ? m->scores[m->num] : lowest;
        vocab_put_model(&m->vocab, m->num, text, strlen(text));
        json_array_append_new(list, json_pack("[s, f]", text, m->scores[m->num++]));
    }
    m->unknown = lowest - 10;
    m->spec = json_pack("{s:i, s:o}", "unk_id", 0, "vocab", list);
}

/* The highest sum for text[0..len), single unknown characters included. */
static double best(const struct model *m, const char *text, size_t len)
{
    if (len == 0)
        return 0;
    double top = -1e30;
    bool single = false;
    for (int i = 1; i < m->num; i++) {
        const struct vocab_piece *p = &m->vocab.pieces[i];
        if (p->len <= len && memcmp(p->text, text, p->len) == 0) {
            double sum = m->scores[i] + best(m, text + p->len, len - p->len);
            top = sum > top ? sum : top;
            single |= p->len == 1;
        }
    }
    if (!single) {
        double sum = m->unknown + best(m, text + 1, len - 1);
        top = sum > top ? sum : top;
    }
    return top;
}

/* The sum of what came out: a fused unknown counts once per character. */
static double sum_of(const struct model *m, const struct token_list *ids, size_t len)
{
    double sum = 0;
    size_t known = 0;
    for (size_t i = 0; i < ids->len; i++) {
        if (ids->ids[i] == 0)
            continue;
        sum += m->scores[ids->ids[i]];
        known += m->vocab.pieces[ids->ids[i]].len;
    }
    return sum + (double)(len - known) * m->unknown;
}

static void test_best_path(void **state)
{
    (void)state;
    srand(8);
    for (int round = 0; round < 300; round++) {
        struct model m;
        struct unigram *u;
        struct unigram_scratch scratch = { 0 };
        struct status st = { 0 };
        make_model(&m);
        assert_true(unigram_load(m.spec, &m.vocab, &u, &st));
        for (int w = 0; w < 20; w++) {
            char word[12];
            size_t len = 1 + (size_t)rand() % 10;
            for (size_t i = 0; i < len; i++)
                word[i] = (char)('a' + rand() % 4);
            struct token_list got = { 0 };
            struct token_sink sink = { &got, SIZE_MAX, false };
            assert_true(unigram_encode(u, &scratch, word, len, &sink, &st));
            double difference = sum_of(&m, &got, len) - best(&m, word, len);
            assert_true(difference > -1e-6 && difference < 1e-6);
            for (size_t i = 1; i < got.len; i++)
                assert_false(got.ids[i] == 0 && got.ids[i - 1] == 0); /* unknowns fuse */
            token_list_free(&got);
        }
        unigram_scratch_free(&scratch);
        unigram_free(u);
        json_decref(m.spec);
        vocab_free(&m.vocab);
    }
}

static void test_no_unknown(void **state)
{
    (void)state;
    struct vocab v = { .size = 0 };
    struct unigram *u;
    struct unigram_scratch scratch = { 0 };
    struct status st = { 0 };
    struct token_list got = { 0 };
    struct token_sink sink = { &got, SIZE_MAX, false };
    json_t *spec = json_loads("{\"vocab\": [[\"a\", -1.0]]}", 0, NULL);
    vocab_put_model(&v, 0, "a", 1);
    assert_true(unigram_load(spec, &v, &u, &st));
    assert_true(unigram_encode(u, &scratch, "aa", 2, &sink, &st));
    assert_false(unigram_encode(u, &scratch, "ab", 2, &sink, &st));
    assert_non_null(strstr(st.message, "unk_id"));
    unigram_scratch_free(&scratch);
    token_list_free(&got);
    unigram_free(u);
    json_decref(spec);
    vocab_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_path),
        cmocka_unit_test(test_no_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
