/* quantize.cuh - activations as 8-bit codes, element by element; kernels/quant/input_quant.c has
 * the arithmetic in plain C. */
#ifndef INFERD_KERNELS_CUDA_QUANTIZE_CUH
#define INFERD_KERNELS_CUDA_QUANTIZE_CUH

#include "kernels/cuda/float8.cuh"

/* The scale of a row whose greatest magnitude is `most`. */
template <bool FP8> __device__ __forceinline__ float scale_of(float most)
{
    const float scale = __fdiv_rn(most, FP8 ? 448.0f : 127.0f);
    if (!(most < INFINITY))
        return __uint_as_float(0x7fc00000u);
    return scale > 0 ? scale : 1.0f;
}

template <bool FP8> __device__ __forceinline__ uint32_t code_of(float x, float scale)
{
    const float ratio = __fdiv_rn(x, scale);
    if (FP8)
        return e4m3_of_float(ratio);
    const float code = rintf(ratio);
    const float held = code > 127 ? 127.0f : code < -127 ? -127.0f : code;
    return (uint32_t)(held == held ? (int32_t)held : 0) & 255u;
}

template <bool FP8> __device__ __forceinline__ bf16 wide_code(uint32_t code)
{
    return __float2bfloat16_rn(FP8 ? float_of_e4m3(code) : (float)(int32_t)(signed char)code);
}

template <bool PACKED>
__device__ __forceinline__ char *code_row(const struct cuda_codes &dst, int64_t row)
{
    return (char *)dst.codes + row * dst.stride * (PACKED ? 1 : sizeof(bf16));
}

/* Where packed columns [col, col + 8) lie, col being a multiple of 8. */
__device__ __forceinline__ int32_t packed_place(int32_t col)
{
    const int32_t step = col / CUDA_STEP_COLS, quad = col % CUDA_STEP_COLS / 8;
    return step / 2 * CUDA_CODE_CHUNK + quad * 16 + step % 2 * 8;
}

#endif
