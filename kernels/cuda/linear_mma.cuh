/* linear_mma.cuh - the order of sums that all products on tensor cores share.
 *
 * Weights are the left matrix of an mma (16 output features), activations the right one (8 rows).
 * 32 columns make two steps. A lane takes 8 neighbouring columns of them, with one load of 16
 * bytes, and calls the first four step 0 and the others step 1: which column an mma calls which
 * does not matter as long as both matrices agree. So a warp reads whole sectors, without shared
 * memory. */
#ifndef INFERD_KERNELS_CUDA_LINEAR_MMA_CUH
#define INFERD_KERNELS_CUDA_LINEAR_MMA_CUH

#include "kernels/cuda/quant_rows.cuh"

enum { MMA_FEATURES = 16, MMA_ROWS = 8, STEPS_PER_PIECE = CUDA_SUM_PIECE / STEP_COLS };

/* sum += the products of one step; `low` and `high` are 8 columns of features lane / 4 and
 * lane / 4 + 8, `x` of row lane / 4, from column lane % 4 * 8 of the step on. */
template <typename T>
__device__ __forceinline__ void mma_step(float sum[4], const uint4 &low, const uint4 &high,
                                         const uint4 &x)
{
    const uint32_t a0[4] = { low.x, high.x, low.y, high.y }, b0[2] = { x.x, x.y };
    const uint32_t a1[4] = { low.z, high.z, low.w, high.w }, b1[2] = { x.z, x.w };
    mma_16816<T>(sum, a0, b0);
    mma_16816<T>(sum, a1, b1);
}

#endif
