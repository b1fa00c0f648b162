/* logit_order.cuh - the order of a row of logits that sampling.cu and logprobs.cu share. */
#ifndef INFERD_KERNELS_CUDA_LOGIT_ORDER_CUH
#define INFERD_KERNELS_CUDA_LOGIT_ORDER_CUH

#include "kernels/cuda/common.cuh"

enum { ROW_WARPS = 16, ROW_THREADS = ROW_WARPS * WARP }; /* one block per row */

/* Floats as integers in the same order; both zeros are one. */
__device__ __forceinline__ uint32_t order_key(float x)
{
    const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct greater_op {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const
    {
        return a > b ? a : b;
    }
};
struct less_op {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const
    {
        return a < b ? a : b;
    }
};

/* The greatest of a row; NaN when there is any NaN. */
__device__ __forceinline__ float row_max(const float *x, int32_t count)
{
    float max = -INFINITY;
    for (int32_t i = threadIdx.x; i < count; i += ROW_THREADS)
        max = max_op()(max, x[i]);
    return block_reduce<ROW_WARPS>(max, max_op());
}

#endif
