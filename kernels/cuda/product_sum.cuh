/* product_sum.cuh - what the pieces of a product's sum are added up in. */
#ifndef INFERD_KERNELS_CUDA_PRODUCT_SUM_CUH
#define INFERD_KERNELS_CUDA_PRODUCT_SUM_CUH

#include "kernels/cuda/common.cuh"

/* By codec. int32_t: its pieces are whole numbers that float32 holds exactly, and so is the sum,
 * which is stored as it is, without a bias. */
template <typename C> struct product_sum {
    typedef float T;
};

__device__ __forceinline__ float finished_sum(float total, const float *bias, int32_t feature)
{
    return bias ? total + bias[feature] : total;
}
__device__ __forceinline__ float finished_sum(int32_t total, const float *, int32_t)
{
    return __uint_as_float((uint32_t)total);
}

#endif
