/* graph_pool.c - keeps captured graphs, and what they took. */
#include "engine/exec/graph_pool.h"

#include "base/log.h"

#include <assert.h>
#include <string.h>

void graph_pool_init(struct graph_pool *p, struct device *d, const struct graph_buckets *buckets)
{
    memset(p, 0, sizeof *p);
    p->device = d;
    p->buckets = *buckets;
    if (!(d->backend->caps & BACKEND_CAN_CAPTURE))
        p->buckets.mode = GRAPH_MODE_NONE;
}

void graph_pool_free(struct graph_pool *p)
{
    for (int32_t i = 0; p->num_captured > 0 && i < GRAPH_MAX_BUCKETS; i++)
        if (p->graphs[i])
            p->device->backend->graph_free(p->device, p->graphs[i]);
    memset(p, 0, sizeof *p);
}

struct graph *graph_pool_find(const struct graph_pool *p, const struct graph_bucket *bucket)
{
    return bucket->num_seqs > 0 ? p->graphs[bucket->index] : NULL;
}

bool graph_pool_is_wanted(const struct graph_pool *p, const struct graph_bucket *bucket)
{
    return p->buckets.mode == GRAPH_MODE_LAZY && bucket->num_seqs > 0 && !p->graphs[bucket->index];
}

bool graph_pool_begin(struct graph_pool *p, struct status *st)
{
    return p->device->backend->capture_begin(p->device, st);
}

bool graph_pool_end(struct graph_pool *p, const struct graph_bucket *bucket, struct status *st)
{
    assert(bucket->num_seqs > 0 && !p->graphs[bucket->index]);
    if (!p->device->backend->capture_end(p->device, &p->graphs[bucket->index], st))
        return status_prefix(st,
                             "%d sequences of up to %d tokens, %d in the step: ", bucket->num_seqs,
                             bucket->max_seq_len, bucket->query_len);
    p->num_captured++;
    return true;
}

void graph_pool_give_up(struct graph_pool *p, const struct status *why)
{
    log_warning("no more graphs are captured, steps without one run op by op: %s", why->message);
    p->buckets.mode = GRAPH_MODE_NONE;
}

bool graph_pool_measure(struct graph_pool *p, struct status *st)
{
    struct memory_info memory;
    if (!p->device->backend->memory_info(p->device, &memory, st))
        return false;
    if (!p->measured)
        p->available_before = memory.available_bytes;
    p->measured = true;
    p->available_bytes = memory.available_bytes;
    return true;
}

size_t graph_pool_bytes(const struct graph_pool *p)
{
    return p->available_before > p->available_bytes ? p->available_before - p->available_bytes : 0;
}
