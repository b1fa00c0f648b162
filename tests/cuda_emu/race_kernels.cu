/* race_kernels.cu - kernels that are right and kernels that are not, for test_race.c: in each pair
 * only what orders the threads differs. */
#include "kernels/cuda/common.cuh"

extern "C" {
#include "tests/cuda_emu/race_kernels.h"
}

#include <cstdio>
#include <cstdlib>

enum { THREADS = 128 };

/* --- a block's barrier --- */

__device__ __forceinline__ void clear(int values[THREADS])
{
    values[threadIdx.x] = 0;
    __syncthreads();
}

template <bool FIRST, bool SECOND> __global__ void turn_over(int *data)
{
    __shared__ int values[THREADS];
    clear(values);
    for (int n = 0; n < 2; n++) {
        values[threadIdx.x] = data[threadIdx.x] + n;
        if (FIRST)
            __syncthreads();
        const int other = values[THREADS - 1 - threadIdx.x];
        if (SECOND)
            __syncthreads();
        data[threadIdx.x] = other;
    }
}

/* Halves of a word belong to threads that need not know of each other. */
__global__ void halves(int *data)
{
    __shared__ short values[2 * THREADS];
    values[threadIdx.x] = (short)threadIdx.x;
    values[THREADS + threadIdx.x] = 0;
    __syncthreads();
    data[threadIdx.x] = ((int *)values)[threadIdx.x];
}

template <bool INIT> __global__ void sum_of_some(int *data)
{
    __shared__ int values[THREADS];
    if (INIT || threadIdx.x > 0)
        values[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 0; i < THREADS; i++)
            data[0] += values[i];
}

/* --- a warp --- */

enum warp_order { BY_SYNC, BY_SHUFFLE, BY_NOTHING };

template <warp_order ORDER> __global__ void neighbours(int *data)
{
    __shared__ int values[THREADS];
    clear(values);
    values[threadIdx.x] = (int)threadIdx.x;
    if (ORDER == BY_SYNC)
        __syncwarp();
    int zero = 0;
    if (ORDER == BY_SHUFFLE)
        zero = __shfl_sync(FULL_WARP, 0, 0);
    data[threadIdx.x] = values[threadIdx.x ^ 1] + zero;
}

/* __syncwarp says nothing to other warps. */
__global__ void other_warps(int *data)
{
    __shared__ int values[THREADS];
    clear(values);
    values[threadIdx.x] = (int)threadIdx.x;
    __syncwarp();
    data[threadIdx.x] = values[(threadIdx.x + WARP) % THREADS];
}

/* --- asynchronous copies --- */

enum copy_order { WAITS_AND_MEETS, WAITS, MEETS, WAITS_TOO_LITTLE, READS_ITS_OWN };

template <copy_order ORDER> __global__ void copy_rows(int *data, uint4 *rows)
{
    __shared__ uint4 there[2][THREADS];
    there[0][threadIdx.x] = there[1][threadIdx.x] = make_uint4(0, 0, 0, 0);
    __syncthreads();
    for (int n = 0; n < 2; n++) {
        cp_async_16(&there[n][threadIdx.x], rows + threadIdx.x, true);
        cp_async_commit();
    }
    if (ORDER == WAITS_AND_MEETS || ORDER == WAITS)
        cp_async_wait<0>();
    if (ORDER == WAITS_TOO_LITTLE)
        cp_async_wait<1>();
    if (ORDER != WAITS && ORDER != READS_ITS_OWN)
        __syncthreads();
    const int from = ORDER == READS_ITS_OWN ? threadIdx.x : (threadIdx.x + 1) % THREADS;
    data[threadIdx.x] = (int)there[1][from].x;
}

/* A copy into what others still read. */
template <bool MEETS_BEFORE> __global__ void copy_over(int *data, uint4 *rows)
{
    __shared__ uint4 there[THREADS];
    int sum = 0;
    for (int n = 0; n < 3; n++) {
        cp_async_16(&there[threadIdx.x], rows + threadIdx.x, true);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        sum += (int)there[(threadIdx.x + 1) % THREADS].x;
        if (MEETS_BEFORE)
            __syncthreads();
    }
    data[threadIdx.x] = sum;
}

/* The source of a copy is written while it is under way. */
template <bool WAITS_BEFORE> __global__ void copy_source(int *data, uint4 *rows)
{
    __shared__ uint4 there[THREADS];
    cp_async_16(&there[threadIdx.x], rows + threadIdx.x, true);
    cp_async_commit();
    if (WAITS_BEFORE)
        cp_async_wait<0>();
    rows[threadIdx.x] = make_uint4(threadIdx.x + 7, 7, 7, 7);
    cp_async_wait<0>();
    data[threadIdx.x] = (int)there[threadIdx.x].x;
}

template <bool SYNC> __global__ void fragments(int *data)
{
    __shared__ uint4 tile[WARP];
    tile[threadIdx.x] = make_uint4(threadIdx.x, 0, 0, 0);
    if (SYNC)
        __syncwarp();
    uint32_t out[4];
    ldmatrix_x4(out, &tile[threadIdx.x]);
    data[threadIdx.x] = (int)(out[0] + out[1] + out[2] + out[3]);
}

/* --- blocks --- */

__global__ void same_place(int *data)
{
    if (threadIdx.x == 0)
        data[0] = (int)blockIdx.x;
}

__global__ void reads_of_another(int *data)
{
    if (threadIdx.x == 0)
        data[blockIdx.x] = 1 + data[(blockIdx.x + 1) % gridDim.x];
}

__global__ void own_places(int *data)
{
    data[blockIdx.x * blockDim.x + threadIdx.x] = (int)threadIdx.x;
}

template <bool ATOMIC> __global__ void count(int *data)
{
    if (ATOMIC)
        atomicAdd(&data[0], 1);
    else
        *(volatile int *)&data[0] = 1;
}

/* A count that others write by plain stores. */
__global__ void count_and_set(int *data)
{
    atomicAdd(&data[0], 1);
    if (threadIdx.x == 5)
        data[0] = 0;
}

/* The block that comes last adds what all have written. */
template <bool RELEASES, bool ACQUIRES> __global__ void last_block_adds(int *data)
{
    __shared__ int is_last;
    int *parts = data + 2;
    parts[blockIdx.x * blockDim.x + threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    if (threadIdx.x == 0) {
        if (RELEASES)
            __threadfence();
        is_last = atomicAdd(&data[0], 1) == (int)gridDim.x - 1;
        if (ACQUIRES)
            __threadfence();
    }
    __syncthreads();
    if (!is_last || threadIdx.x != 1)
        return;
    int sum = 0;
    for (unsigned int i = 0; i < gridDim.x * blockDim.x; i++)
        sum += parts[i];
    data[1] = sum;
}

/* What the order of threads decides: whoever comes last has the word. */
__global__ void last_word(int *data)
{
    *(volatile int *)&data[0] = (int)threadIdx.x;
}

/* Every lane STEP words from the next one. */
template <int STEP> __global__ void steps(int *data)
{
    __shared__ int values[WARP * STEP];
    values[threadIdx.x * STEP] = data[threadIdx.x * STEP];
    __syncthreads();
    data[threadIdx.x * STEP] = values[threadIdx.x * STEP] + 1;
}

struct row {
    const char *name;
    void (*kernel)(int *);
    int num_blocks, num_threads;
};
struct copy_row {
    const char *name;
    void (*kernel)(int *, uint4 *);
};

static const struct row ROWS[] = {
    { "barriers", turn_over<true, true>, 1, THREADS },
    { "no barrier before the reads", turn_over<false, true>, 1, THREADS },
    { "no barrier after the reads", turn_over<true, false>, 1, THREADS },
    { "halves of words", halves, 1, THREADS },
    { "all written", sum_of_some<true>, 1, THREADS },
    { "one not written", sum_of_some<false>, 1, THREADS },
    { "syncwarp", neighbours<BY_SYNC>, 1, THREADS },
    { "shuffle only", neighbours<BY_SHUFFLE>, 1, THREADS },
    { "no syncwarp", neighbours<BY_NOTHING>, 1, THREADS },
    { "syncwarp for other warps", other_warps, 1, THREADS },
    { "fragments", fragments<true>, 1, WARP },
    { "fragments without syncwarp", fragments<false>, 1, WARP },
    { "blocks write the same place", same_place, 3, THREADS },
    { "blocks read what others write", reads_of_another, 3, THREADS },
    { "blocks write their own places", own_places, 3, THREADS },
    { "blocks count", count<true>, 3, THREADS },
    { "volatile stores", count<false>, 3, THREADS },
    { "count and set", count_and_set, 1, THREADS },
    { "last block", last_block_adds<true, true>, 5, THREADS },
    { "last block without release", last_block_adds<false, true>, 5, THREADS },
    { "last block without acquire", last_block_adds<true, false>, 5, THREADS },
    { "steps of 1", steps<1>, 1, WARP },
    { "steps of 8", steps<8>, 1, WARP },
    { "last word", last_word, 1, THREADS },
};
static const struct copy_row COPY_ROWS[] = {
    { "copies", copy_rows<WAITS_AND_MEETS> },
    { "copies without barrier", copy_rows<WAITS> },
    { "copies without wait", copy_rows<MEETS> },
    { "copies with too short a wait", copy_rows<WAITS_TOO_LITTLE> },
    { "own copy without wait", copy_rows<READS_ITS_OWN> },
    { "copies over", copy_over<true> },
    { "copies over what is read", copy_over<false> },
    { "source written after the wait", copy_source<true> },
    { "source written before the wait", copy_source<false> },
};

static void need(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "race_kernels: %s\n", what);
    abort();
}

static void launch(const char *name, cudaStream_t stream, int *data, uint4 *rows)
{
    for (const struct row &r : ROWS)
        if (strcmp(r.name, name) == 0) {
            CUDA_LAUNCH(r.kernel, dim3(r.num_blocks), dim3(r.num_threads), 0, stream, data);
            return;
        }
    for (const struct copy_row &r : COPY_ROWS)
        if (strcmp(r.name, name) == 0) {
            CUDA_LAUNCH(r.kernel, dim3(1), dim3(THREADS), 0, stream, data, rows);
            return;
        }
    need(false, "no kernel has that name");
}

void race_kernels_run(const char *name, int *out)
{
    cudaStream_t stream;
    int *data;
    uint4 rows[THREADS], *rows_at;
    const size_t bytes = RACE_KERNELS_OUT * sizeof *out;
    for (unsigned int i = 0; i < THREADS; i++)
        rows[i] = make_uint4(i, 0, 0, 0);
    for (int i = 0; i < RACE_KERNELS_OUT; i++)
        out[i] = 0;
    need(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
             cudaMalloc((void **)&data, bytes) == cudaSuccess &&
             cudaMalloc((void **)&rows_at, sizeof rows) == cudaSuccess &&
             cudaMemcpyAsync(data, out, bytes, cudaMemcpyHostToDevice, stream) == cudaSuccess &&
             cudaMemcpyAsync(rows_at, rows, sizeof rows, cudaMemcpyHostToDevice, stream) ==
                 cudaSuccess,
         "set-up");
    launch(name, stream, data, rows_at);
    need(cudaGetLastError() == cudaSuccess &&
             cudaMemcpyAsync(out, data, bytes, cudaMemcpyDeviceToHost, stream) == cudaSuccess &&
             cudaStreamSynchronize(stream) == cudaSuccess && cudaFree(data) == cudaSuccess &&
             cudaFree(rows_at) == cudaSuccess && cudaStreamDestroy(stream) == cudaSuccess,
         "launch");
}
