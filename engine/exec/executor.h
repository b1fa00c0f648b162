/* executor.h - posts one step to every rank and gathers the results.
 *
 * Brought up in the order of its functions by the start-up stages (main thread); afterwards
 * executor_submit and executor_collect belong to the engine thread. */
#ifndef INFERD_ENGINE_EXEC_EXECUTOR_H
#define INFERD_ENGINE_EXEC_EXECUTOR_H

#include "engine/exec/worker.h"

struct executor {
    struct worker *workers; /* [num_workers], by rank */
    int32_t num_workers;
    int32_t ranks_per_device; /* the most that share one device, and its memory */
    size_t comm_bytes;        /* the most that a device has given for the ranks to meet */
    /* For each turn one that all ranks read, or one for each where devices have memory of their
     * own. Steps take turns, as many as may be under way. */
    struct batch *batches; /* [num_turns, num_batches] */
    int32_t num_batches, num_turns;
    struct graph_buckets graphs;                    /* of all ranks */
    const struct step *submitted[DEVICE_NUM_MARKS]; /* by turn */
    int32_t first_turn, num_submitted;              /* the earliest step under way; how many are */
};

/* Which ranks there are. */
struct executor_ranks {
    int32_t count; /* they share the model; at most LIMIT_TENSOR_PARALLEL_SIZE */
    /* "1,0": the GPU of each rank. One that is named twice has two ranks, which is for tests: they
     * wait for each other on the host. NULL: rank r is on GPU r. */
    const char *device_ids;
};

/* On the CPU the ranks share the CPUs and threads of `options` too. */
bool executor_open(struct executor *x, const char *backend_name,
                   const struct device_options *options, const struct executor_ranks *ranks,
                   struct status *st);
void executor_close(struct executor *x);
bool executor_load_weights(struct executor *x, const struct model *m, struct status *st);
void executor_unload_weights(struct executor *x);
/* Of the devices, the one with the least memory left. NULL: it cannot be told. */
struct device *executor_fullest_device(const struct executor *x, struct status *st);
/* What the devices have given out so far, weights that are mapped from a file included. */
size_t executor_taken_bytes(const struct executor *x);
bool executor_allocate(struct executor *x, const struct memory_plan *plan, struct status *st);
void executor_release(struct executor *x);
bool executor_start(struct executor *x, struct status *st);
/* Waits for the steps under way, whose results nobody gets. */
void executor_stop(struct executor *x);
/* Captures all graphs of the plan, largest first: the kernels of a step run once for each. Only
 * between executor_start and the first step. `told` hears how many are done; it may be NULL. */
bool executor_capture(struct executor *x, void (*told)(void *arg, int32_t done, int32_t total),
                      void *arg, struct status *st);

/* Fills the batch, posts it to every worker and returns. The step must stay as it is until
 * executor_collect. As many as the plan's num_batches may be under way. */
void executor_submit(struct executor *x, const struct step *step);
/* Waits for the earliest step at all workers; output->status says whether it succeeded, at every
 * rank. */
void executor_collect(struct executor *x, struct step_output *output);

#endif
