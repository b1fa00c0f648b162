/* nf4.c - bitsandbytes' NormalFloat with 4 bits. */
#include "kernels/quant/nf4.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

const float nf4_values[16] = NF4_VALUES;

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
