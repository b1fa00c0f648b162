/* graph_buckets.h - which steps are captured as graphs: decode steps, by how many sequences they
 * hold, whether each brings one token or one and all the drafts that it may have, and how long the
 * longest of them may be. A step runs as the smallest bucket that takes it, or without a graph.
 *
 * The sizes are vLLM's. The length bounds what attention is launched for: one bound for all would
 * launch short steps' attention for thousands of positions that nobody has. */
#ifndef INFERD_ENGINE_EXEC_GRAPH_BUCKETS_H
#define INFERD_ENGINE_EXEC_GRAPH_BUCKETS_H

#include "base/status.h"
#include <stdint.h>

enum graph_mode {
    GRAPH_MODE_NONE,
    GRAPH_MODE_FULL, /* all are captured at start */
    GRAPH_MODE_LAZY  /* each when a step was of its bucket */
};

enum {
    GRAPH_MAX_SIZES = 72, /* the default list and one more; LIMIT_LIST_ENTRIES is less */
    GRAPH_MAX_LENS = 2,
    GRAPH_MAX_BUCKETS = 2 * GRAPH_MAX_SIZES * GRAPH_MAX_LENS /* without drafts, and with them */
};

struct graph_bucket {
    /* 0 .. graph_buckets_count() - 1, by tokens of a sequence, then size, then length, rising */
    int32_t index;
    int32_t num_seqs;    /* 0: no bucket */
    int32_t query_len;   /* tokens that each brings */
    int32_t max_seq_len; /* tokens */
};

struct graph_buckets {
    enum graph_mode mode;
    int32_t num_sizes, sizes[GRAPH_MAX_SIZES]; /* rising */
    int32_t num_lens, lens[GRAPH_MAX_LENS];    /* rising */
    /* Steps with drafts: tokens of each sequence, and how many of the sizes have such a bucket. */
    int32_t draft_query_len, num_draft_sizes;
};

struct graph_buckets_options {
    enum graph_mode mode;
    const char *sizes; /* "1,2,16"; NULL: the default ones */
    int32_t max_num_seqs, max_num_tokens, max_model_len, max_seq_len_to_capture;
    int32_t max_draft_tokens; /* 0: there are none */
};

/* Sizes above max_num_seqs, which no step has, are left out. */
bool graph_buckets_make(const struct graph_buckets_options *options, struct graph_buckets *out,
                        struct status *st);
int32_t graph_buckets_count(const struct graph_buckets *b);
struct graph_bucket graph_buckets_get(const struct graph_buckets *b, int32_t index);
/* The bucket of a step whose sequences bring query_len tokens each; num_seqs 0 where there is none.
 */
struct graph_bucket graph_buckets_find(const struct graph_buckets *b, int32_t num_seqs,
                                       int32_t query_len, int32_t max_seq_len);

#endif
