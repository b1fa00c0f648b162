/* q8_0.c - ggml's Q8_0: 32 signed bytes with a scale. */
#include "kernels/quant/ggml_block.h"

static void block_q8_0(float *dst, const unsigned char *block)
{
    float d = ggml_half(block);
    for (int i = 0; i < 32; i++)
        dst[i] = (float)(int8_t)block[2 + i] * d;
}

GGML_FORMAT(q8_0, 32, 34, block_q8_0);
