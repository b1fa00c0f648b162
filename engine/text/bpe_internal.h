/* bpe_internal.h - the model that bpe_build.c builds and bpe.c runs. */
#ifndef INFERD_ENGINE_TEXT_BPE_INTERNAL_H
#define INFERD_ENGINE_TEXT_BPE_INTERNAL_H

#include "engine/text/bpe.h"

#include <stdatomic.h>

#define BPE_NO_PAIR UINT64_MAX

/* What one character becomes before any merge. */
enum bpe_symbol_kind { SYMBOL_IDS, SYMBOL_UNKNOWN, SYMBOL_NOTHING };

struct bpe_symbol {
    enum bpe_symbol_kind kind;
    bool known; /* a piece of the vocabulary, not a row of byte pieces */
    int num;
    int32_t ids[16]; /* a character with affixes falls back to few bytes */
};

struct bpe {
    const struct vocab *vocab;
    bool raw_bytes, byte_fallback, fuse_unk, ignore_merges;
    struct string_map raw_pieces; /* with raw_bytes: the bytes of each piece */
    struct arena raw_arena;
    const struct string_map *pieces; /* what a word is looked up in */
    char *prefix, *suffix;           /* "" where there is none */
    int32_t unk_id;                  /* -1: none, or not in the vocabulary */
    char *unk_token;                 /* NULL: none */
    int32_t byte_ids[256];           /* of <0x00> .. <0xFF>; -1 */
    struct bpe_symbol bytes[256];    /* with raw_bytes */
    struct bpe_merge *merges;        /* [num_slots], a power of two; BPE_NO_PAIR: free */
    uint32_t num_slots;
    /* Pairs of first symbols over which some merge reaches: (last of left, first of right). */
    uint64_t *joints; /* [num_joint_slots]; BPE_NO_PAIR: free */
    uint32_t num_joint_slots;
    bool can_cut;
    _Atomic unsigned char *whole; /* [vocab->size]: 1 encodes to itself, 2 does not, 0 unknown */
};

static inline uint32_t bpe_slot_hash(uint64_t pair)
{
    return (uint32_t)((pair * 0x9E3779B97F4A7C15u) >> 32);
}

/* The symbol of one character, affixes included, as BPE::merge_word finds it. */
void bpe_symbol_of(const struct bpe *m, const char *text, size_t len, struct bpe_symbol *out);

#endif
