/* gemv.cuh - products with few rows: weights stream once, at the speed of memory.
 *
 * A block computes 16 features for a tile of rows. Its warps take pieces of CUDA_SUM_PIECE columns
 * in turn; the pieces' sums meet in shared memory and are added in rising order. */
#ifndef INFERD_KERNELS_CUDA_GEMV_CUH
#define INFERD_KERNELS_CUDA_GEMV_CUH

#include "kernels/cuda/linear_mma.cuh"
#include "kernels/cuda/product_sum.cuh"
#include "kernels/cuda/product_tile.cuh"

enum {
    GEMV_WARPS = 8,
    GEMV_PIECES_AT_ONCE = 32,
    /* Of a multiprocessor: what they read at once hides how far memory is. Of two tiles, whose sums
     * take more registers, fewer. */
    GEMV_BLOCKS = 3,
    GEMV_BLOCKS_OF_TWO = 2
};

/* The rows that a lane reads: weights of two features, activations of TILES rows. */
template <typename T, int TILES> struct gemv_rows {
    const unsigned char *low, *high;
    const T *x[TILES];
};

/* READS reads of weights from step `begin` on, C::AT_ONCE of which are under way at once; of a
 * single one, steps from `end` on are left out. */
template <typename C, int TILES, int READS, head_mode MODE>
__device__ __forceinline__ void sum_steps(float sum[TILES][4], const struct cuda_matrix &m,
                                          const struct gemv_rows<typename C::T, TILES> &rows,
                                          int32_t begin, int32_t end)
{
    enum { AT_ONCE = C::AT_ONCE < READS ? C::AT_ONCE : READS, STEPS = AT_ONCE * C::STEPS };
    const int quad = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < READS; n += AT_ONCE) {
        typename C::raw low[STEPS], high[STEPS];
#pragma unroll
        for (int i = 0; i < STEPS; i += C::STEPS) {
            C::template read<MODE>(low + i, m, rows.low, begin, n + i / C::STEPS, quad);
            C::template read<MODE>(high + i, m, rows.high, begin, n + i / C::STEPS, quad);
        }
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const int32_t step = begin + n * C::STEPS + i;
            if (READS == 1 && step >= end) /* whole pieces have all their steps */
                break;
            const uint4 l = operand<C>(m, low[i]), h = operand<C>(m, high[i]);
#pragma unroll
            for (int t = 0; t < TILES; t++)
                mma_step<typename C::T>(
                    sum[t], l, h, load_shared_by_blocks(rows.x[t] + (int64_t)step * STEP_COLS));
        }
    }
}

/* A piece, whole or what there is of it up to step `end`. */
template <typename C, int TILES>
__device__ __forceinline__ void sum_piece(float sum[TILES][4], const struct cuda_matrix &m,
                                          const struct gemv_rows<typename C::T, TILES> &rows,
                                          int32_t begin, int32_t end)
{
    enum { READS = STEPS_PER_PIECE / C::STEPS };
    if (end - begin < STEPS_PER_PIECE) {
        for (int32_t s = begin; s < end; s += C::STEPS)
            sum_steps<C, TILES, 1, HEADS_ANY>(sum, m, rows, s, end);
        return;
    }
    if constexpr (C::HEAD_MODES) {
        const enum head_mode mode = C::mode(m);
        if (mode == HEADS_ONE)
            return sum_steps<C, TILES, READS, HEADS_ONE>(sum, m, rows, begin, end);
        if (mode == HEADS_EACH)
            return sum_steps<C, TILES, READS, HEADS_EACH>(sum, m, rows, begin, end);
    }
    sum_steps<C, TILES, READS, HEADS_ANY>(sum, m, rows, begin, end);
}

/* Rows and features past the end repeat the last one, and are not stored. */
template <typename T, int TILES>
__device__ __forceinline__ struct gemv_rows<T, TILES> gemv_find_rows(const struct cuda_product &p,
                                                                     int32_t first,
                                                                     int32_t first_row) {
    const int32_t group = threadIdx.x % WARP / 4, last = p.weight.rows - 1;
    struct gemv_rows<T, TILES> rows;
    rows.low = weight_row(p.weight, first + group < last ? first + group : last);
    rows.high = weight_row(p.weight, first + group + 8 < last ? first + group + 8 : last);
    for (int t = 0; t < TILES; t++) {
        const int32_t row = first_row + t * MMA_ROWS + group;
        rows.x[t] = (const T *)p.x + (row < p.rows ? row : p.rows - 1) * p.weight.stride +
                    threadIdx.x % 4 * LANE_COLS;
    }
    return rows;
}

/* Where sum `at`, row * MMA_FEATURES + feature, lies among those of its piece; and the sum that
 * lies at `at`. The lanes that write have 4 even rows, or 4 odd ones, of 8 features: each has a
 * bank of its own this way. */
__device__ __forceinline__ int32_t
sum_place(int32_t at)
{
    enum { ROW_2 = 2 * MMA_FEATURES, ROW_4 = 4 * MMA_FEATURES };
    return at ^ (at & ROW_2) / 4 ^ (at & ROW_4) / 4;
}

/* TILES of 8 rows. */
template <typename C, int TILES>
__global__ void __launch_bounds__(GEMV_WARPS *WARP, TILES == 1 ? GEMV_BLOCKS : GEMV_BLOCKS_OF_TWO)
    gemv_kernel(struct cuda_product p)
{
    enum { SUMS = MMA_FEATURES * TILES * MMA_ROWS };
    __shared__ float sums[GEMV_PIECES_AT_ONCE][SUMS]; /* [piece], by sum_place */
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int32_t group = lane / 4, first = blockIdx.y * MMA_FEATURES;
    const int32_t first_row = take_tile(&p, blockIdx.x);
    if (first_row < 0)
        return;
    const int32_t steps = (int32_t)(p.weight.stride / STEP_COLS);
    const int32_t pieces = (steps + STEPS_PER_PIECE - 1) / STEPS_PER_PIECE;
    const struct gemv_rows<typename C::T, TILES> rows =
        gemv_find_rows<typename C::T, TILES>(p, first, first_row);
    typedef typename product_sum<C>::T sum_type;
    sum_type total = 0;
    for (int32_t begin = 0; begin < pieces; begin += GEMV_PIECES_AT_ONCE) {
        const int32_t end =
            begin + GEMV_PIECES_AT_ONCE < pieces ? begin + GEMV_PIECES_AT_ONCE : pieces;
        for (int32_t piece = begin + warp; piece < end; piece += GEMV_WARPS) {
            float sum[TILES][4] = {};
            sum_piece<C, TILES>(sum, p.weight, rows, piece * STEPS_PER_PIECE, steps);
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sums[piece - begin][sum_place(
                        (t * MMA_ROWS + lane % 4 * 2 + i % 2) * MMA_FEATURES + group + i / 2 * 8)] =
                        sum[t][i];
        }
        __syncthreads();
        if (threadIdx.x < SUMS)
            for (int32_t piece = begin; piece < end; piece++)
                total += (sum_type)sums[piece - begin][threadIdx.x];
        __syncthreads();
    }
    const int32_t at = sum_place(threadIdx.x);
    const int32_t row = first_row + at / MMA_FEATURES, feature = first + at % MMA_FEATURES;
    if (threadIdx.x < SUMS && row < p.rows && feature < p.weight.rows)
        p.out[row * p.out_stride + feature] = finished_sum(total, p.bias, feature);
}

template <typename C> static void launch_gemv(const struct cuda_product *p, cudaStream_t stream)
{
    auto *kernel = p->tile_rows <= MMA_ROWS ? gemv_kernel<C, 1> : gemv_kernel<C, 2>;
    const dim3 grid(num_tiles(p), blocks_for(p->weight.rows, MMA_FEATURES));
    CUDA_LAUNCH(kernel, grid, dim3(GEMV_WARPS * WARP), 0, stream, *p);
}

#endif
