/* iq4_nl.c - ggml's IQ4_NL and IQ4_XS: codes of 4 bits that index a table of uneven steps. */
#include "kernels/quant/ggml_block.h"

const int8_t ggml_iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113 };

/* scale, 16 bytes as in Q4_0 */
static void block_iq4_nl(float *dst, const unsigned char *block)
{
    float d = ggml_half(block);
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)ggml_iq4_values[block[2 + i] & 15];
        dst[16 + i] = d * (float)ggml_iq4_values[block[2 + i] >> 4];
    }
}

/* scale, the high two bits of 8 scales, the low four of them, 8 times 16 bytes as in Q4_0 */
static void block_iq4_xs(float *dst, const unsigned char *block)
{
    float d = ggml_half(block);
    for (int group = 0; group < 8; group++) {
        int low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        int high = block[2 + group / 4] >> (group % 4 * 2) & 3;
        float scale = d * (float)((low | high << 4) - 32);
        const unsigned char *codes = block + 8 + group * 16;
        for (int i = 0; i < 16; i++) {
            dst[group * 32 + i] = scale * (float)ggml_iq4_values[codes[i] & 15];
            dst[group * 32 + 16 + i] = scale * (float)ggml_iq4_values[codes[i] >> 4];
        }
    }
}

GGML_FORMAT(iq4_nl, 32, 18, block_iq4_nl);
GGML_FORMAT(iq4_xs, GGML_K_BLOCK, 136, block_iq4_xs);
