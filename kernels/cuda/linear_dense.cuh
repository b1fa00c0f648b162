/* linear_dense.cuh - products with many rows: tiles of weights and activations in shared memory,
 * several loads ahead, tensor cores. Quantized weights are dequantized on their way there, so that
 * one read of a weight serves all rows of the tile. The sums are those of gemv.cuh, bit for bit. */
#ifndef INFERD_KERNELS_CUDA_LINEAR_DENSE_CUH
#define INFERD_KERNELS_CUDA_LINEAR_DENSE_CUH

#include "kernels/cuda/linear_mma.cuh"
#include "kernels/cuda/product_sum.cuh"
#include "kernels/cuda/product_tile.cuh"

enum { DENSE_WARPS = 8, DENSE_STAGES = 4 };

/* A block's tile, and how its warps share it. */
template <int FEATURES_, int ROWS_, int WARPS_ALONG_FEATURES> struct tile {
    enum {
        FEATURES = FEATURES_,
        ROWS = ROWS_,
        ALONG_FEATURES = WARPS_ALONG_FEATURES,
        WARP_FEATURES = FEATURES_ / WARPS_ALONG_FEATURES,
        WARP_ROWS = ROWS_ / (DENSE_WARPS / WARPS_ALONG_FEATURES),
        NUM_A = WARP_FEATURES / MMA_FEATURES, /* mma tiles of a warp */
        NUM_B = WARP_ROWS / MMA_ROWS,
        STAGE_ROWS = FEATURES_ + ROWS_, /* weights, then activations, STEP_COLS each */
        /* A step of a row is 64 bytes: two rows fill all banks, so nothing needs padding. */
        SHARED_BYTES = DENSE_STAGES * STAGE_ROWS * STEP_COLS * 2
    };
};
typedef tile<128, 128, 2> large_tile;
typedef tile<64, 32, 4> small_tile;

/* What a thread brings of a step's weights: pieces of 8 columns, read early and stored late, so
 * that a product runs while they are on their way. */
template <typename C, typename TILE> struct staged_weights {
    enum { PIECES = TILE::FEATURES * 4 / (DENSE_WARPS * WARP) };
    typename C::raw pieces[PIECES];
};

template <typename C, typename TILE>
__device__ __forceinline__ void read_weights(struct staged_weights<C, TILE> *w,
                                             const struct cuda_matrix &m, int32_t feature,
                                             int32_t s)
{
#pragma unroll
    for (int n = 0; n < staged_weights<C, TILE>::PIECES; n++) {
        const int32_t i = threadIdx.x + n * DENSE_WARPS * WARP, at = feature + i / 4;
        w->pieces[n] = C::read_one(m, weight_row(m, at < m.rows ? at : m.rows - 1), s, i % 4);
    }
}

template <typename C, typename TILE>
__device__ __forceinline__ void store_weights(typename C::T *stage,
                                              const struct staged_weights<C, TILE> &w,
                                              const struct cuda_matrix &m)
{
#pragma unroll
    for (int n = 0; n < staged_weights<C, TILE>::PIECES; n++) {
        const int32_t i = threadIdx.x + n * DENSE_WARPS * WARP;
        *(uint4 *)(stage + i / 4 * STEP_COLS + i % 4 * LANE_COLS) = operand<C>(m, w.pieces[n]);
    }
}

/* Step `s` of rows that memory holds as T, past the registers: weights, if they are, and
 * activations behind them. */
template <typename C, typename TILE>
__device__ __forceinline__ void copy_stage(typename C::T *stage, const struct cuda_product &p,
                                           int32_t feature, int32_t row, int32_t s)
{
    typedef typename C::T T;
    enum { PIECES = TILE::STAGE_ROWS * 4 }; /* of 16 bytes */
#pragma unroll
    for (int i = threadIdx.x + (C::PLAIN ? 0 : TILE::FEATURES * 4); i < PIECES;
         i += DENSE_WARPS * WARP) {
        const int32_t r = i / 4;
        const bool is_weight = r < TILE::FEATURES;
        const int32_t at = is_weight ? feature + r : row + r - TILE::FEATURES;
        const bool valid = at < (is_weight ? p.weight.rows : p.rows);
        const T *from = (const T *)(is_weight ? p.weight.data : p.x) +
                        (valid ? at : 0) * p.weight.stride + (int64_t)s * STEP_COLS +
                        i % 4 * LANE_COLS;
        cp_async_16(stage + r * STEP_COLS + i % 4 * LANE_COLS, from, valid);
    }
}

/* The mma of one step, by a warp: `a` and `b` are its rows of weights and of activations. */
template <typename T, typename TILE>
__device__ __forceinline__ void multiply_stage(float sum[TILE::NUM_A][TILE::NUM_B][4], const T *a,
                                               const T *b)
{
    uint4 x[TILE::NUM_B];
#pragma unroll
    for (int j = 0; j < TILE::NUM_B; j++)
        x[j] = *(const uint4 *)(b + j * MMA_ROWS * STEP_COLS);
#pragma unroll
    for (int i = 0; i < TILE::NUM_A; i++) {
        const uint4 low = *(const uint4 *)(a + i * MMA_FEATURES * STEP_COLS);
        const uint4 high = *(const uint4 *)(a + (i * MMA_FEATURES + 8) * STEP_COLS);
#pragma unroll
        for (int j = 0; j < TILE::NUM_B; j++)
            mma_step<T>(sum[i][j], low, high, x[j]);
    }
}

template <typename C, typename TILE>
__global__ void __launch_bounds__(DENSE_WARPS *WARP) dense_kernel(struct cuda_product p)
{
    DYNAMIC_SHARED(shared);
    typedef typename C::T T;
    T *stages = (T *)shared;
    enum { STAGE = TILE::STAGE_ROWS * STEP_COLS };
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int32_t group = lane / 4, offset = lane % 4 * LANE_COLS;
    const int32_t feature = blockIdx.y * TILE::FEATURES, row = take_tile(&p, blockIdx.x);
    if (row < 0)
        return;
    const int32_t warp_feature = warp % TILE::ALONG_FEATURES * TILE::WARP_FEATURES;
    const int32_t warp_row = warp / TILE::ALONG_FEATURES * TILE::WARP_ROWS;
    const int32_t steps = (int32_t)(p.weight.stride / STEP_COLS);
    typedef typename product_sum<C>::T sum_type;
    float sum[TILE::NUM_A][TILE::NUM_B][4] = {};
    sum_type total[TILE::NUM_A][TILE::NUM_B][4] = {};
    struct staged_weights<C, TILE> weights = {
    };
    for (int s = 0; s < DENSE_STAGES - 1; s++) {
        if (s < steps) {
            copy_stage<C, TILE>(stages + s * STAGE, p, feature, row, s);
            if constexpr (!C::PLAIN) {
                read_weights<C, TILE>(&weights, p.weight, feature, s);
                store_weights<C, TILE>(stages + s * STAGE, weights, p.weight);
            }
        }
        cp_async_commit();
    }
    for (int32_t s = 0; s < steps; s++) {
        cp_async_wait<DENSE_STAGES - 2>();
        __syncthreads(); /* the step is there, and nobody reads the stage that is filled next */
        const int32_t ahead = s + DENSE_STAGES - 1;
        T *next = stages + ahead % DENSE_STAGES * STAGE;
        if (ahead < steps) {
            copy_stage<C, TILE>(next, p, feature, row, ahead);
            if constexpr (!C::PLAIN)
                read_weights<C, TILE>(&weights, p.weight, feature, ahead);
        }
        cp_async_commit();
        const T *a = stages + s % DENSE_STAGES * STAGE + group * STEP_COLS + offset;
        multiply_stage<T, TILE>(sum, a + warp_feature * STEP_COLS,
                                a + (TILE::FEATURES + warp_row) * STEP_COLS);
        if constexpr (!C::PLAIN)
            if (ahead < steps)
                store_weights<C, TILE>(next, weights, p.weight);
        if ((s + 1) % STEPS_PER_PIECE == 0 || s + 1 == steps) {
#pragma unroll
            for (int i = 0; i < TILE::NUM_A * TILE::NUM_B * 4; i++) {
                (&total[0][0][0])[i] += (sum_type)(&sum[0][0][0])[i];
                (&sum[0][0][0])[i] = 0;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < TILE::NUM_A; i++) {
#pragma unroll
        for (int j = 0; j < TILE::NUM_B; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int32_t f = feature + warp_feature + i * MMA_FEATURES + group + e / 2 * 8;
                const int32_t r = row + warp_row + j * MMA_ROWS + lane % 4 * 2 + e % 2;
                if (f < p.weight.rows && r < p.rows)
                    p.out[r * p.out_stride + f] = finished_sum(total[i][j][e], p.bias, f);
            }
        }
    }
}

template <typename C, typename TILE>
static void launch_tiles(const struct cuda_product *p, cudaStream_t stream)
{
    auto *kernel = dense_kernel<C, TILE>;
    const dim3 grid(num_tiles(p), blocks_for(p->weight.rows, TILE::FEATURES));
    if (cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             TILE::SHARED_BYTES) == cudaSuccess)
        CUDA_LAUNCH(kernel, grid, dim3(DENSE_WARPS * WARP), TILE::SHARED_BYTES, stream, *p);
}

template <typename C> static void launch_dense(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->tile_rows == small_tile::ROWS)
        launch_tiles<C, small_tile>(p, stream);
    else
        launch_tiles<C, large_tile>(p, stream);
}

#endif
