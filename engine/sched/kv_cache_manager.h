/* kv_cache_manager.h - which blocks each running sequence owns, and which prefixes can be shared.
 *
 * A sequence has one block table per group of layers (kv_cache_groups.h), all equally long, filled
 * from one pool. A group with a window gives back what no token still to be computed can see. Full
 * blocks become findable for others (block_hash.h) only when the step that filled them has
 * succeeded, and stay so after they were given back, until they are handed out again. Engine thread
 * only; all memory is taken at the start. */
#ifndef INFERD_ENGINE_SCHED_KV_CACHE_MANAGER_H
#define INFERD_ENGINE_SCHED_KV_CACHE_MANAGER_H

#include "base/hash.h"
#include "engine/sched/kv_cache_groups.h"
#include "engine/sched/sequence.h"

struct kv_cache_config {
    struct kv_cache_groups groups;
    int32_t num_blocks;
    int32_t max_num_seqs;  /* sequences that hold blocks at a time */
    int32_t max_model_len; /* longest table, in tokens */
    bool enable_prefix_caching;
    struct hash_key hash_key;
};

struct kv_cache_manager;

struct kv_cache_manager *kv_cache_manager_new(const struct kv_cache_config *config);
void kv_cache_manager_free(struct kv_cache_manager *m);
int32_t kv_cache_manager_num_free(const struct kv_cache_manager *m);

/* A prefix lookup: the cached blocks a sequence could begin with. Valid until the next call. */
struct kv_cache_hit {
    int32_t num_tokens;  /* cached: a multiple of block_size, at most the sequence's tokens - 1 */
    int32_t num_free;    /* of those blocks, how many are free and would be taken from there */
    int64_t num_missing; /* the most blocks it comes to need beside those, for its known tokens */
};

/* Whether a sequence's prefix is looked up at all: not where prefix caching is off, nor where
 * log-probabilities of the prompt are wanted that have not been computed yet. */
bool kv_cache_manager_looks_up(const struct kv_cache_manager *m, const struct sequence *seq);
/* Looks up the longest prefix of a sequence that holds no blocks for which every group has what the
 * next token can see: all blocks, or those of the window before it. No side effect but in `m`'s
 * scratch; O(blocks of the sequence) where all groups have windows, else O(cached blocks). */
struct kv_cache_hit kv_cache_manager_lookup(struct kv_cache_manager *m, const struct sequence *seq);
/* Gives the sequence the blocks of the lookup just made for it, sets num_computed_tokens to what
 * they hold, and adds new blocks for up to `num_tokens` tokens. The caller has checked that the
 * new ones and hit->num_free together are free. */
void kv_cache_manager_admit(struct kv_cache_manager *m, struct sequence *seq,
                            const struct kv_cache_hit *hit, int32_t num_tokens);
/* Extends the tables to cover `num_tokens` tokens; false, with nothing done, where the free blocks
 * do not suffice. */
bool kv_cache_manager_grow(struct kv_cache_manager *m, struct sequence *seq, int32_t num_tokens);
/* The most blocks that the sequence comes to need, beside those it holds, until all its known
 * tokens are computed. */
int64_t kv_cache_manager_missing(const struct kv_cache_manager *m, const struct sequence *seq);
/* Gives back the blocks that no token from num_computed_tokens on can see. */
void kv_cache_manager_trim(struct kv_cache_manager *m, struct sequence *seq);
/* Makes the full blocks among the computed tokens findable. Call after a successful step, and
 * before the blocks are trimmed. */
void kv_cache_manager_register(struct kv_cache_manager *m, struct sequence *seq);
/* Nobody is to find this sequence's blocks any more, nor those it gave back: their content is
 * suspect. */
void kv_cache_manager_forget(struct kv_cache_manager *m, const struct sequence *seq);
/* Takes all blocks away; num_computed_tokens is 0 then. Their content stays findable. */
void kv_cache_manager_release(struct kv_cache_manager *m, struct sequence *seq);
/* The sequence's tables, one per group, kv_cache_manager_stride apart: seq->num_blocks physical
 * block ids each, BLOCK_NONE before the group's first block. Stable until the sequence is released.
 */
const int32_t *kv_cache_manager_tables(const struct kv_cache_manager *m,
                                       const struct sequence *seq);
const int32_t *kv_cache_manager_firsts(const struct kv_cache_manager *m,
                                       const struct sequence *seq); /* [groups] */
int32_t kv_cache_manager_stride(const struct kv_cache_manager *m);
/* Forgets every cached prefix; false while blocks are in use. */
bool kv_cache_manager_reset(struct kv_cache_manager *m);
/* Recounts everything against the sequences of the slab, for tests. */
bool kv_cache_manager_check(const struct kv_cache_manager *m, const struct sequence_slab *slab,
                            struct status *st);

#endif
