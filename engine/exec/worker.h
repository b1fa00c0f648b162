/* worker.h - one rank: its thread, device, communicator, weight shard, KV cache and decoder.
 *
 * Opened and loaded by the main thread during start-up; from worker_start on only its own thread
 * uses the device. It reads the batch and knows nothing of the scheduler. */
#ifndef INFERD_ENGINE_EXEC_WORKER_H
#define INFERD_ENGINE_EXEC_WORKER_H

#include "engine/exec/memory_plan.h"
#include "engine/exec/model_runner.h"
#include <pthread.h>

struct worker {
    int32_t rank;
    struct device *device;
    struct comm *comm;
    const struct model *model; /* from loading on: the rank's share, or the whole */
    struct model *share;       /* NULL: this rank is alone */
    struct weights *weights;
    struct buffer kv_memory;
    struct kv_layer *kv_layers; /* [num_hidden_layers] views into kv_memory */
    struct decoder *decoder;
    struct model_runner runner;

    /* --- the mailbox: batches are launched and waited for in the order in which they came --- */
    pthread_t thread;
    bool started;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct batch *posted[DEVICE_NUM_MARKS]; /* the n-th batch is at n modulo the size */
    struct status status[DEVICE_NUM_MARKS]; /* of launching it */
    uint64_t num_posted, num_launched, num_awaited;
    bool stopping;
};

bool worker_open(struct worker *w, int32_t rank, const char *backend_name,
                 const struct device_options *options, struct status *st);
/* Before anything else is asked of the worker; takes `comm`. */
void worker_join(struct worker *w, struct comm *comm);
/* Any thread; several ranks may load at once. */
bool worker_load_weights(struct worker *w, const struct model *m, struct status *st);
/* Workspace, KV cache and decoder, as planned. Batches of ranks other than 0 report nothing. */
bool worker_allocate(struct worker *w, const struct memory_plan *plan, struct status *st);
bool worker_start(struct worker *w, struct status *st);
/* At most DEVICE_NUM_MARKS that were not waited for, each with a mark of its own. */
void worker_post(struct worker *w, struct batch *b);
/* Waits for the earliest posted batch that was not waited for, on the calling thread. */
bool worker_wait(struct worker *w, struct status *st);
/* Whether that would return at once. */
bool worker_is_done(struct worker *w);
void worker_stop(struct worker *w);
/* Undo in reverse: each is safe to call whether or not its counterpart ran. */
void worker_release(struct worker *w);
void worker_unload_weights(struct worker *w);
void worker_close(struct worker *w);

#endif
