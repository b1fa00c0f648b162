/* activation.cuh - the functions of enum activation. */
#ifndef INFERD_KERNELS_CUDA_ACTIVATION_CUH
#define INFERD_KERNELS_CUDA_ACTIVATION_CUH

#include "kernels/cuda/common.cuh"
#include "kernels/weight.h"

template <enum activation ACT> __device__ __forceinline__ float activate(float x)
{
    if (ACT == ACT_SILU)
        return x / (1.0f + expf(-x));
    if (ACT == ACT_GELU)
        return 0.5f * x * erfcf(-x * 0.70710678f);
    if (ACT == ACT_GELU_TANH)
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    if (ACT == ACT_RELU)
        return x > 0 || x != x ? x : 0;
    x = x > SWIGLU_OAI_LIMIT ? SWIGLU_OAI_LIMIT : x;
    return x / (1.0f + expf(-SWIGLU_OAI_ALPHA * x));
}

/* What an activated gate is multiplied with. */
template <enum activation ACT> __device__ __forceinline__ float gated(float up)
{
    if (ACT != ACT_SWIGLU_OAI)
        return up;
    up = up > SWIGLU_OAI_LIMIT ? SWIGLU_OAI_LIMIT : up;
    return (up < -SWIGLU_OAI_LIMIT ? -SWIGLU_OAI_LIMIT : up) + 1.0f;
}

#endif
