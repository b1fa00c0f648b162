/* q4_k.c - ggml's Q4_K and Q5_K: 256 codes of 4 or 5 bits; each 32 have a scale and a minimum of 6
 * bits, which two floats scale. */
#include "kernels/quant/ggml_block.h"

/* Of the last four, the low bits share a byte and the high ones stand above the first four's. */
void ggml_unpack_scales(uint8_t scales[8], uint8_t mins[8], const unsigned char packed[12])
{
    for (int i = 0; i < 4; i++) {
        scales[i] = packed[i] & 63;
        mins[i] = packed[4 + i] & 63;
        scales[4 + i] = (uint8_t)((packed[8 + i] & 15) | (packed[i] >> 2 & 48));
        mins[4 + i] = (uint8_t)(packed[8 + i] >> 4 | (packed[4 + i] >> 2 & 48));
    }
}

/* A block of either: `high` is 32 bytes of fifth bits or NULL, bit j of byte i that of element
 * 32 j + i; codes are 128 bytes, byte i of 32 holding elements i and 32 + i of its quarter. */
static inline __attribute__((always_inline)) void dequantize_block(float *dst,
                                                                   const unsigned char *block,
                                                                   const unsigned char *high,
                                                                   const unsigned char *codes)
{
    float d = ggml_half(block), dmin = ggml_half(block + 2);
    uint8_t scales[8], mins[8];
    ggml_unpack_scales(scales, mins, block + 4);
    for (int group = 0; group < 8; group++) {
        float scale = d * (float)scales[group], min = dmin * (float)mins[group];
        const unsigned char *from = codes + group / 2 * 32;
        for (int i = 0; i < 32; i++) {
            int code = from[i] >> (group % 2 * 4) & 15;
            if (high)
                code |= (high[i] >> group & 1) << 4;
            dst[group * 32 + i] = scale * (float)code - min;
        }
    }
}

/* scale, scale of the minima, 12 bytes of both, codes */
static void block_q4_k(float *dst, const unsigned char *block)
{
    dequantize_block(dst, block, NULL, block + 16);
}

/* the same with the fifth bits before the codes */
static void block_q5_k(float *dst, const unsigned char *block)
{
    dequantize_block(dst, block, block + 16, block + 48);
}

GGML_FORMAT(q4_k, GGML_K_BLOCK, 144, block_q4_k);
GGML_FORMAT(q5_k, GGML_K_BLOCK, 176, block_q5_k);
