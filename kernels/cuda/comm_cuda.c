/* comm_cuda.c - communicators of ranks on GPUs: which way a message takes, and how they end. */
#include "kernels/cuda/comm_cuda.h"

#include "base/alloc.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* --- collectives ------------------------------------------------------------------------------ */

/* Whether the ranks still work together; if not, that is d's error. */
static bool still_on(struct cuda_comm *c)
{
    struct cuda_world *w = c->world;
    if (!atomic_load_explicit(&w->called_off, memory_order_acquire))
        return true;
    pthread_mutex_lock(&w->mutex);
    struct status why = w->failure;
    pthread_mutex_unlock(&w->mutex);
    pthread_mutex_lock(&c->device->mutex);
    if (c->device->base.error.code == STATUS_OK)
        c->device->base.error = why;
    pthread_mutex_unlock(&c->device->mutex);
    return false;
}

/* Small messages go through the others' memory; without NCCL all do, in turns. */
static bool by_peers(const struct cuda_comm *c, size_t bytes)
{
    return c->world->has_peers && (bytes <= CUDA_PEER_FLOATS * sizeof(float) || !c->world->nccl);
}

/* The part of x that follows row `*row` and column `*col`, and fits; moves both on. */
static struct tensor next_turn(const struct tensor *x, int32_t *row, int32_t *col)
{
    const int32_t left = x->cols - *col;
    struct tensor part = tensor_columns(x, *col, left < CUDA_PEER_FLOATS ? left : CUDA_PEER_FLOATS);
    const int32_t at_once = part.cols == x->cols ? CUDA_PEER_FLOATS / part.cols : 1;
    part.data = (float *)part.data + *row * x->stride;
    part.rows = x->rows - *row < at_once ? x->rows - *row : at_once;
    *col += part.cols;
    if (*col == x->cols) {
        *col = 0;
        *row += part.rows;
    }
    return part;
}

static void cuda_all_reduce(struct comm *base, struct device *d, struct tensor *x)
{
    struct cuda_comm *c = (struct cuda_comm *)base;
    int32_t row = 0, col = 0;
    assert(d == &c->device->base && x->dtype == DTYPE_F32);
    if (!still_on(c) || x->cols == 0)
        return;
    if (!by_peers(c, (size_t)x->rows * (size_t)x->cols * sizeof(float)))
        cuda_nccl_all_reduce(c, x);
    else
        while (row < x->rows) {
            const struct tensor part = next_turn(x, &row, &col);
            cuda_launch_peer_all_reduce(&c->peers, &part, c->device->stream);
        }
    cuda_check(c->device, cudaGetLastError(), "all-reduce");
    (void)d;
}

static void cuda_all_gather(struct comm *base, struct device *d, struct tensor *out,
                            const struct tensor *x)
{
    struct cuda_comm *c = (struct cuda_comm *)base;
    int32_t row = 0, col = 0;
    assert(d == &c->device->base && x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32);
    assert(out->rows == x->rows && out->cols == base->world_size * x->cols);
    if (!still_on(c) || x->cols == 0)
        return;
    if (!by_peers(c, (size_t)x->rows * (size_t)x->cols * sizeof(float)))
        cuda_nccl_all_gather(c, out, x);
    else
        while (row < x->rows) {
            struct tensor to = *out;
            to.data = (float *)out->data + row * out->stride + col;
            const struct tensor part = next_turn(x, &row, &col);
            cuda_launch_peer_all_gather(&c->peers, &to, &part, x->cols, c->device->stream);
        }
    cuda_check(c->device, cudaGetLastError(), "all-gather");
    (void)d;
}

static void cuda_broadcast(struct comm *base, struct device *d, void *data, size_t size_bytes,
                           int32_t root)
{
    struct cuda_comm *c = (struct cuda_comm *)base;
    const size_t most = CUDA_PEER_FLOATS * sizeof(float);
    assert(d == &c->device->base && root >= 0 && root < base->world_size);
    if (!still_on(c) || size_bytes == 0)
        return;
    if (!by_peers(c, size_bytes))
        cuda_nccl_broadcast(c, data, size_bytes, root);
    else
        for (size_t at = 0; at < size_bytes; at += most) {
            const size_t bytes = size_bytes - at < most ? size_bytes - at : most;
            cuda_launch_peer_broadcast(&c->peers, (char *)data + at, (int32_t)bytes, root,
                                       c->device->stream);
        }
    cuda_check(c->device, cudaGetLastError(), "broadcast");
    (void)d;
}

static bool cuda_barrier(struct comm *base, struct status *st)
{
    struct cuda_world *w = ((struct cuda_comm *)base)->world;
    pthread_mutex_lock(&w->mutex);
    const uint32_t meeting = w->meeting;
    if (w->failure.code == STATUS_OK && ++w->arrived == w->size) {
        w->arrived = 0;
        w->meeting++;
        pthread_cond_broadcast(&w->changed);
    }
    while (w->meeting == meeting && w->failure.code == STATUS_OK)
        pthread_cond_wait(&w->changed, &w->mutex);
    const bool met = w->meeting != meeting;
    if (!met)
        *st = w->failure;
    pthread_mutex_unlock(&w->mutex);
    return met;
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Kernels that wait look at a word of the host's; NCCL's are told by itself. */
static void cuda_abort(struct comm *base, const struct status *why)
{
    struct cuda_world *w = ((struct cuda_comm *)base)->world;
    assert(why->code != STATUS_OK);
    pthread_mutex_lock(&w->mutex);
    const bool first = w->failure.code == STATUS_OK;
    if (first)
        w->failure = *why;
    atomic_store_explicit(&w->called_off, true, memory_order_release);
    __atomic_store_n(w->called_off_host, 1, __ATOMIC_RELEASE);
    for (int32_t r = 0; first && r < w->size; r++) {
        struct cuda_comm *c = w->ranks[r];
        if (!c)
            continue;
        pthread_mutex_lock(&c->nccl_mutex);
        if (c->nccl)
            w->nccl->comm_abort(c->nccl);
        c->nccl = NULL;
        pthread_mutex_unlock(&c->nccl_mutex);
    }
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

static void cuda_comm_close(struct comm *base)
{
    struct cuda_comm *c = (struct cuda_comm *)base;
    struct cuda_world *w = c->world;
    cuda_use(c->device);
    pthread_mutex_lock(&w->mutex);
    w->ranks[base->rank] = NULL;
    pthread_mutex_unlock(&w->mutex);
    if (c->nccl)
        w->nccl->comm_destroy(c->nccl);
    cudaFree(c->memory);
    pthread_mutex_destroy(&c->nccl_mutex);
    free(c);
    if (atomic_fetch_sub(&w->num_open, 1) > 1)
        return;
    cudaFreeHost(w->called_off_host);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Whether every GPU reaches every other one's memory; then they may. `a` and `b` are two that
 * cannot, if any. */
static bool enable_peers(struct cuda_comm *const *ranks, int32_t size, int32_t *a, int32_t *b)
{
    for (*a = 0; *a < size; ++*a)
        for (*b = 0; *b < size; ++*b) {
            int can = 0;
            const int from = ranks[*a]->device->index, to = ranks[*b]->device->index;
            if (*a == *b)
                continue;
            if (cudaDeviceCanAccessPeer(&can, from, to) != cudaSuccess || !can ||
                !cuda_use(ranks[*a]->device))
                return false;
            cudaError_t error = cudaDeviceEnablePeerAccess(to, 0);
            cudaGetLastError(); /* that it is enabled already is no error of a later call's */
            if (error != cudaSuccess && error != cudaErrorPeerAccessAlreadyEnabled)
                return false;
        }
    return true;
}

/* Staging for two turns, and flags, on the rank's own GPU. */
static bool open_memory(struct cuda_comm *c, struct status *st)
{
    const size_t staging = 2 * (size_t)CUDA_PEER_FLOATS * sizeof(float);
    const size_t bytes = staging + sizeof(struct cuda_peer_flags);
    cudaError_t error = cudaSuccess;
    if (!cuda_use(c->device))
        return cuda_failed(st, cudaErrorInvalidDevice, "choosing the GPU");
    error = cudaMalloc(&c->memory, bytes);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(c->memory, 0, bytes, c->device->stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(c->device->stream);
    return error == cudaSuccess || cuda_failed(st, error, "memory for messages between ranks");
}

static void share_memory(struct cuda_comm *const *ranks, int32_t size)
{
    for (int32_t i = 0; i < size; i++) {
        struct cuda_peers *p = &ranks[i]->peers;
        p->rank = i;
        p->size = size;
        p->called_off = ranks[i]->world->called_off_host;
        for (int32_t r = 0; r < size && r < CUDA_MAX_PEERS; r++) {
            p->staging[r] = ranks[r]->memory;
            p->flags[r] = (struct cuda_peer_flags *)(p->staging[r] + 2 * CUDA_PEER_FLOATS);
        }
    }
}

/* Finds the ways to the other ranks; one is enough. */
static bool connect(struct cuda_world *w, struct status *st)
{
    struct status why;
    int32_t a = 0, b = 0;
    status_clear(&why);
    w->has_peers = w->size <= CUDA_MAX_PEERS && enable_peers(w->ranks, w->size, &a, &b);
    w->nccl = nccl_load(&why);
    const int version = w->nccl ? w->nccl->version : 0;
    if (!w->nccl && !w->has_peers && w->size <= CUDA_MAX_PEERS)
        return status_set(st, STATUS_UNSUPPORTED,
                          "GPUs %d and %d cannot reach each other's memory, and there is no NCCL "
                          "(%.200s): install libnccl2",
                          w->ranks[a]->device->index, w->ranks[b]->device->index, why.message);
    if (!w->nccl && !w->has_peers)
        return status_set(st, STATUS_UNSUPPORTED, "%d ranks need NCCL (%.200s): install libnccl2",
                          w->size, why.message);
    for (int32_t r = 0; r < w->size; r++) {
        struct comm *c = &w->ranks[r]->base;
        if (!w->nccl)
            snprintf(c->description, sizeof c->description, "peer memory; no NCCL (%.100s)",
                     why.message);
        else
            snprintf(c->description, sizeof c->description, "NCCL %d.%d.%d%s", version / 10000,
                     version / 100 % 100, version % 100,
                     w->has_peers ? ", and peer memory for small messages" : "");
    }
    return !w->nccl || cuda_nccl_open(w->ranks, w->size, st);
}

static struct cuda_comm *new_rank(struct cuda_world *w, int32_t rank, struct device *device)
{
    struct cuda_comm *c = xcalloc(1, sizeof *c);
    c->base = (struct comm){ .rank = rank,
                             .world_size = w->size,
                             .can_capture = true,
                             .all_reduce = cuda_all_reduce,
                             .all_gather = cuda_all_gather,
                             .broadcast = cuda_broadcast,
                             .barrier = cuda_barrier,
                             .abort = cuda_abort,
                             .close = cuda_comm_close };
    c->world = w;
    c->device = cuda_device_of(device);
    pthread_mutex_init(&c->nccl_mutex, NULL);
    w->ranks[rank] = c;
    return c;
}

bool cuda_comm_open(struct comm **out, struct device *const *devices, int32_t world_size,
                    struct status *st)
{
    void *called_off = NULL;
    assert(world_size >= 1 && world_size <= CUDA_MAX_RANKS);
    cudaError_t error =
        cudaHostAlloc(&called_off, sizeof(uint32_t), cudaHostAllocPortable | cudaHostAllocMapped);
    if (error != cudaSuccess)
        return cuda_failed(st, error, "memory for messages between ranks");
    struct cuda_world *w = xcalloc(1, sizeof *w);
    w->size = world_size;
    w->called_off_host = called_off;
    *w->called_off_host = 0;
    atomic_init(&w->num_open, world_size);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->changed, NULL);
    bool ok = true;
    for (int32_t r = 0; r < world_size; r++)
        out[r] = &new_rank(w, r, devices[r])->base;
    for (int32_t r = 0; ok && r < world_size; r++)
        ok = open_memory(w->ranks[r], st);
    if (ok) {
        share_memory(w->ranks, world_size);
        ok = connect(w, st);
    }
    for (int32_t r = 0; !ok && r < world_size; r++) {
        out[r]->close(out[r]);
        out[r] = NULL;
    }
    return ok;
}
