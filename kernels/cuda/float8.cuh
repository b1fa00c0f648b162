/* float8.cuh - 8-bit floats (E4M3) on the device, bit for bit as kernels/tensor.c has them. */
#ifndef INFERD_KERNELS_CUDA_FLOAT8_CUH
#define INFERD_KERNELS_CUDA_FLOAT8_CUH

#include "kernels/cuda/common.cuh"

__device__ __forceinline__ float float_of_e4m3(uint32_t code)
{
    const uint32_t sign = (code & 0x80u) << 24, magnitude = code & 0x7fu;
    /* Moves the exponent's bias and normalises subnormals, exactly. */
    const float finite = __fmul_rn(__uint_as_float(magnitude << 20), 0x1p120f);
    return __uint_as_float(sign | (magnitude == 0x7fu ? 0x7fc00000u : __float_as_uint(finite)));
}

/* To the nearest, ties to even; beyond 448 to 448, NaN to NaN. */
__device__ __forceinline__ uint32_t e4m3_of_float(float x)
{
    const uint32_t bits = __float_as_uint(x), sign = bits >> 24 & 0x80u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return sign | 0x7fu;
    if (magnitude >= 0x43e00000u)
        return sign | 0x7eu;
    /* Subnormal: adding 2^14 lets the adder round at the place of 2^-9. */
    if (magnitude < 0x3c800000u)
        return sign |
               (__float_as_uint(__fadd_rn(__uint_as_float(magnitude), 0x1p14f)) - 0x46800000u);
    return sign | (magnitude - 0x3c000000u + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20;
}

#endif
