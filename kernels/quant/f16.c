/* f16.c - the plain float16 format. */
#include "kernels/quant/quant_format.h"

static void dequantize_row(float *dst, const void *src, int64_t count)
{
    dtype_convert(dst, DTYPE_F32, src, DTYPE_F16, (size_t)count);
}

static void quantize_row(void *dst, const float *src, int64_t count)
{
    dtype_convert(dst, DTYPE_F16, src, DTYPE_F32, (size_t)count);
}

const struct quant_format quant_format_float16 = {
    .name = "float16",
    .block_elements = 1,
    .block_bytes = 2,
    .dtype = DTYPE_F16,
    .dequantize_row = dequantize_row,
    .quantize_row = quantize_row,
};
