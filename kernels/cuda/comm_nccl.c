/* comm_nccl.c - collectives through NCCL.
 *
 * NCCL's own sum adds in an order that depends on the size of the message, so that a row's bits
 * would depend on how many rows ride along. So a sum is made of three steps that move as many
 * bytes: each rank gets its part of the message from all others, adds the parts in their order, and
 * sends the result to all. */
#include "kernels/cuda/comm_cuda.h"

#include <assert.h>

/* The first failure sticks to the device. */
static bool nccl_ok(struct cuda_comm *c, nccl_result result, const char *what)
{
    struct status st;
    if (result == NCCL_SUCCESS)
        return true;
    nccl_failed(c->world->nccl, &st, result, what);
    pthread_mutex_lock(&c->device->mutex);
    if (c->device->base.error.code == STATUS_OK)
        c->device->base.error = st;
    pthread_mutex_unlock(&c->device->mutex);
    return false;
}

/* Part `rank` of `count` elements. */
static size_t part_begin(const struct cuda_comm *c, size_t count, int32_t rank)
{
    return count * (size_t)rank / (size_t)c->base.world_size;
}

static size_t part_count(const struct cuda_comm *c, size_t count, int32_t rank)
{
    return part_begin(c, count, rank + 1) - part_begin(c, count, rank);
}

/* Every rank's part of x goes to it; what the others have of mine comes to `parts`. */
static void scatter_parts(struct cuda_comm *c, const float *x, float *parts, size_t count)
{
    const struct nccl_api *nccl = c->world->nccl;
    const int32_t rank = c->base.rank;
    const size_t mine = part_count(c, count, rank);
    bool ok = nccl_ok(c, nccl->group_start(), "all-reduce");
    for (int32_t r = 0; ok && r < c->base.world_size; r++) {
        const size_t theirs = part_count(c, count, r);
        if (theirs > 0)
            ok = nccl_ok(c,
                         nccl->send(x + part_begin(c, count, r), theirs, NCCL_FLOAT32, r, c->nccl,
                                    c->device->stream),
                         "all-reduce: sending");
        if (ok && mine > 0)
            ok = nccl_ok(c,
                         nccl->recv(parts + (size_t)r * mine, mine, NCCL_FLOAT32, r, c->nccl,
                                    c->device->stream),
                         "all-reduce: receiving");
    }
    nccl_ok(c, nccl->group_end(), "all-reduce");
}

/* My part of x, which is done, goes to all, and theirs come. */
static void exchange_sums(struct cuda_comm *c, float *x, size_t count)
{
    const struct nccl_api *nccl = c->world->nccl;
    const int32_t rank = c->base.rank;
    const size_t mine = part_count(c, count, rank);
    bool ok = nccl_ok(c, nccl->group_start(), "all-reduce");
    for (int32_t r = 0; ok && r < c->base.world_size; r++) {
        const size_t theirs = part_count(c, count, r);
        if (r != rank && mine > 0)
            ok = nccl_ok(c,
                         nccl->send(x + part_begin(c, count, rank), mine, NCCL_FLOAT32, r, c->nccl,
                                    c->device->stream),
                         "all-reduce: sending sums");
        if (ok && r != rank && theirs > 0)
            ok = nccl_ok(c,
                         nccl->recv(x + part_begin(c, count, r), theirs, NCCL_FLOAT32, r, c->nccl,
                                    c->device->stream),
                         "all-reduce: receiving sums");
    }
    nccl_ok(c, nccl->group_end(), "all-reduce");
}

static void reduce_elements(struct cuda_comm *c, float *x, size_t count)
{
    struct cuda_device *d = c->device;
    float *parts = d->comm_scratch;
    /* Parts differ by one element at most. */
    const size_t fits = d->comm_scratch_bytes / sizeof(float);
    assert(fits > (size_t)c->base.world_size);
    const size_t at_once = fits - (size_t)c->base.world_size;
    for (size_t at = 0; at < count; at += at_once) {
        const size_t n = count - at < at_once ? count - at : at_once;
        scatter_parts(c, x + at, parts, n);
        cuda_launch_sum_parts(x + at + part_begin(c, n, c->base.rank), parts,
                              (int64_t)part_count(c, n, c->base.rank), c->base.world_size,
                              d->stream);
        exchange_sums(c, x + at, n);
    }
}

void cuda_nccl_all_reduce(struct cuda_comm *c, const struct tensor *x)
{
    pthread_mutex_lock(&c->nccl_mutex);
    const bool one_piece = x->stride == x->cols;
    const int32_t pieces = one_piece ? (x->rows > 0) : x->rows;
    const size_t count = (size_t)x->cols * (size_t)(one_piece ? x->rows : 1);
    for (int32_t i = 0; c->nccl && i < pieces; i++)
        reduce_elements(c, (float *)x->data + (int64_t)i * x->stride, count);
    pthread_mutex_unlock(&c->nccl_mutex);
}

static void copy_rows(struct cuda_device *d, float *dst, int64_t dst_stride, const float *src,
                      int64_t src_stride, int32_t rows, int32_t cols)
{
    cuda_check(d,
               cudaMemcpy2DAsync(dst, (size_t)dst_stride * sizeof *dst, src,
                                 (size_t)src_stride * sizeof *src, (size_t)cols * sizeof *dst,
                                 (size_t)rows, cudaMemcpyDeviceToDevice, d->stream),
               "all-gather");
}

void cuda_nccl_all_gather(struct cuda_comm *c, const struct tensor *out, const struct tensor *x)
{
    struct cuda_device *d = c->device;
    const int32_t size = c->base.world_size;
    float *const all = d->comm_scratch; /* [world_size, rows, cols] */
    const size_t row_bytes = (size_t)x->cols * (size_t)size * sizeof(float);
    const int32_t at_once = row_bytes > 0 ? (int32_t)(d->comm_scratch_bytes / row_bytes) : 1;
    assert(at_once > 0);
    pthread_mutex_lock(&c->nccl_mutex);
    for (int32_t row = 0; c->nccl && row < x->rows; row += at_once) {
        const int32_t rows = x->rows - row < at_once ? x->rows - row : at_once;
        const size_t count = (size_t)rows * (size_t)x->cols;
        float *const mine = all + (size_t)c->base.rank * count;
        copy_rows(d, mine, x->cols, (const float *)x->data + row * x->stride, x->stride, rows,
                  x->cols);
        nccl_ok(c, c->world->nccl->all_gather(mine, all, count, NCCL_FLOAT32, c->nccl, d->stream),
                "all-gather");
        for (int32_t r = 0; r < size; r++)
            copy_rows(d, (float *)out->data + row * out->stride + (int64_t)r * x->cols, out->stride,
                      all + (size_t)r * count, x->cols, rows, x->cols);
    }
    pthread_mutex_unlock(&c->nccl_mutex);
}

void cuda_nccl_broadcast(struct cuda_comm *c, void *data, size_t size_bytes, int32_t root)
{
    pthread_mutex_lock(&c->nccl_mutex);
    if (c->nccl)
        nccl_ok(c,
                c->world->nccl->broadcast(data, data, size_bytes, NCCL_UINT8, root, c->nccl,
                                          c->device->stream),
                "broadcast");
    pthread_mutex_unlock(&c->nccl_mutex);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* One float from everyone to everyone, in the staging that is not in use yet: from rank 0's place r
 * on in the first half, to the second. */
static nccl_result greet(const struct nccl_api *nccl, struct cuda_comm *c)
{
    float *from = c->memory, *to = from + CUDA_PEER_FLOATS;
    nccl_result result = NCCL_SUCCESS;
    for (int32_t r = 0; result == NCCL_SUCCESS && r < c->base.world_size; r++) {
        result = nccl->send(from + r, 1, NCCL_FLOAT32, r, c->nccl, c->device->stream);
        if (result == NCCL_SUCCESS)
            result = nccl->recv(to + r, 1, NCCL_FLOAT32, r, c->nccl, c->device->stream);
    }
    return result;
}

static nccl_result greet_all(const struct nccl_api *nccl, struct cuda_comm *const *ranks,
                             int32_t world_size, bool gather)
{
    nccl_result result = nccl->group_start();
    if (result != NCCL_SUCCESS)
        return result;
    for (int32_t r = 0; result == NCCL_SUCCESS && r < world_size; r++) {
        struct cuda_comm *c = ranks[r];
        float *from = c->memory;
        result = gather ? nccl->all_gather(from, from + CUDA_PEER_FLOATS, 1, NCCL_FLOAT32, c->nccl,
                                           c->device->stream)
                        : greet(nccl, c);
    }
    nccl_result ended = nccl->group_end();
    return result == NCCL_SUCCESS ? ended : result;
}

bool cuda_nccl_open(struct cuda_comm *const *ranks, int32_t world_size, struct status *st)
{
    const struct nccl_api *nccl = ranks[0]->world->nccl;
    ncclComm_t comms[CUDA_MAX_RANKS];
    int indices[CUDA_MAX_RANKS] = { 0 };
    for (int32_t r = 0; r < world_size; r++)
        indices[r] = ranks[r]->device->index;
    nccl_result result = nccl->comm_init_all(comms, world_size, indices);
    if (result != NCCL_SUCCESS)
        return nccl_failed(nccl, st, result, "connecting the ranks");
    for (int32_t r = 0; r < world_size; r++)
        ranks[r]->nccl = comms[r];
    result = greet_all(nccl, ranks, world_size, false);
    if (result == NCCL_SUCCESS)
        result = greet_all(nccl, ranks, world_size, true);
    if (result != NCCL_SUCCESS)
        return nccl_failed(nccl, st, result, "the ranks' first messages");
    for (int32_t r = 0; r < world_size; r++) {
        cudaError_t error = cudaStreamSynchronize(ranks[r]->device->stream);
        if (error != cudaSuccess)
            return cuda_failed(st, error, "the ranks' first messages");
    }
    return true;
}
