/* bpe.h - byte-pair encoding of one word, as the tokenizers library's BPE model does it: the pair
 * of lowest rank merges first, the leftmost of equals.
 *
 * Immutable once loaded, but for hints that are set with atomics; safe on any thread. */
#ifndef INFERD_ENGINE_TEXT_BPE_H
#define INFERD_ENGINE_TEXT_BPE_H

#include "engine/text/tokenizer_kind.h"
#include <jansson.h>

struct bpe;

/* One merge. Of two that have the pair in common the later counts. */
struct bpe_merge {
    uint64_t pair; /* ids: left << 32 | right */
    uint32_t rank;
    int32_t result; /* id */
};

enum { BPE_MAX_MERGES = 1 << 26 };

static inline uint64_t bpe_pair(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* NULL stands for none. */
struct bpe_options {
    bool byte_fallback, fuse_unk, ignore_merges;
    bool
        raw_bytes; /* words are bytes, while the vocabulary writes them as ByteLevel's characters */
    const char *prefix, *suffix; /* of a piece that does not begin, or that ends, a word */
    const char *unk_token;
    size_t unk_len;
};

/* `vocab` holds the pieces already and must outlive the model. */
bool bpe_build(const struct bpe_options *options, const struct bpe_merge *merges, size_t num_merges,
               const struct vocab *vocab, struct bpe **out, struct status *st);
/* Looks up the pair and the result of a merge whose rank is set; the right side begins with
 * `prefix_len` bytes that the result lacks. Fails where the vocabulary has not all three. */
bool bpe_merge_of(const struct vocab *vocab, const char *const side[2], const size_t len[2],
                  size_t prefix_len, struct bpe_merge *merge, struct status *st);
/* The same from the "model" of tokenizer.json. */
bool bpe_load(const json_t *spec, const struct vocab *vocab, bool raw_bytes, struct bpe **out,
              struct status *st);
void bpe_free(struct bpe *m);
/* Whether the model may be loaded with raw_bytes: it puts no affixes on pieces. */
bool bpe_takes_raw_bytes(const json_t *spec);

/* Room to work in, kept over many words. Zero-initialise; free with bpe_scratch_free. */
struct bpe_scratch {
    int32_t *ids;      /* symbols of a word */
    uint32_t *offsets; /* where each begins */
    size_t num, cap;
    struct bpe_node *nodes; /* of a long word */
    size_t cap_nodes;
    uint64_t *heap;
    size_t cap_heap;
};
void bpe_scratch_free(struct bpe_scratch *s);

bool bpe_encode(const struct bpe *m, struct bpe_scratch *s, const char *word, size_t len,
                struct token_sink *sink, struct status *st);

#endif
