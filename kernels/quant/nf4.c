/* nf4.c - bitsandbytes' NormalFloat with 4 bits: 16 values between -1 and 1, of which a block's
 * greatest magnitude is a multiple. The values are those of Dettmers et al., 2023
 * (arXiv:2305.14314, appendix E). */
#include "kernels/quant/nf4.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

const float nf4_values[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

static void dequantize(const struct quant_format *f, float *dst, const void *row, int64_t begin,
                       int64_t count)
{
    uint16_t rounded[QUANT_MAX_BLOCK];
    for (int64_t done = 0; done < count; done += f->block_elements) {
        int64_t n = count - done < f->block_elements ? count - done : f->block_elements;
        const unsigned char *block = quant_block_at(f, row, begin + done);
        float scale;
        memcpy(&scale, block, sizeof scale);
        for (int64_t i = 0; i < n; i++) {
            unsigned char two = block[sizeof scale + (size_t)(i / 2)];
            dst[done + i] = nf4_values[i % 2 == 0 ? two >> 4 : two & 15] * scale;
        }
        if (f->dtype == DTYPE_F32)
            continue;
        dtype_convert(rounded, f->dtype, dst + done, DTYPE_F32, (size_t)n);
        dtype_convert(dst + done, DTYPE_F32, rounded, f->dtype, (size_t)n);
    }
}

struct quant_format nf4_format(int32_t block_size, enum dtype dtype)
{
    struct quant_format f = { .block_elements = block_size,
                              .block_bytes = (int32_t)sizeof(float) + block_size / 2,
                              .dtype = dtype,
                              .dequantize = dequantize,
                              .bits = 4 };
    assert(block_size >= 2 && block_size % 2 == 0 && block_size <= QUANT_MAX_BLOCK);
    snprintf(f.name, sizeof f.name, "nf4_g%d_%s", block_size, dtype_name(dtype));
    return f;
}
