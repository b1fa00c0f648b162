/* worker.c - a rank's resources and its mailbox. */
#include "engine/exec/worker.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/thread.h"
#include "engine/model/kv_scales.h"
#include "engine/model/tensor_parallel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

bool worker_open(struct worker *w, int32_t rank, const char *backend_name,
                 const struct device_options *options, struct status *st)
{
    *w = (struct worker){ .rank = rank };
    if (!backend_open(backend_name, options, &w->device, st))
        return false;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->changed, NULL);
    return true;
}

void worker_join(struct worker *w, struct comm *comm)
{
    assert(comm->rank == w->rank);
    w->comm = comm;
}

void worker_close(struct worker *w)
{
    if (!w->device)
        return;
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
    if (w->comm)
        w->comm->close(w->comm);
    w->comm = NULL;
    w->device->backend->close(w->device);
    w->device = NULL;
}

/* A line for every tenth that was loaded: progress a person can follow, also in a journal. */
static void log_progress(void *arg, size_t done, size_t total)
{
    int32_t *last_tenth = arg;
    int32_t tenth = total ? (int32_t)((double)done * 10.0 / (double)total) : 10;
    if (tenth <= *last_tenth || total < 256u << 20)
        return;
    *last_tenth = tenth;
    log_info("weights: %d %% of %.2f GiB", tenth * 10, (double)total / (1 << 30));
}

bool worker_load_weights(struct worker *w, const struct model *m, struct status *st)
{
    int32_t last_tenth = 0, size = w->comm->world_size;
    w->share = size > 1 ? tensor_parallel_share(m, w->rank, size) : NULL;
    w->model = w->share ? w->share : m;
    /* The ranks read at the same pace; one speaks for all. */
    return weights_load(w->model, w->device, w->comm, w->rank == 0 ? log_progress : NULL,
                        &last_tenth, &w->weights, st);
}

void worker_unload_weights(struct worker *w)
{
    if (w->weights)
        weights_free(w->weights, w->device);
    w->weights = NULL;
    tensor_parallel_share_free(w->share);
    w->share = NULL;
    w->model = NULL;
}

/* One block: for each place in a group all K blocks, then all V blocks, where there are any. Layers
 * of different groups share a place: no block is two groups' at a time. */
static bool cut_kv_layers(struct worker *w, const struct model *m, const struct memory_plan *plan,
                          struct status *st)
{
    const struct kv_cache_spec *spec = &plan->kv_spec;
    size_t num_blocks = (size_t)plan->num_blocks;
    size_t k_bytes = num_blocks * kv_cache_k_block_bytes(spec, plan->block_size);
    size_t v_bytes = num_blocks * kv_cache_v_block_bytes(spec, plan->block_size);
    w->kv_layers = xcalloc((size_t)spec->num_layers, sizeof *w->kv_layers);
    for (int32_t i = 0; i < spec->num_layers; i++) {
        char *at = (char *)w->kv_memory.data + (size_t)spec->place[i] * (k_bytes + v_bytes);
        w->kv_layers[i] = (struct kv_layer){
            .k = at,
            .v = v_bytes > 0 ? at + k_bytes : NULL,
            .dtype = spec->dtype,
            .num_blocks = plan->num_blocks,
            .block_size = plan->block_size,
            .num_kv_heads = spec->num_kv_heads,
            .head_dim = spec->k_head_dim,
            .group = spec->group[i],
        };
        struct kv_scales scales;
        if (spec->dtype != DTYPE_F8_E4M3)
            continue;
        if (!kv_scales_find(m->checkpoint, i, &scales, st))
            return false;
        w->kv_layers[i].k_scale = scales.k;
        w->kv_layers[i].v_scale = scales.v;
    }
    return true;
}

bool worker_allocate(struct worker *w, const struct memory_plan *plan, struct status *st)
{
    struct device *d = w->device;
    if (!d->backend->reserve_workspace(d, &plan->workspace, st))
        return status_prefix(st, "workspace: ");
    if (!d->backend->alloc(d, &w->kv_memory, plan->kv_cache_bytes, MEMORY_DEVICE, st))
        return status_prefix(st, "KV cache: ");
    if (!cut_kv_layers(w, w->model, plan, st) ||
        !decoder_new(&w->model->desc, w->weights, d, w->comm, &plan->decoder_limits, w->kv_layers,
                     &w->decoder, st)) {
        worker_release(w);
        return false;
    }
    w->runner = (struct model_runner){ d, w->decoder, plan->decoder_limits.max_logits_rows,
                                       .samples = w->rank == 0 || plan->num_batches > 1,
                                       .reports = w->rank == 0 };
    graph_pool_init(&w->runner.graphs, d, &plan->graphs);
    return true;
}

void worker_release(struct worker *w)
{
    if (w->decoder) {
        graph_pool_free(&w->runner.graphs);
        decoder_free(w->decoder);
    }
    w->decoder = NULL;
    free(w->kv_layers);
    w->kv_layers = NULL;
    if (w->kv_memory.data)
        w->device->backend->free(w->device, &w->kv_memory);
    w->kv_memory = (struct buffer){ 0 };
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    w->device->backend->bind_thread(w->device);
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        while (w->num_launched == w->num_posted && !w->stopping)
            pthread_cond_wait(&w->changed, &w->mutex);
        if (w->num_launched == w->num_posted)
            break;
        const size_t slot = w->num_launched % DEVICE_NUM_MARKS;
        struct batch *b = w->posted[slot];
        pthread_mutex_unlock(&w->mutex);
        struct status st;
        status_clear(&st);
        model_runner_launch(&w->runner, b, &st);
        pthread_mutex_lock(&w->mutex);
        w->status[slot] = st;
        w->num_launched++;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

bool worker_start(struct worker *w, struct status *st)
{
    w->stopping = false;
    w->num_posted = w->num_launched = w->num_awaited = 0;
    w->started = thread_start(&w->thread, "worker", worker_main, w, st);
    return w->started;
}

void worker_post(struct worker *w, struct batch *b)
{
    pthread_mutex_lock(&w->mutex);
    assert(w->num_posted - w->num_awaited < DEVICE_NUM_MARKS);
    w->posted[w->num_posted++ % DEVICE_NUM_MARKS] = b;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

bool worker_is_done(struct worker *w)
{
    const struct backend *backend = w->device->backend;
    const size_t slot = w->num_awaited % DEVICE_NUM_MARKS;
    pthread_mutex_lock(&w->mutex);
    const bool launched = w->num_launched > w->num_awaited;
    const bool failed = launched && w->status[slot].code != STATUS_OK;
    const int32_t mark = launched ? w->posted[slot]->mark : 0;
    pthread_mutex_unlock(&w->mutex);
    return launched && (failed || !backend->is_reached || backend->is_reached(w->device, mark));
}

bool worker_wait(struct worker *w, struct status *st)
{
    const size_t slot = w->num_awaited % DEVICE_NUM_MARKS;
    pthread_mutex_lock(&w->mutex);
    assert(w->num_awaited < w->num_posted);
    while (w->num_launched <= w->num_awaited)
        pthread_cond_wait(&w->changed, &w->mutex);
    *st = w->status[slot];
    const int32_t mark = w->posted[slot]->mark;
    pthread_mutex_unlock(&w->mutex);
    bool ok = st->code == STATUS_OK && w->device->backend->await(w->device, mark, st);
    pthread_mutex_lock(&w->mutex);
    w->num_awaited++;
    pthread_mutex_unlock(&w->mutex);
    if (!ok && w->comm->world_size > 1)
        status_prefix(st, "rank %d: ", w->rank);
    return ok;
}

void worker_stop(struct worker *w)
{
    if (!w->started)
        return;
    pthread_mutex_lock(&w->mutex);
    w->stopping = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    w->started = false;
}
