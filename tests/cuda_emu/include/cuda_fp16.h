/* cuda_fp16.h - float16 on the host; see cuda_runtime.h. */
#ifndef INFERD_TESTS_CUDA_EMU_CUDA_FP16_H
#define INFERD_TESTS_CUDA_EMU_CUDA_FP16_H

#include <cstdint>

extern "C" {
#include "kernels/tensor.h"
}

struct __half {
    uint16_t bits;
};

static inline float emu_float(__half x)
{
    return f16_to_f32(x.bits);
}
static inline float __half2float(__half x)
{
    return emu_float(x);
}
static inline __half __float2half_rn(float value)
{
    return { f16_from_f32(value) };
}

#endif
