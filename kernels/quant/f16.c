/* f16.c - the plain float16 format. */
#include "kernels/quant/quant_format.h"

static void dequantize(const struct quant_format *f, float *dst, const void *row, int64_t begin,
                       int64_t count)
{
    dtype_convert(dst, DTYPE_F32, quant_block_at(f, row, begin), DTYPE_F16, (size_t)count);
}

static void quantize(const struct quant_format *f, void *row, const float *src, int64_t count)
{
    (void)f;
    dtype_convert(row, DTYPE_F16, src, DTYPE_F32, (size_t)count);
}

const struct quant_format quant_format_float16 = {
    .name = "float16",
    .block_elements = 1,
    .block_bytes = 2,
    .dtype = DTYPE_F16,
    .dequantize = dequantize,
    .quantize = quantize,
};
