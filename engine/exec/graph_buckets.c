/* graph_buckets.c - the list of sizes, and where a step belongs. */
#include "engine/exec/graph_buckets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Contexts up to this one have graphs of their own: four spans of decode attention. */
enum { SHORT_SEQ_LEN = 2048 };
/* vLLM's sizes: 1, 2, 4, and every eighth number up to this one. */
enum { LARGEST_DEFAULT_SIZE = 512, DEFAULT_SIZE_STEP = 8 };
/* Of them those with drafts: that every sequence of a larger step has some is rare. */
enum { LARGEST_DEFAULT_DRAFT_SIZE = 32 };

/* Keeps the list rising and free of doubles. */
static void add_size(struct graph_buckets *b, int32_t size, int32_t max_num_seqs)
{
    int32_t at = b->num_sizes;
    while (at > 0 && b->sizes[at - 1] > size)
        at--;
    if (size > max_num_seqs || b->num_sizes == GRAPH_MAX_SIZES ||
        (at > 0 && b->sizes[at - 1] == size))
        return;
    memmove(&b->sizes[at + 1], &b->sizes[at], (size_t)(b->num_sizes - at) * sizeof *b->sizes);
    b->sizes[at] = size;
    b->num_sizes++;
}

/* The largest step a server sees is one of max_num_seqs, so that is a size too. */
static void add_default_sizes(struct graph_buckets *b, int32_t max_num_seqs)
{
    for (int32_t size = 1; size < DEFAULT_SIZE_STEP; size *= 2)
        add_size(b, size, max_num_seqs);
    for (int32_t size = DEFAULT_SIZE_STEP; size <= LARGEST_DEFAULT_SIZE; size += DEFAULT_SIZE_STEP)
        add_size(b, size, max_num_seqs);
    if (max_num_seqs < LARGEST_DEFAULT_SIZE)
        add_size(b, max_num_seqs, max_num_seqs);
}

static bool parse_sizes(struct graph_buckets *b, const char *text, int32_t max_num_seqs,
                        struct status *st)
{
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long size = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : 0;
        if (size < 1 || size > INT32_MAX || errno != 0 || (*end != ',' && *end != '\0')) {
            status_set(st, STATUS_INVALID,
                       "--cudagraph-capture-sizes: '%.100s' must be positive numbers with commas "
                       "between them, such as 1,2,4,8",
                       text);
            return status_detail(st, "cudagraph_capture_sizes", NULL);
        }
        add_size(b, (int32_t)size, max_num_seqs);
        if (*end == '\0')
            return true;
        at = end;
    }
}

static void add_draft_sizes(struct graph_buckets *b, const struct graph_buckets_options *o)
{
    if (o->max_draft_tokens == 0)
        return;
    b->draft_query_len = 1 + o->max_draft_tokens;
    while (b->num_draft_sizes < b->num_sizes) {
        const int32_t size = b->sizes[b->num_draft_sizes];
        if (size > o->max_num_tokens / b->draft_query_len ||
            (!o->sizes && size > LARGEST_DEFAULT_DRAFT_SIZE))
            break;
        b->num_draft_sizes++;
    }
}

bool graph_buckets_make(const struct graph_buckets_options *o, struct graph_buckets *out,
                        struct status *st)
{
    const int32_t longest =
        o->max_model_len < o->max_seq_len_to_capture ? o->max_model_len : o->max_seq_len_to_capture;
    *out = (struct graph_buckets){ .mode = o->mode };
    if (o->sizes && !parse_sizes(out, o->sizes, o->max_num_seqs, st))
        return false;
    if (!o->sizes)
        add_default_sizes(out, o->max_num_seqs);
    add_draft_sizes(out, o);
    if (longest > SHORT_SEQ_LEN)
        out->lens[out->num_lens++] = SHORT_SEQ_LEN;
    out->lens[out->num_lens++] = longest;
    return true;
}

int32_t graph_buckets_count(const struct graph_buckets *b)
{
    return b->mode == GRAPH_MODE_NONE ? 0 : (b->num_sizes + b->num_draft_sizes) * b->num_lens;
}

struct graph_bucket graph_buckets_get(const struct graph_buckets *b, int32_t index)
{
    const int32_t row = index / b->num_lens;
    const bool drafts = row >= b->num_sizes;
    return (struct graph_bucket){ .index = index,
                                  .num_seqs = b->sizes[drafts ? row - b->num_sizes : row],
                                  .query_len = drafts ? b->draft_query_len : 1,
                                  .max_seq_len = b->lens[index % b->num_lens] };
}

struct graph_bucket graph_buckets_find(const struct graph_buckets *b, int32_t num_seqs,
                                       int32_t query_len, int32_t max_seq_len)
{
    const struct graph_bucket none = { 0 };
    const bool drafts = query_len > 1;
    const int32_t num_sizes = drafts ? b->num_draft_sizes : b->num_sizes;
    int32_t size = 0, len = 0;
    if (b->mode == GRAPH_MODE_NONE || num_seqs < 1 || query_len < 1 ||
        (drafts && query_len != b->draft_query_len))
        return none;
    while (size < num_sizes && b->sizes[size] < num_seqs)
        size++;
    while (len < b->num_lens && b->lens[len] < max_seq_len)
        len++;
    if (size == num_sizes || len == b->num_lens)
        return none;
    return graph_buckets_get(b, (size + (drafts ? b->num_sizes : 0)) * b->num_lens + len);
}
