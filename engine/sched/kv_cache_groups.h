/* kv_cache_groups.h - how many blocks a sequence holds, where layers differ in what they keep.
 *
 * Layers that keep the same positions form groups of equally many, so a block costs the same bytes
 * in each and one pool serves all. A sequence has one block table per group. A group without a
 * window keeps every position; one with a window keeps those that a token still to be computed can
 * see, itself included, and gives the blocks before them back.
 *
 * Integers only, no state: the scheduler admits by it, the memory plan counts by it. */
#ifndef INFERD_ENGINE_SCHED_KV_CACHE_GROUPS_H
#define INFERD_ENGINE_SCHED_KV_CACHE_GROUPS_H

#include "config/limits.h"
#include <stdint.h>

struct kv_cache_groups {
    int32_t num_groups;
    int32_t sliding_window[LIMIT_KV_CACHE_GROUPS]; /* 0: keeps everything */
    int32_t block_size;
    int32_t max_chunk; /* tokens of one sequence in one step */
};

/* sliding_window: [num_groups]; num_groups 0 stands for one group that keeps everything. A
 * long_prefill_token_threshold of 0 is none. */
struct kv_cache_groups kv_cache_groups_make(const int32_t *sliding_window, int32_t num_groups,
                                            int32_t block_size, int32_t max_num_batched_tokens,
                                            int32_t long_prefill_token_threshold);
/* Blocks that `num_tokens` tokens take in one group that keeps everything. */
int32_t kv_cache_groups_table_len(const struct kv_cache_groups *g, int32_t num_tokens);
/* The first block of the group's table that tokens from position num_computed on can see. */
int32_t kv_cache_groups_first(const struct kv_cache_groups *g, int32_t group, int32_t num_computed);
/* How many more blocks, over all groups, a sequence may hold at some time until num_tokens tokens
 * are computed, than now, where num_computed are and its tables have num_blocks entries each. */
int64_t kv_cache_groups_missing(const struct kv_cache_groups *g, int32_t num_computed,
                                int32_t num_blocks, int32_t num_tokens);
/* The most blocks, over all groups, that a sequence of num_tokens tokens holds at a time. */
int64_t kv_cache_groups_blocks(const struct kv_cache_groups *g, int32_t num_tokens);
/* The longest sequence, up to max_tokens, for which num_blocks suffice; 0: not even one token. */
int32_t kv_cache_groups_longest(const struct kv_cache_groups *g, int64_t num_blocks,
                                int32_t max_tokens);

#endif
