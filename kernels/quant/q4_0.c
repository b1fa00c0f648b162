/* q4_0.c - ggml's Q4_0 and Q4_1: 32 codes of 4 bits with a scale, and in Q4_1 a minimum. */
#include "kernels/quant/ggml_block.h"

/* scale, 16 bytes: element i in the low half of byte i, element 16 + i in the high one */
static void block_q4_0(float *dst, const unsigned char *block)
{
    float d = ggml_half(block);
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)((block[2 + i] & 15) - 8);
        dst[16 + i] = d * (float)((block[2 + i] >> 4) - 8);
    }
}

/* scale, minimum, 16 bytes */
static void block_q4_1(float *dst, const unsigned char *block)
{
    float d = ggml_half(block), min = ggml_half(block + 2);
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)(block[4 + i] & 15) + min;
        dst[16 + i] = d * (float)(block[4 + i] >> 4) + min;
    }
}

GGML_FORMAT(q4_0, 32, 18, block_q4_0);
GGML_FORMAT(q4_1, 32, 20, block_q4_1);
