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

/* Two neighbours as float16, exactly. Only of words that e4m3_pairs_are_right() takes. */
__device__ __forceinline__ uint32_t e4m3_pair(uint32_t word, int32_t which)
{
#ifdef INFERD_E4M3_CONVERSION
    return f16_pair_of_e4m3(which ? word >> 16 : word);
#else
    const uint32_t high = __byte_perm(word, 0, which ? 0x3424 : 0x1404);
    const uint32_t bits = (high & 0x80008000u) | (high & 0x7f007f00u) >> 1;
    /* 2^8: the exponents' biases are 7 and 15. -0 keeps the sign of a zero. */
    return fma_pair<f16>(bits, 0x5c005c00u, 0x80008000u);
#endif
}

/* Whether e4m3_pair may be asked for this word's codes. */
__device__ __forceinline__ bool e4m3_pairs_are_right(uint32_t word)
{
#ifdef INFERD_E4M3_CONVERSION
    return true;
#else
    return (((word & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u) == 0;
#endif
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
