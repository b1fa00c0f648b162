/* executor.c - a step goes to every rank; rank 0's samples count, since all compute the same. */
#include "engine/exec/executor.h"

#include "base/alloc.h"
#include "base/thread.h"
#include "kernels/backend.h"
#include "kernels/comm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool open_comms(struct comm **comms, int32_t num_ranks, struct status *st)
{
    if (num_ranks > 1)
        return comm_local_open(comms, num_ranks, st);
    comms[0] = comm_self_open();
    return true;
}

bool executor_open(struct executor *x, const char *backend_name,
                   const struct device_options *options, int32_t num_ranks, struct status *st)
{
    struct comm *comms[LIMIT_TENSOR_PARALLEL_SIZE];
    assert(num_ranks >= 1 && num_ranks <= LIMIT_TENSOR_PARALLEL_SIZE);
    memset(x, 0, sizeof *x);
    if (!open_comms(comms, num_ranks, st))
        return false;
    x->workers = xcalloc((size_t)num_ranks, sizeof *x->workers);
    for (int32_t rank = 0; rank < num_ranks; rank++) {
        struct device_options own = *options;
        own.share = rank;
        own.num_shares = num_ranks;
        if (!worker_open(&x->workers[rank], comms[rank], backend_name, &own, st)) {
            while (++rank < num_ranks)
                comms[rank]->close(comms[rank]);
            executor_close(x);
            return false;
        }
        x->num_workers++;
    }
    return true;
}

void executor_close(struct executor *x)
{
    for (int32_t i = x->num_workers - 1; i >= 0; i--)
        worker_close(&x->workers[i]);
    free(x->workers);
    memset(x, 0, sizeof *x);
}

/* A rank that loads its weights. */
struct loader {
    struct worker *worker;
    const struct model *model;
    pthread_t thread;
    bool ok;
    struct status status;
};

static void *loader_main(void *arg)
{
    struct loader *l = arg;
    struct device *d = l->worker->device;
    d->backend->bind_loader(d);
    l->ok = worker_load_weights(l->worker, l->model, &l->status);
    return NULL;
}

/* Each from a thread of its own, so that memory is touched first where its rank will run. */
static bool load_together(struct executor *x, const struct model *m, struct status *st)
{
    struct loader *loaders = xcalloc((size_t)x->num_workers, sizeof *loaders);
    int32_t started = 0;
    bool ok = true;
    for (; ok && started < x->num_workers; started += ok) {
        struct loader *l = &loaders[started];
        l->worker = &x->workers[started];
        l->model = m;
        ok = thread_start(&l->thread, "load-rank", loader_main, l, st);
    }
    for (int32_t i = 0; i < started; i++) {
        pthread_join(loaders[i].thread, NULL);
        if (ok && !loaders[i].ok) {
            *st = loaders[i].status;
            ok = status_prefix(st, "rank %d: ", i);
        }
    }
    free(loaders);
    return ok;
}

bool executor_load_weights(struct executor *x, const struct model *m, struct status *st)
{
    bool ok =
        x->num_workers == 1 ? worker_load_weights(&x->workers[0], m, st) : load_together(x, m, st);
    if (!ok)
        executor_unload_weights(x);
    return ok;
}

size_t executor_taken_bytes(const struct executor *x)
{
    size_t bytes = 0;
    for (int32_t i = 0; i < x->num_workers; i++) {
        const struct weights *w = x->workers[i].weights;
        bytes += x->workers[i].device->allocated_bytes;
        bytes += w && w->arena_is_mapped ? w->size.bytes : 0;
    }
    return bytes;
}

void executor_unload_weights(struct executor *x)
{
    for (int32_t i = x->num_workers - 1; i >= 0; i--)
        worker_unload_weights(&x->workers[i]);
}

bool executor_allocate(struct executor *x, const struct memory_plan *plan, struct status *st)
{
    for (int32_t i = 0; i < x->num_workers; i++) {
        if (!worker_allocate(&x->workers[i], plan, st)) {
            executor_release(x);
            return false;
        }
    }
    if (!batch_open(&x->batch, &plan->batch_limits, x->workers[0].device, st)) {
        executor_release(x);
        return false;
    }
    x->graphs = plan->graphs;
    return true;
}

void executor_release(struct executor *x)
{
    if (x->batch.host.data)
        batch_close(&x->batch, x->workers[0].device);
    for (int32_t i = x->num_workers - 1; i >= 0; i--)
        worker_release(&x->workers[i]);
}

bool executor_start(struct executor *x, struct status *st)
{
    for (int32_t i = 0; i < x->num_workers; i++) {
        if (!worker_start(&x->workers[i], st)) {
            executor_stop(x);
            return false;
        }
    }
    return true;
}

void executor_stop(struct executor *x)
{
    for (int32_t i = 0; i < x->num_workers; i++)
        worker_stop(&x->workers[i]);
}

static void post(struct executor *x)
{
    for (int32_t i = 0; i < x->num_workers; i++)
        worker_post(&x->workers[i], &x->batch);
}

/* Waits for all ranks; the first failure counts. */
static bool await(struct executor *x, struct status *st)
{
    status_clear(st);
    for (int32_t i = 0; i < x->num_workers; i++) {
        struct status own;
        if (!worker_wait(&x->workers[i], &own) && st->code == STATUS_OK)
            *st = own;
    }
    return st->code == STATUS_OK;
}

bool executor_capture(struct executor *x, void (*told)(void *arg, int32_t done, int32_t total),
                      void *arg, struct status *st)
{
    const struct step nobody = { 0 };
    const int32_t total = graph_buckets_count(&x->graphs);
    for (int32_t i = total - 1; i >= 0; i--) {
        const struct graph_bucket bucket = graph_buckets_get(&x->graphs, i);
        batch_fill(&x->batch, &nobody);
        batch_pad(&x->batch, &bucket);
        x->batch.capture = true;
        post(x);
        if (!await(x, st))
            return false;
        if (told)
            told(arg, total - i, total);
    }
    return true;
}

/* A step that a graph takes is padded to its bucket, in the same way for all ranks. */
static void pad(struct executor *x)
{
    const struct attn_metadata *m = &x->batch.attn[0];
    if (!batch_is_decode(&x->batch))
        return;
    const struct graph_bucket bucket = graph_buckets_find(&x->graphs, m->num_seqs, m->max_seq_len);
    if (bucket.num_seqs > 0)
        batch_pad(&x->batch, &bucket);
}

void executor_submit(struct executor *x, const struct step *step)
{
    assert(!x->submitted);
    batch_fill(&x->batch, step);
    pad(x);
    x->submitted = step;
    post(x);
}

void executor_collect(struct executor *x, struct step_output *output)
{
    assert(x->submitted);
    if (await(x, &output->status))
        batch_collect(&x->batch, x->submitted, output);
    x->submitted = NULL;
}
