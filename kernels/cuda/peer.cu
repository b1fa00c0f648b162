/* peer.cu - collectives of GPUs that read each other's memory, for messages so small that the way
 * there and back is what they cost.
 *
 * Each rank lays its rows into a buffer of its own, says so to all others, waits until they have
 * said the same, and reads what it wants from all, in the order of the ranks: so every rank
 * computes the same bits. Block b of a rank meets block b of the others, and the parts of a message
 * that it writes are those that theirs read; therefore all launches have the same blocks. A buffer
 * has two halves, taken in turns: who writes a half has met the others in the turn before, so
 * nobody reads what the half held. Turns are counted in device memory, so that a launch can be part
 * of a graph. */
#include "kernels/cuda/common.cuh"

enum { PEER_THREADS = 256, SUM_THREADS = 256 };

/* False when the ranks' work was called off. */
__device__ __forceinline__ bool meet_peers(const struct cuda_peers &p, uint32_t turn)
{
    __shared__ int32_t called_off;
    if (threadIdx.x == 0)
        called_off = 0;
    __syncthreads(); /* and what this block laid down is there */
    if ((int32_t)threadIdx.x < p.size) {
        const uint32_t *theirs = &p.flags[p.rank]->arrived[blockIdx.x][threadIdx.x];
        store_release_system(&p.flags[threadIdx.x]->arrived[blockIdx.x][p.rank], turn);
        while ((int32_t)(load_acquire_system(theirs) - turn) < 0) {
            if (load_acquire_system(p.called_off)) {
                atomicOr(&called_off, 1);
                break;
            }
            wait_for_peers();
        }
    }
    __syncthreads();
    return called_off == 0;
}

/* W neighbours at once. */
template <int W> __device__ __forceinline__ void read_floats(float v[W], const float *at);
template <> __device__ __forceinline__ void read_floats<1>(float v[1], const float *at)
{
    v[0] = at[0];
}
template <> __device__ __forceinline__ void read_floats<4>(float v[4], const float *at)
{
    const float4 all = *(const float4 *)at;
    v[0] = all.x;
    v[1] = all.y;
    v[2] = all.z;
    v[3] = all.w;
}
template <int W> __device__ __forceinline__ void write_floats(float *at, const float v[W]);
template <> __device__ __forceinline__ void write_floats<1>(float *at, const float v[1])
{
    at[0] = v[0];
}
template <> __device__ __forceinline__ void write_floats<4>(float *at, const float v[4])
{
    *(float4 *)at = make_float4(v[0], v[1], v[2], v[3]);
}

/* One rank's part in a turn. */
struct peer_turn {
    uint32_t number;
    int64_t half;        /* where the turn's half of every buffer begins, in floats */
    int64_t count;       /* elements of the message */
    int64_t first, step; /* this thread's */
};

template <int W>
__device__ __forceinline__ struct peer_turn begin_turn(const struct cuda_peers &p,
                                                       const struct tensor &x)
{
    struct peer_turn t;
    t.number = p.flags[p.rank]->turn[blockIdx.x] + 1;
    t.half = (int64_t)(t.number % 2) * CUDA_PEER_FLOATS;
    t.count = (int64_t)x.rows * x.cols;
    t.first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    t.step = (int64_t)gridDim.x * blockDim.x * W;
    return t;
}

__device__ __forceinline__ void end_turn(const struct cuda_peers &p, const struct peer_turn &t)
{
    if (threadIdx.x == 0)
        p.flags[p.rank]->turn[blockIdx.x] = t.number;
}

__device__ __forceinline__ float *element_at(const struct tensor &x, int64_t i)
{
    return (float *)x.data + i / x.cols * x.stride + i % x.cols;
}

template <int W>
__device__ __forceinline__ void lay_down(const struct cuda_peers &p, const struct peer_turn &t,
                                         const struct tensor &x)
{
    for (int64_t i = t.first; i < t.count; i += t.step) {
        float v[W];
        read_floats<W>(v, element_at(x, i));
        write_floats<W>(p.staging[p.rank] + t.half + i, v);
    }
}

template <int W> __global__ void peer_all_reduce_kernel(struct cuda_peers peers, struct tensor x)
{
    const struct peer_turn t = begin_turn<W>(peers, x);
    lay_down<W>(peers, t, x);
    if (!meet_peers(peers, t.number))
        return;
    for (int64_t i = t.first; i < t.count; i += t.step) {
        float sum[W], v[W];
        read_floats<W>(sum, peers.staging[0] + t.half + i);
        for (int32_t r = 1; r < peers.size; r++) {
            read_floats<W>(v, peers.staging[r] + t.half + i);
            for (int j = 0; j < W; j++)
                sum[j] = __fadd_rn(sum[j], v[j]);
        }
        write_floats<W>(element_at(x, i), sum);
    }
    end_turn(peers, t);
}

template <int W>
__global__ void peer_all_gather_kernel(struct cuda_peers peers, struct tensor out, struct tensor x,
                                       int32_t rank_cols)
{
    const struct peer_turn t = begin_turn<W>(peers, x);
    lay_down<W>(peers, t, x);
    if (!meet_peers(peers, t.number))
        return;
    for (int64_t i = t.first; i < t.count; i += t.step)
        for (int32_t r = 0; r < peers.size; r++) {
            float v[W];
            read_floats<W>(v, peers.staging[r] + t.half + i);
            write_floats<W>((float *)out.data + i / x.cols * out.stride + (int64_t)r * rank_cols +
                                i % x.cols,
                            v);
        }
    end_turn(peers, t);
}

__global__ void peer_broadcast_kernel(struct cuda_peers peers, unsigned char *data, int32_t bytes,
                                      int32_t root)
{
    const struct tensor message = { data, DTYPE_I8, 1, bytes, bytes };
    const struct peer_turn t = begin_turn<1>(peers, message);
    unsigned char *staged = (unsigned char *)(peers.staging[root] + t.half);
    for (int64_t i = t.first; peers.rank == root && i < bytes; i += t.step)
        staged[i] = data[i];
    if (!meet_peers(peers, t.number))
        return;
    for (int64_t i = t.first; peers.rank != root && i < bytes; i += t.step)
        data[i] = staged[i];
    end_turn(peers, t);
}

__global__ void sum_parts_kernel(float *out, const float *parts, int64_t count, int32_t num_parts)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        float sum = parts[i];
        for (int32_t r = 1; r < num_parts; r++)
            sum = __fadd_rn(sum, parts[r * count + i]);
        out[i] = sum;
    }
}

static bool in_fours(const struct tensor *x)
{
    return x->cols % 4 == 0 && x->stride % 4 == 0 && (uintptr_t)x->data % 16 == 0;
}

extern "C" void cuda_launch_peer_all_reduce(const struct cuda_peers *peers, const struct tensor *x,
                                            cudaStream_t stream)
{
    auto *kernel = in_fours(x) ? peer_all_reduce_kernel<4> : peer_all_reduce_kernel<1>;
    CUDA_LAUNCH(kernel, dim3(CUDA_PEER_BLOCKS), dim3(PEER_THREADS), 0, stream, *peers, *x);
}

extern "C" void cuda_launch_peer_all_gather(const struct cuda_peers *peers,
                                            const struct tensor *out, const struct tensor *x,
                                            int32_t rank_cols, cudaStream_t stream)
{
    const bool fours =
        in_fours(x) && out->stride % 4 == 0 && rank_cols % 4 == 0 && (uintptr_t)out->data % 16 == 0;
    auto *kernel = fours ? peer_all_gather_kernel<4> : peer_all_gather_kernel<1>;
    CUDA_LAUNCH(kernel, dim3(CUDA_PEER_BLOCKS), dim3(PEER_THREADS), 0, stream, *peers, *out, *x,
                rank_cols);
}

extern "C" void cuda_launch_peer_broadcast(const struct cuda_peers *peers, void *data,
                                           int32_t bytes, int32_t root, cudaStream_t stream)
{
    CUDA_LAUNCH(peer_broadcast_kernel, dim3(CUDA_PEER_BLOCKS), dim3(PEER_THREADS), 0, stream,
                *peers, (unsigned char *)data, bytes, root);
}

extern "C" void cuda_launch_sum_parts(float *out, const float *parts, int64_t count,
                                      int32_t num_parts, cudaStream_t stream)
{
    const int32_t blocks = (int32_t)((count + SUM_THREADS - 1) / SUM_THREADS);
    if (count > 0)
        CUDA_LAUNCH(sum_parts_kernel, dim3(blocks < 1024 ? blocks : 1024), dim3(SUM_THREADS), 0,
                    stream, out, parts, count, num_parts);
}
