/* float32.c - the plain float32 format. */
#include "kernels/quant/quant_format.h"

static void dequantize_row(float *dst, const void *src, int64_t count)
{
    dtype_convert(dst, DTYPE_F32, src, DTYPE_F32, (size_t)count);
}

static void quantize_row(void *dst, const float *src, int64_t count)
{
    dtype_convert(dst, DTYPE_F32, src, DTYPE_F32, (size_t)count);
}

const struct quant_format quant_format_float32 = {
    .name = "float32",
    .block_elements = 1,
    .block_bytes = 4,
    .dtype = DTYPE_F32,
    .dequantize_row = dequantize_row,
    .quantize_row = quantize_row,
};
