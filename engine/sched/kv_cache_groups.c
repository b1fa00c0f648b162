/* kv_cache_groups.c - the arithmetic of windows and blocks. */
#include "engine/sched/kv_cache_groups.h"

#include <assert.h>
#include <string.h>

struct kv_cache_groups kv_cache_groups_make(const int32_t *sliding_window, int32_t num_groups,
                                            int32_t block_size, int32_t max_num_batched_tokens,
                                            int32_t long_prefill_token_threshold)
{
    struct kv_cache_groups g = { .num_groups = num_groups > 0 ? num_groups : 1,
                                 .block_size = block_size,
                                 .max_chunk = max_num_batched_tokens };
    assert(num_groups <= LIMIT_KV_CACHE_GROUPS && block_size > 0 && max_num_batched_tokens > 0);
    if (num_groups > 0)
        memcpy(g.sliding_window, sliding_window, (size_t)num_groups * sizeof *sliding_window);
    if (long_prefill_token_threshold > 0 && long_prefill_token_threshold < g.max_chunk)
        g.max_chunk = long_prefill_token_threshold;
    return g;
}

int32_t kv_cache_groups_table_len(const struct kv_cache_groups *g, int32_t num_tokens)
{
    return num_tokens / g->block_size + (num_tokens % g->block_size != 0);
}

int32_t kv_cache_groups_first(const struct kv_cache_groups *g, int32_t group, int32_t num_computed)
{
    int32_t window = g->sliding_window[group];
    return window == 0 || num_computed < window ? 0 : (num_computed - window + 1) / g->block_size;
}

/* The most blocks that a group with a window holds while a step computes `chunk` tokens: the first
 * of them sees window - 1 positions before it, and so many in a row touch this many blocks,
 * wherever they begin. */
static int64_t window_blocks(const struct kv_cache_groups *g, int32_t window, int32_t chunk)
{
    int64_t span = (int64_t)window - 1 + chunk;
    return (span - 1 + g->block_size - 1) / g->block_size + 1;
}

int64_t kv_cache_groups_missing(const struct kv_cache_groups *g, int32_t num_computed,
                                int32_t num_blocks, int32_t num_tokens)
{
    int64_t missing = 0;
    int32_t len = kv_cache_groups_table_len(g, num_tokens), left = num_tokens - num_computed;
    int32_t chunk = left < g->max_chunk ? left : g->max_chunk;
    if (len <= num_blocks)
        return 0;
    for (int32_t i = 0; i < g->num_groups; i++) {
        int32_t first = kv_cache_groups_first(g, i, num_computed);
        int64_t held = num_blocks - first, most = len - first;
        if (g->sliding_window[i] > 0) {
            int64_t bound = window_blocks(g, g->sliding_window[i], chunk);
            most = most < bound ? most : bound;
        }
        missing += most > held ? most - held : 0;
    }
    return missing;
}

int64_t kv_cache_groups_blocks(const struct kv_cache_groups *g, int32_t num_tokens)
{
    return kv_cache_groups_missing(g, 0, 0, num_tokens);
}

int32_t kv_cache_groups_longest(const struct kv_cache_groups *g, int64_t num_blocks,
                                int32_t max_tokens)
{
    int32_t low = 0, high = max_tokens; /* low fits; what is above high does not, or is not asked */
    while (low < high) {
        int32_t middle = high - (high - low) / 2;
        if (kv_cache_groups_blocks(g, middle) <= num_blocks)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}
