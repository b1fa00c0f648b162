/* q6_k.c - ggml's Q6_K: 256 codes of 6 bits; each 16 have a signed scale of 8 bits, which a float
 * scales. */
#include "kernels/quant/ggml_block.h"

/* 128 bytes of low bits, 64 of high ones, 16 scales, scale. In each half of the block low byte i of
 * 64 holds elements i and 64 + i, high byte i of 32 elements i, 32 + i, 64 + i and 96 + i. */
static void block_q6_k(float *dst, const unsigned char *block)
{
    float d = ggml_half(block + 208);
    for (int group = 0; group < 16; group++) {
        int half = group / 8, quarter = group % 8 / 2, place = group % 2 * 16;
        const unsigned char *low = block + half * 64 + quarter % 2 * 32 + place;
        const unsigned char *high = block + 128 + half * 32 + place;
        float scale = d * (float)(int8_t)block[192 + group];
        for (int i = 0; i < 16; i++) {
            int code = (low[i] >> (quarter / 2 * 4) & 15) | (high[i] >> (quarter * 2) & 3) << 4;
            dst[group * 16 + i] = scale * (float)(code - 32);
        }
    }
}

GGML_FORMAT(q6_k, GGML_K_BLOCK, 210, block_q6_k);
