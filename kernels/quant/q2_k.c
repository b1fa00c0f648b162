/* q2_k.c - ggml's Q2_K: 256 codes of 2 bits; each 16 have a scale and a minimum of 4 bits, which
 * two floats scale. */
#include "kernels/quant/ggml_block.h"

/* 16 scales (low half) and minima (high half), 64 bytes of codes, scale, scale of the minima. Byte
 * i of 32 holds elements i, 32 + i, 64 + i and 96 + i of its half of the block. */
static void block_q2_k(float *dst, const unsigned char *block)
{
    const unsigned char *scales = block, *codes = block + 16;
    float d = ggml_half(block + 80), dmin = ggml_half(block + 82);
    for (int group = 0; group < 16; group++) {
        float scale = d * (float)(scales[group] & 15), min = dmin * (float)(scales[group] >> 4);
        const unsigned char *from = codes + group / 8 * 32 + group % 2 * 16;
        for (int i = 0; i < 16; i++)
            dst[group * 16 + i] = scale * (float)(from[i] >> (group % 8 / 2 * 2) & 3) - min;
    }
}

GGML_FORMAT(q2_k, GGML_K_BLOCK, 84, block_q2_k);
