/* q5_0.c - ggml's Q5_0 and Q5_1: 32 codes of 5 bits with a scale, and in Q5_1 a minimum. The fifth
 * bits stand apart, bit i that of element i. */
#include "kernels/quant/ggml_block.h"

/* The codes of a block; `at` is its fifth bits, then 16 bytes as in Q4_0. */
static void unpack(uint8_t codes[32], const unsigned char *at)
{
    uint32_t high;
    memcpy(&high, at, sizeof high);
    for (int i = 0; i < 16; i++) {
        codes[i] = (uint8_t)((at[4 + i] & 15) | (high >> i & 1) << 4);
        codes[16 + i] = (uint8_t)(at[4 + i] >> 4 | (high >> (16 + i) & 1) << 4);
    }
}

static void block_q5_0(float *dst, const unsigned char *block)
{
    uint8_t codes[32];
    float d = ggml_half(block);
    unpack(codes, block + 2);
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)(codes[i] - 16);
}

static void block_q5_1(float *dst, const unsigned char *block)
{
    uint8_t codes[32];
    float d = ggml_half(block), min = ggml_half(block + 2);
    unpack(codes, block + 4);
    for (int i = 0; i < 32; i++)
        dst[i] = d * (float)codes[i] + min;
}

GGML_FORMAT(q5_0, 32, 22, block_q5_0);
GGML_FORMAT(q5_1, 32, 24, block_q5_1);
