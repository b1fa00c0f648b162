/* ggml_block.h - what ggml's block formats share. A block is a few scales and the codes of 32 or
 * 256 elements; nothing in it is aligned to more than a byte.
 *
 * Layouts and formulas are those of ggml-quants.c; values come out bit for bit as the `gguf` Python
 * package computes them, in float32: each formula keeps its order of operations. */
#ifndef INFERD_KERNELS_QUANT_GGML_BLOCK_H
#define INFERD_KERNELS_QUANT_GGML_BLOCK_H

#include "kernels/quant/ggml_formats.h"

#include <string.h>

enum { GGML_K_BLOCK = 256 }; /* elements of a block of the K formats */

static inline float ggml_half(const unsigned char *at)
{
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return f16_to_f32(bits);
}

/* Whole blocks of a row, which is what GGUF files are made of. */
static inline __attribute__((always_inline)) void ggml_dequantize(
    const struct quant_format *f, float *dst, const void *row, int64_t begin, int64_t count,
    void (*block)(float *dst, const unsigned char *block))
{
    const unsigned char *at = quant_block_at(f, row, begin);
    for (int64_t i = 0; i < count; i += f->block_elements, at += f->block_bytes)
        block(dst + i, at);
}

/* A format that is only read, and its `dequantize` from the function for one block. */
#define GGML_FORMAT(NAME, ELEMENTS, BYTES, BLOCK)                                                  \
    static void dequantize_##NAME(const struct quant_format *f, float *dst, const void *row,       \
                                  int64_t begin, int64_t count)                                    \
    {                                                                                              \
        ggml_dequantize(f, dst, row, begin, count, BLOCK);                                         \
    }                                                                                              \
    const struct quant_format quant_format_##NAME = {                                              \
        .name = #NAME,                                                                             \
        .block_elements = ELEMENTS,                                                                \
        .block_bytes = BYTES,                                                                      \
        .dtype = DTYPE_F32,                                                                        \
        .dequantize = dequantize_##NAME,                                                           \
    }

/* The 6-bit scales and minima of Q4_K and Q5_K, 8 of each in 12 bytes. */
void ggml_unpack_scales(uint8_t scales[8], uint8_t mins[8], const unsigned char packed[12]);

/* The values that the codes of IQ4_NL and IQ4_XS, and those of MXFP4 (doubled), stand for. */
extern const int8_t ggml_iq4_values[16], ggml_mxfp4_values[16];

#endif
