/* executor.c - a step goes to every rank; rank 0's samples count, since all compute the same. */
#include "engine/exec/executor.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/thread.h"
#include "kernels/backend.h"
#include "kernels/comm.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* --- ranks and their devices ------------------------------------------------------------------ */

/* As many numbers as there are ranks. */
static bool parse_device_ids(const char *text, int32_t count, int32_t *ids, struct status *st)
{
    const char *at = text;
    int32_t found = 0;
    for (bool more = true; more; found++) {
        char *end;
        errno = 0;
        const long id = strtol(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || errno || id > INT32_MAX ||
            (*end != ',' && *end != '\0'))
            return status_set(st, STATUS_INVALID,
                              "--device-ids %.80s: expected numbers of GPUs with commas between "
                              "them, as 0,1",
                              text);
        if (found < count)
            ids[found] = (int32_t)id;
        more = *end == ',';
        at = end + 1;
    }
    if (found == count)
        return true;
    return status_set(
        st, STATUS_INVALID,
        "--device-ids %.80s names %d GPUs, and --tensor-parallel-size is %d: give one "
        "for each rank",
        text, found, count);
}

static int32_t most_on_one(const int32_t *ids, int32_t count)
{
    int32_t most = 0;
    for (int32_t i = 0; i < count; i++) {
        int32_t same = 0;
        for (int32_t j = 0; j < count; j++)
            same += ids[j] == ids[i];
        most = same > most ? same : most;
    }
    return most;
}

/* Ranks on one GPU meet on the host: kernels that wait for each other need not get there at the
 * same time, and then wait forever. */
static bool open_comms(const struct executor *x, struct comm **comms, struct status *st)
{
    struct device *devices[LIMIT_TENSOR_PARALLEL_SIZE];
    const struct backend *backend = x->workers[0].device->backend;
    for (int32_t i = 0; i < x->num_workers; i++)
        devices[i] = x->workers[i].device;
    if (x->num_workers > 1 && backend->comm_open && x->ranks_per_device == 1)
        return backend->comm_open(comms, devices, x->num_workers, st);
    if (x->num_workers > 1)
        return comm_local_open(comms, x->num_workers, st);
    comms[0] = comm_self_open();
    return true;
}

/* Opens them and sees how much memory that takes of a device: what NCCL wants nobody can tell
 * beforehand. */
static bool measure_comms(struct executor *x, struct comm **comms, struct status *st)
{
    size_t before[LIMIT_TENSOR_PARALLEL_SIZE];
    struct memory_info memory;
    const struct backend *backend = x->workers[0].device->backend;
    const bool measures = x->num_workers > 1 && backend->comm_open && x->ranks_per_device == 1;
    for (int32_t i = 0; measures && i < x->num_workers; i++) {
        if (!backend->memory_info(x->workers[i].device, &memory, st))
            return false;
        before[i] = memory.available_bytes;
    }
    if (!open_comms(x, comms, st))
        return false;
    for (int32_t i = 0; measures && i < x->num_workers; i++) {
        struct status unknown;
        if (!backend->memory_info(x->workers[i].device, &memory, &unknown))
            continue; /* whoever plans asks again, and tells it */
        size_t taken = before[i] > memory.available_bytes ? before[i] - memory.available_bytes : 0;
        x->comm_bytes = taken > x->comm_bytes ? taken : x->comm_bytes;
    }
    return true;
}

static bool open_workers(struct executor *x, const char *backend_name,
                         const struct device_options *options, const int32_t *ids,
                         int32_t num_ranks, struct status *st)
{
    for (int32_t rank = 0; rank < num_ranks; rank++) {
        struct device_options own = *options;
        own.index = ids[rank];
        own.share = rank;
        own.num_shares = num_ranks;
        if (!worker_open(&x->workers[rank], rank, backend_name, &own, st))
            return false;
        x->num_workers++;
        if (strcmp(backend_name, "auto") == 0) /* all are of one kind */
            backend_name = x->workers[0].device->backend->name;
    }
    return true;
}

bool executor_open(struct executor *x, const char *backend_name,
                   const struct device_options *options, const struct executor_ranks *ranks,
                   struct status *st)
{
    struct comm *comms[LIMIT_TENSOR_PARALLEL_SIZE];
    int32_t ids[LIMIT_TENSOR_PARALLEL_SIZE];
    assert(ranks->count >= 1 && ranks->count <= LIMIT_TENSOR_PARALLEL_SIZE);
    memset(x, 0, sizeof *x);
    for (int32_t rank = 0; rank < ranks->count; rank++)
        ids[rank] = rank;
    if (ranks->device_ids && strchr(backend_name, ':'))
        return status_set(
            st, STATUS_INVALID,
            "--device %.80s and --device-ids %.80s both number GPUs: give --device cuda",
            backend_name, ranks->device_ids);
    if (ranks->device_ids && !parse_device_ids(ranks->device_ids, ranks->count, ids, st))
        return false;
    x->workers = xcalloc((size_t)ranks->count, sizeof *x->workers);
    bool ok = open_workers(x, backend_name, options, ids, ranks->count, st);
    const bool on_host = ok && (x->workers[0].device->backend->caps & BACKEND_HOST_MEMORY);
    if (on_host && ranks->device_ids)
        ok = status_set(st, STATUS_INVALID,
                        "--device-ids %.80s: the device is the CPU, which has no numbers",
                        ranks->device_ids);
    x->ranks_per_device = on_host ? ranks->count : most_on_one(ids, ranks->count);
    if (!ok || !measure_comms(x, comms, st)) {
        executor_close(x);
        return false;
    }
    for (int32_t rank = 0; rank < ranks->count; rank++)
        worker_join(&x->workers[rank], comms[rank]);
    return true;
}

void executor_close(struct executor *x)
{
    for (int32_t i = x->num_workers - 1; i >= 0; i--)
        worker_close(&x->workers[i]);
    free(x->workers);
    memset(x, 0, sizeof *x);
}

struct device *executor_fullest_device(const struct executor *x, struct status *st)
{
    struct device *fullest = NULL;
    size_t least = SIZE_MAX;
    for (int32_t i = 0; i < x->num_workers; i++) {
        struct device *d = x->workers[i].device;
        struct memory_info memory;
        if (!d->backend->memory_info(d, &memory, st))
            return NULL;
        if (!fullest || memory.available_bytes < least)
            fullest = d;
        least = memory.available_bytes < least ? memory.available_bytes : least;
    }
    return fullest;
}

/* --- weights ---------------------------------------------------------------------------------- */

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

/* --- memory ----------------------------------------------------------------------------------- */

static bool open_batches(struct executor *x, const struct memory_plan *plan, struct status *st)
{
    const bool shared = x->workers[0].device->backend->caps & BACKEND_HOST_MEMORY;
    x->num_batches = shared ? 1 : x->num_workers;
    x->num_turns = plan->num_batches;
    assert(x->num_turns <= DEVICE_NUM_MARKS);
    x->batches = xcalloc((size_t)x->num_turns * (size_t)x->num_batches, sizeof *x->batches);
    for (int32_t i = 0; i < x->num_turns * x->num_batches; i++) {
        const struct batch *other = i < x->num_batches ? NULL : &x->batches[i - x->num_batches];
        if (!batch_open(&x->batches[i], &plan->batch_limits, x->workers[i % x->num_batches].device,
                        other, st))
            return false;
    }
    return true;
}

bool executor_allocate(struct executor *x, const struct memory_plan *plan, struct status *st)
{
    for (int32_t i = 0; i < x->num_workers; i++) {
        if (!worker_allocate(&x->workers[i], plan, st)) {
            executor_release(x);
            return false;
        }
    }
    if (!open_batches(x, plan, st)) {
        executor_release(x);
        return false;
    }
    x->graphs = plan->graphs;
    return true;
}

void executor_release(struct executor *x)
{
    for (int32_t i = x->batches ? x->num_turns * x->num_batches - 1 : -1; i >= 0; i--)
        batch_close(&x->batches[i], x->workers[i % x->num_batches].device);
    free(x->batches);
    x->batches = NULL;
    x->num_batches = x->num_turns = 0;
    for (int32_t i = x->num_workers - 1; i >= 0; i--)
        worker_release(&x->workers[i]);
}

/* --- steps ------------------------------------------------------------------------------------ */

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

/* The batches of a turn, by rank. */
static struct batch *batches_of(const struct executor *x, int32_t turn)
{
    return &x->batches[turn * x->num_batches];
}

static void post(struct executor *x, int32_t turn)
{
    for (int32_t i = 0; i < x->num_workers; i++)
        worker_post(&x->workers[i], &batches_of(x, turn)[i < x->num_batches ? i : 0]);
}

/* How long the others may take when a rank has failed. Longer than any step: they wait for it. */
enum { LOST_RANK_SECONDS = 5 };

/* In any order. A rank that failed may have left the others waiting in a collective, for ever: they
 * are then called off, and no further step succeeds. */
static void await_any(struct executor *x, struct status *st)
{
    bool done[LIMIT_TENSOR_PARALLEL_SIZE] = { false }, called_off = false;
    uint64_t failed_ns = 0;
    for (int32_t num_left = x->num_workers; num_left > 0;) {
        const int32_t before = num_left;
        for (int32_t i = 0; i < x->num_workers; i++) {
            struct status own;
            if (done[i] || !worker_is_done(&x->workers[i]))
                continue;
            if (!worker_wait(&x->workers[i], &own) && st->code == STATUS_OK) {
                *st = own;
                failed_ns = clock_now_ns();
            }
            done[i] = true;
            num_left--;
        }
        if (st->code != STATUS_OK && !called_off && num_left > 0 &&
            clock_seconds_between(failed_ns, clock_now_ns()) > LOST_RANK_SECONDS) {
            x->workers[0].comm->abort(x->workers[0].comm, st);
            called_off = true;
        }
        if (num_left == before)
            sched_yield();
    }
}

/* Waits for all ranks; the first failure counts. */
static bool await(struct executor *x, struct status *st)
{
    status_clear(st);
    if (x->num_workers > 1 && x->workers[0].device->backend->is_reached) {
        await_any(x, st);
        return st->code == STATUS_OK;
    }
    for (int32_t i = 0; i < x->num_workers; i++) {
        struct status own;
        if (!worker_wait(&x->workers[i], &own) && st->code == STATUS_OK)
            *st = own;
    }
    return st->code == STATUS_OK;
}

/* What devices still do is at work on memory that is freed next, each other's too. */
void executor_stop(struct executor *x)
{
    struct status nobody_asks;
    for (; x->num_submitted > 0; x->num_submitted--)
        await(x, &nobody_asks);
    for (int32_t i = 0; i < x->num_workers; i++)
        worker_stop(&x->workers[i]);
    x->first_turn = 0;
}

bool executor_capture(struct executor *x, void (*told)(void *arg, int32_t done, int32_t total),
                      void *arg, struct status *st)
{
    const struct step nobody = { 0 };
    const int32_t total = graph_buckets_count(&x->graphs);
    for (int32_t i = total - 1; i >= 0; i--) {
        const struct graph_bucket bucket = graph_buckets_get(&x->graphs, i);
        for (int32_t b = 0; b < x->num_batches; b++) {
            batch_fill(&x->batches[b], &nobody, NULL);
            batch_pad(&x->batches[b], &bucket);
            x->batches[b].capture = true;
        }
        post(x, 0);
        if (!await(x, st))
            return false;
        if (told)
            told(arg, total - i, total);
    }
    return true;
}

/* A step that a graph takes is padded to its bucket, in the same way for all ranks. */
static void pad(const struct graph_buckets *graphs, struct batch *batch)
{
    const struct attn_metadata *m = &batch->attn[0];
    const struct graph_bucket bucket =
        graph_buckets_find(graphs, m->num_seqs, batch_uniform_query_len(batch), m->max_seq_len);
    if (bucket.num_seqs > 0)
        batch_pad(batch, &bucket);
}

void executor_submit(struct executor *x, const struct step *step)
{
    const int32_t turn = (x->first_turn + x->num_submitted) % x->num_turns;
    assert(x->num_submitted < x->num_turns);
    for (int32_t i = 0; i < x->num_batches; i++) {
        const struct batch *previous =
            x->num_submitted > 0 ? &batches_of(x, x->first_turn)[i] : NULL;
        batch_fill(&batches_of(x, turn)[i], step, previous);
        pad(&x->graphs, &batches_of(x, turn)[i]);
    }
    x->submitted[turn] = step;
    x->num_submitted++;
    post(x, turn);
}

void executor_collect(struct executor *x, struct step_output *output)
{
    const int32_t turn = x->first_turn;
    assert(x->num_submitted > 0);
    if (await(x, &output->status))
        batch_collect(&batches_of(x, turn)[0], x->submitted[turn], output);
    x->first_turn = (turn + 1) % x->num_turns;
    x->num_submitted--;
}
