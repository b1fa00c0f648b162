/* bf16.c - the plain bfloat16 format. */
#include "kernels/quant/quant_format.h"

static void dequantize_row(float *dst, const void *src, int64_t count)
{
    dtype_convert(dst, DTYPE_F32, src, DTYPE_BF16, (size_t)count);
}

static void quantize_row(void *dst, const float *src, int64_t count)
{
    dtype_convert(dst, DTYPE_BF16, src, DTYPE_F32, (size_t)count);
}

const struct quant_format quant_format_bfloat16 = {
    .name = "bfloat16",
    .block_elements = 1,
    .block_bytes = 2,
    .dtype = DTYPE_BF16,
    .dequantize_row = dequantize_row,
    .quantize_row = quantize_row,
};
