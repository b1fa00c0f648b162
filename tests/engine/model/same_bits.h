/* same_bits.h - that a row's logits do not depend on the batch: a prompt whole and alone, then in
 * pieces, with others, and behind a prefix hit. Include after arch_fixture.h. */
#ifndef INFERD_TESTS_ENGINE_MODEL_SAME_BITS_H
#define INFERD_TESTS_ENGINE_MODEL_SAME_BITS_H

#include "base/alloc.h"
#include "tests/engine/model/arch_fixture.h"

enum { SAME_LEN = 61, OTHER_LEN = 37 };

/* The prompt cut into pieces of `chunk`; with `other`, most steps also carry a piece of another
 * sequence, in front of it. */
static inline void check_chunks(struct rig *r, const int32_t *ids, const float *expected,
                                int32_t chunk, const int32_t *other)
{
    int32_t vocab = r->model->desc.vocab_size, other_at = 0;
    rig_reset(r);
    for (int32_t at = 0; at < SAME_LEN; at += chunk) {
        int32_t count = SAME_LEN - at < chunk ? SAME_LEN - at : chunk;
        int32_t others = other ? 1 + at % 5 : 0, first = 0;
        if (others > OTHER_LEN - other_at)
            others = OTHER_LEN - other_at;
        struct rig_span mine = { 1, ids + at, count };
        struct rig_span spans[2] = { { 2, other + other_at, others }, mine };
        if (others > 0)
            first = others;
        const struct tensor *logits = others > 0 ? rig_step(r, spans, 2) : rig_step(r, &mine, 1);
        for (int32_t i = 0; i < count; i++)
            assert_memory_equal(logits_row(logits, first + i), expected + (int64_t)(at + i) * vocab,
                                (size_t)vocab * sizeof(float));
        other_at += others;
    }
}

/* Behind the first `blocks` blocks of another sequence, which holds the same tokens there and then
 * different ones: the rest in pieces of `chunk`, while the other sequence goes on. */
static inline void check_prefix_hit(struct rig *r, const int32_t *ids, const float *expected,
                                    int32_t blocks, int32_t chunk)
{
    int32_t vocab = r->model->desc.vocab_size, hit = blocks * RIG_BLOCK_SIZE;
    int32_t other[SAME_LEN];
    for (int32_t i = 0; i < SAME_LEN; i++)
        other[i] = i < hit ? ids[i] : (ids[i] + 1) % vocab;
    rig_reset(r);
    rig_step(r, &(struct rig_span){ 3, other, SAME_LEN }, 1);
    rig_hit(r, 1, 3, blocks);
    for (int32_t at = hit; at < SAME_LEN; at += chunk) {
        int32_t count = SAME_LEN - at < chunk ? SAME_LEN - at : chunk;
        struct rig_span spans[2] = { { 3, other, 1 }, { 1, ids + at, count } };
        const struct tensor *logits = rig_step(r, spans, 2);
        for (int32_t i = 0; i < count; i++)
            assert_memory_equal(logits_row(logits, 1 + i), expected + (int64_t)(at + i) * vocab,
                                (size_t)vocab * sizeof(float));
    }
}

/* The prompt in pieces of each of the `num_chunks` sizes; prefix hits where `hits` says so. */
static inline void check_same_bits(const struct rig_options *o, const int32_t *chunks,
                                   size_t num_chunks, bool hits)
{
    struct rig r;
    int32_t ids[SAME_LEN], other[OTHER_LEN];
    rig_open_options(&r, o);
    int32_t vocab = r.model->desc.vocab_size;
    for (int32_t i = 0; i < SAME_LEN; i++)
        ids[i] = (i * 37 + 1) % vocab;
    for (int32_t i = 0; i < OTHER_LEN; i++)
        other[i] = (i * 91 + 5) % vocab;
    const struct tensor *whole = rig_step(&r, &(struct rig_span){ 0, ids, SAME_LEN }, 1);
    float *expected = xmalloc((size_t)SAME_LEN * (size_t)vocab * sizeof *expected);
    for (int32_t i = 0; i < SAME_LEN; i++)
        memcpy(expected + (int64_t)i * vocab, logits_row(whole, i), (size_t)vocab * sizeof(float));
    for (size_t i = 0; i < num_chunks; i++) {
        check_chunks(&r, ids, expected, chunks[i], NULL);
        check_chunks(&r, ids, expected, chunks[i], other);
    }
    for (int32_t blocks = 1; hits && blocks * RIG_BLOCK_SIZE < SAME_LEN; blocks++) {
        check_prefix_hit(&r, ids, expected, blocks, SAME_LEN);
        check_prefix_hit(&r, ids, expected, blocks, 5);
    }
    free(expected);
    rig_close(&r);
}

#endif
