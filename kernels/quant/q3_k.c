/* q3_k.c - ggml's Q3_K: 256 codes of 3 bits, the third of them apart; each 16 have a scale of 6
 * bits, which a float scales. */
#include "kernels/quant/ggml_block.h"

/* The 16 scales: the low four bits of two in each of 8 bytes, the high two of four in each of 4. */
static void unpack_scales(int8_t scales[16], const unsigned char *packed)
{
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
        int high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        scales[i] = (int8_t)((low | high << 4) - 32);
    }
}

/* 32 bytes of third bits, 64 of codes as in Q2_K, 12 of scales, scale. Bit j of third byte i is
 * that of element 32 j + i; where it is not set, 4 is taken from the code. */
static void block_q3_k(float *dst, const unsigned char *block)
{
    const unsigned char *third = block, *codes = block + 32;
    float d = ggml_half(block + 108);
    int8_t scales[16];
    unpack_scales(scales, block + 96);
    for (int group = 0; group < 16; group++) {
        float scale = d * (float)scales[group];
        int place = group % 2 * 16;
        const unsigned char *from = codes + group / 8 * 32 + place;
        for (int i = 0; i < 16; i++) {
            int code = from[i] >> (group % 8 / 2 * 2) & 3;
            int less = third[place + i] >> (group / 2) & 1 ? 0 : 4;
            dst[group * 16 + i] = scale * (float)(code - less);
        }
    }
}

GGML_FORMAT(q3_k, GGML_K_BLOCK, 110, block_q3_k);
