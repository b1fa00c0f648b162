/* model_runner.h - one step on one device: upload, forward, sample, download, wait.
 *
 * Runs on the worker's thread. Everything it touches was allocated before READY. */
#ifndef INFERD_ENGINE_EXEC_MODEL_RUNNER_H
#define INFERD_ENGINE_EXEC_MODEL_RUNNER_H

#include "engine/exec/graph_pool.h"

struct model_runner {
    struct device *device;
    struct decoder *decoder;
    int32_t max_logits_rows;
    bool samples; /* one rank of those that run the batch fills its outputs */
    struct graph_pool graphs;
};

/* Runs the filled batch to its end; false with the device's first error. A padded batch is replayed
 * where its graph is there; where it should be there but is not yet, it is captured afterwards. */
bool model_runner_run(struct model_runner *r, struct batch *b, struct status *st);

#endif
