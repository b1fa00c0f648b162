/* mxfp4.c - ggml's order of MXFP4: 32 floats of 4 bits (E2M1) with a power of two (E8M0), as the
 * OCP Microscaling Formats 1.0 define them. */
#include "kernels/quant/ggml_block.h"

/* Doubled, so that they are whole; the scale is halved for it. */
const int8_t ggml_mxfp4_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* 2^(exponent - 128), the smallest two as subnormals */
static float half_of_e8m0(uint8_t exponent)
{
    uint32_t bits = exponent < 2 ? 0x00200000u << exponent : (uint32_t)(exponent - 1) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* exponent, 16 bytes as in Q4_0 */
static void block_mxfp4(float *dst, const unsigned char *block)
{
    float d = half_of_e8m0(block[0]);
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)ggml_mxfp4_values[block[1 + i] & 15];
        dst[16 + i] = d * (float)ggml_mxfp4_values[block[1 + i] >> 4];
    }
}

GGML_FORMAT(mxfp4, 32, 17, block_mxfp4);
