/* model_runner.h - one step on one device: upload, forward, sample, download.
 *
 * Runs on the worker's thread. Everything it touches was allocated before READY. */
#ifndef INFERD_ENGINE_EXEC_MODEL_RUNNER_H
#define INFERD_ENGINE_EXEC_MODEL_RUNNER_H

#include "engine/exec/graph_pool.h"

struct model_runner {
    struct device *device;
    struct decoder *decoder;
    int32_t max_logits_rows;
    /* One rank of those that run the batch fills its outputs. The others sample where their next
     * step is fed from it: all have the same logits, so they get the same ids. */
    bool samples, reports;
    struct graph_pool graphs;
};

/* Enqueues the filled batch and marks its end with the batch's mark; whoever awaits that gets the
 * device's first error. A padded batch is replayed where its graph is there; where it should be
 * there but is not yet, it is captured afterwards. False where b->capture and that failed. */
bool model_runner_launch(struct model_runner *r, struct batch *b, struct status *st);

#endif
