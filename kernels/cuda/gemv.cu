/* gemv.cu - products with few rows: weights stream once, at the speed of memory.
 *
 * A block computes 16 features for all rows. Its warps take pieces of CUDA_SUM_PIECE columns in
 * turn; the pieces' sums meet in shared memory and are added in rising order. */
#include "kernels/cuda/linear_mma.cuh"

enum { WARPS = 8, PIECES_AT_ONCE = 32 };

/* Steps [begin, begin + STEPS), all of whose loads may be under way at once. */
template <typename T, int TILES, int STEPS>
__device__ __forceinline__ void sum_steps(float sum[TILES][4], const T *low, const T *high,
                                          const T *const x[TILES], int32_t begin)
{
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const int64_t k = (int64_t)(begin + s) * STEP_COLS;
        const uint4 l = load_once(low + k), h = load_once(high + k);
#pragma unroll
        for (int t = 0; t < TILES; t++)
            mma_step<T>(sum[t], l, h, *(const uint4 *)(x[t] + k));
    }
}

/* TILES of 8 rows. */
template <typename T, int TILES>
__global__ void __launch_bounds__(WARPS *WARP) gemv_kernel(struct cuda_product p)
{
    enum { ROWS = TILES * MMA_ROWS, SUMS = MMA_FEATURES * ROWS };
    __shared__ float sums[PIECES_AT_ONCE][SUMS]; /* [piece][row][feature] */
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int32_t group = lane / 4, first = blockIdx.x * MMA_FEATURES;
    const int32_t last = p.weight.rows - 1, offset = lane % 4 * 8;
    const int32_t steps = (int32_t)(p.weight.stride / STEP_COLS);
    const int32_t pieces = (steps + STEPS_PER_PIECE - 1) / STEPS_PER_PIECE;
    /* Rows and features past the end repeat the last one, and are not stored. */
    const T *low = (const T *)p.weight.data +
                   (first + group < last ? first + group : last) * p.weight.stride + offset;
    const T *high = (const T *)p.weight.data +
                    (first + group + 8 < last ? first + group + 8 : last) * p.weight.stride +
                    offset;
    const T *x[TILES];
    for (int t = 0; t < TILES; t++) {
        const int32_t row = t * MMA_ROWS + group;
        x[t] = (const T *)p.x + (row < p.rows ? row : p.rows - 1) * p.weight.stride + offset;
    }
    float total = 0;
    for (int32_t begin = 0; begin < pieces; begin += PIECES_AT_ONCE) {
        const int32_t end = begin + PIECES_AT_ONCE < pieces ? begin + PIECES_AT_ONCE : pieces;
        for (int32_t piece = begin + warp; piece < end; piece += WARPS) {
            float sum[TILES][4] = {};
            const int32_t step = piece * STEPS_PER_PIECE;
            if (steps - step >= STEPS_PER_PIECE)
                sum_steps<T, TILES, STEPS_PER_PIECE>(sum, low, high, x, step);
            else
                for (int32_t s = step; s < steps; s++)
                    sum_steps<T, TILES, 1>(sum, low, high, x, s);
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sums[piece - begin][(t * MMA_ROWS + lane % 4 * 2 + i % 2) * MMA_FEATURES +
                                        group + i / 2 * 8] = sum[t][i];
        }
        __syncthreads();
        if (threadIdx.x < SUMS)
            for (int32_t piece = begin; piece < end; piece++)
                total += sums[piece - begin][threadIdx.x];
        __syncthreads();
    }
    const int32_t row = threadIdx.x / MMA_FEATURES, feature = first + threadIdx.x % MMA_FEATURES;
    if (threadIdx.x < SUMS && row < p.rows && feature <= last)
        p.out[row * p.out_stride + feature] = p.bias ? total + p.bias[feature] : total;
}

template <typename T> static void launch(const struct cuda_product *p, cudaStream_t stream)
{
    auto *kernel = p->rows <= MMA_ROWS ? gemv_kernel<T, 1> : gemv_kernel<T, 2>;
    CUDA_LAUNCH(kernel, dim3(blocks_for(p->weight.rows, MMA_FEATURES)), dim3(WARPS * WARP), 0,
                stream, *p);
}

extern "C" void cuda_launch_gemv(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->rows <= 0)
        return;
    if (p->weight.dtype == DTYPE_BF16)
        launch<bf16>(p, stream);
    else
        launch<f16>(p, stream);
}
