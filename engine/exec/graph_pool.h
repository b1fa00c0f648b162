/* graph_pool.h - one rank's captured steps, by bucket.
 *
 * A graph is what the host enqueues for a padded batch; replayed, it does that with what then lies
 * at the same addresses: the batch's arrays, the activations, the workspace and the KV cache, which
 * all graphs share. Used by the worker's thread alone, but for init and free. */
#ifndef INFERD_ENGINE_EXEC_GRAPH_POOL_H
#define INFERD_ENGINE_EXEC_GRAPH_POOL_H

#include "engine/exec/batch.h"
#include "engine/exec/graph_buckets.h"
#include "kernels/backend.h"

struct graph_pool {
    struct device *device;
    struct graph_buckets buckets;            /* mode none where the device captures nothing */
    struct graph *graphs[GRAPH_MAX_BUCKETS]; /* NULL: not captured */
    int32_t num_captured;
    /* --- measured while graphs are captured at start --- */
    bool measured;
    size_t available_before, available_bytes; /* before the first; now */
};

void graph_pool_init(struct graph_pool *p, struct device *d, const struct graph_buckets *buckets);
void graph_pool_free(struct graph_pool *p);
/* NULL: none, or not yet. */
struct graph *graph_pool_find(const struct graph_pool *p, const struct graph_bucket *bucket);
/* Whether the bucket's graph is to be made now that a step of it has run. */
bool graph_pool_is_wanted(const struct graph_pool *p, const struct graph_bucket *bucket);
/* What is enqueued in between is captured and does not run. */
bool graph_pool_begin(struct graph_pool *p, struct status *st);
bool graph_pool_end(struct graph_pool *p, const struct graph_bucket *bucket, struct status *st);
/* No more are made, and the log says why; those there stay. */
void graph_pool_give_up(struct graph_pool *p, const struct status *why);
/* Takes down how much memory the device has left. */
bool graph_pool_measure(struct graph_pool *p, struct status *st);
/* What the device has given to graphs, and to what running them took, between the first and the
 * last measurement. */
size_t graph_pool_bytes(const struct graph_pool *p);

#endif
