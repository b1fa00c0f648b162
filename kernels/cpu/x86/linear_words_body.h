/* linear_words_body.h - expanding words of codes with the vectors that the including file has: an
 * integer vector `veci`, a float vector `vecf` and the macros below. */
#include "kernels/cpu/linear_words.h"

_Static_assert(LINEAR_PANEL % VEC_WIDTH == 0, "a panel is whole vectors");

enum { VECTORS = LINEAR_PANEL / VEC_WIDTH };

/* A vector of rows at a time, so that its scales stay in registers. */
static inline __attribute__((always_inline)) void expand_int(float *dst, const uint32_t *words,
                                                             int32_t num_words, const float *scale,
                                                             const float *offset, const int bits)
{
    const veci mask = VEC_SET_I((1 << bits) - 1);
    for (int v = 0; v < VECTORS; v++) {
        const vecf factor = VEC_LOAD_F(scale + v * VEC_WIDTH);
        const vecf addend = VEC_LOAD_F(offset + v * VEC_WIDTH);
        const uint32_t *from = words + v * VEC_WIDTH;
        float *to = dst + v * VEC_WIDTH;
        for (int32_t w = 0; w < num_words; w++, from += LINEAR_PANEL) {
            const veci word = VEC_LOAD_I(from);
#pragma GCC unroll 8
            for (int shift = 0; shift < 32; shift += bits, to += LINEAR_PANEL) {
                veci code = VEC_AND(VEC_SHIFT_RIGHT(word, shift), mask);
                VEC_STORE(to, VEC_FMA(VEC_TO_FLOAT(code), factor, addend));
            }
        }
    }
}

static void expand_int4(float *dst, const uint32_t *words, int32_t num_words, const float *scale,
                        const float *offset)
{
    expand_int(dst, words, num_words, scale, offset, 4);
}

static void expand_int8(float *dst, const uint32_t *words, int32_t num_words, const float *scale,
                        const float *offset)
{
    expand_int(dst, words, num_words, scale, offset, 8);
}

/* As in fp8_e4m3_to_f32, but for the NaN, which packing has taken out. */
static void expand_fp8(float *dst, const uint32_t *words, int32_t num_words, const float *scale,
                       const float *offset)
{
    const veci sign = VEC_SET_I((int)0x80000000u), magnitude = VEC_SET_I(0x7f000000);
    const vecf bias = VEC_SET_F(0x1p120f);
    (void)offset;
    for (int v = 0; v < VECTORS; v++) {
        const vecf factor = VEC_LOAD_F(scale + v * VEC_WIDTH);
        const uint32_t *from = words + v * VEC_WIDTH;
        float *to = dst + v * VEC_WIDTH;
        for (int32_t w = 0; w < num_words; w++, from += LINEAR_PANEL) {
            const veci word = VEC_LOAD_I(from);
#pragma GCC unroll 4
            for (int shift = 24; shift >= 0; shift -= 8, to += LINEAR_PANEL) {
                veci top = VEC_SHIFT_LEFT(word, shift);
                veci bits = VEC_OR(VEC_AND(top, sign), VEC_SHIFT_RIGHT(VEC_AND(top, magnitude), 4));
                VEC_STORE(to, VEC_MUL(VEC_MUL(VEC_AS_FLOAT(bits), bias), factor));
            }
        }
    }
}

static word_expand *const expand[NUM_WORD_CODES] = { expand_int4, expand_int8, expand_fp8 };
