/* linear_dense.cu - products with many rows: tiles of weights and activations in shared memory,
 * several loads ahead, tensor cores. The sums are those of gemv.cu, bit for bit. */
#include "kernels/cuda/linear_mma.cuh"

enum { WARPS = 8, STAGES = 4 };

/* A block's tile, and how its warps share it. */
template <int FEATURES_, int ROWS_, int WARPS_ALONG_FEATURES> struct tile {
    enum {
        FEATURES = FEATURES_,
        ROWS = ROWS_,
        ALONG_FEATURES = WARPS_ALONG_FEATURES,
        WARP_FEATURES = FEATURES_ / WARPS_ALONG_FEATURES,
        WARP_ROWS = ROWS_ / (WARPS / WARPS_ALONG_FEATURES),
        NUM_A = WARP_FEATURES / MMA_FEATURES, /* mma tiles of a warp */
        NUM_B = WARP_ROWS / MMA_ROWS,
        STAGE_ROWS = FEATURES_ + ROWS_, /* weights, then activations, STEP_COLS each */
        /* A step of a row is 64 bytes: two rows fill all banks, so nothing needs padding. */
        SHARED_BYTES = STAGES * STAGE_ROWS * STEP_COLS * 2
    };
};
typedef tile<128, 128, 2> large_tile;
typedef tile<64, 32, 4> small_tile;

/* Step `s` of the tile's rows into one stage. */
template <typename T, typename TILE>
__device__ __forceinline__ void load_stage(T *stage, const struct cuda_product &p, int32_t feature,
                                           int32_t row, int32_t s)
{
    enum { PIECES = TILE::STAGE_ROWS * 4 }; /* of 16 bytes */
#pragma unroll
    for (int i = threadIdx.x; i < PIECES; i += WARPS * WARP) {
        const int32_t r = i / 4;
        const bool is_weight = r < TILE::FEATURES;
        const int32_t at = is_weight ? feature + r : row + r - TILE::FEATURES;
        const bool valid = at < (is_weight ? p.weight.rows : p.rows);
        const T *from = (const T *)(is_weight ? p.weight.data : p.x) +
                        (valid ? at : 0) * p.weight.stride + (int64_t)s * STEP_COLS + i % 4 * 8;
        cp_async_16(stage + r * STEP_COLS + i % 4 * 8, from, valid);
    }
}

template <typename T, typename TILE>
__global__ void __launch_bounds__(WARPS *WARP) dense_kernel(struct cuda_product p)
{
    DYNAMIC_SHARED(shared);
    T *stages = (T *)shared;
    enum { STAGE = TILE::STAGE_ROWS * STEP_COLS };
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int32_t group = lane / 4, offset = lane % 4 * 8;
    const int32_t feature = blockIdx.y * TILE::FEATURES, row = blockIdx.x * TILE::ROWS;
    const int32_t warp_feature = warp % TILE::ALONG_FEATURES * TILE::WARP_FEATURES;
    const int32_t warp_row = warp / TILE::ALONG_FEATURES * TILE::WARP_ROWS;
    const int32_t steps = (int32_t)(p.weight.stride / STEP_COLS);
    float sum[TILE::NUM_A][TILE::NUM_B][4] = {}, total[TILE::NUM_A][TILE::NUM_B][4] = {};
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps)
            load_stage<T, TILE>(stages + s * STAGE, p, feature, row, s);
        cp_async_commit();
    }
    for (int32_t s = 0; s < steps; s++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads(); /* the step is there, and nobody reads the stage that is filled next */
        if (s + STAGES - 1 < steps)
            load_stage<T, TILE>(stages + (s + STAGES - 1) % STAGES * STAGE, p, feature, row,
                                s + STAGES - 1);
        cp_async_commit();
        const T *a = stages + s % STAGES * STAGE + (warp_feature + group) * STEP_COLS + offset;
        const T *b =
            stages + s % STAGES * STAGE + (TILE::FEATURES + warp_row + group) * STEP_COLS + offset;
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
        if ((s + 1) % STEPS_PER_PIECE == 0 || s + 1 == steps) {
#pragma unroll
            for (int i = 0; i < TILE::NUM_A * TILE::NUM_B * 4; i++) {
                (&total[0][0][0])[i] += (&sum[0][0][0])[i];
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
                    p.out[r * p.out_stride + f] =
                        p.bias ? total[i][j][e] + p.bias[f] : total[i][j][e];
            }
        }
    }
}

template <typename T, typename TILE>
static void launch(const struct cuda_product *p, cudaStream_t stream)
{
    auto *kernel = dense_kernel<T, TILE>;
    /* Blocks that follow one another share weights, which are the larger part. */
    const dim3 grid(blocks_for(p->rows, TILE::ROWS), blocks_for(p->weight.rows, TILE::FEATURES));
    if (cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             TILE::SHARED_BYTES) == cudaSuccess)
        CUDA_LAUNCH(kernel, grid, dim3(WARPS * WARP), TILE::SHARED_BYTES, stream, *p);
}

template <typename T> static void launch_any(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->rows <= 4 * small_tile::ROWS)
        launch<T, small_tile>(p, stream);
    else
        launch<T, large_tile>(p, stream);
}

extern "C" void cuda_launch_linear_dense(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->rows <= 0)
        return;
    if (p->weight.dtype == DTYPE_BF16)
        launch_any<bf16>(p, stream);
    else
        launch_any<f16>(p, stream);
}
