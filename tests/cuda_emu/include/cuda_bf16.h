/* cuda_bf16.h - bfloat16 on the host; see cuda_runtime.h. */
#ifndef INFERD_TESTS_CUDA_EMU_CUDA_BF16_H
#define INFERD_TESTS_CUDA_EMU_CUDA_BF16_H

#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
    uint16_t bits;
};

static inline float emu_float(__nv_bfloat16 x)
{
    uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline float __bfloat162float(__nv_bfloat16 x)
{
    return emu_float(x);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return { 0x7fff };
    return { (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16) };
}

#endif
