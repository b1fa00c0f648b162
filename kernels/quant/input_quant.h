/* input_quant.h - activations in 8 bits: what a linear does to its input first, where the
 * checkpoint was made for that (W8A8, FP8 with static or dynamic scales).
 *
 * A row x becomes codes and one scale, and stands for code * scale from then on. Since the weights
 * of such linears are codes with one scale for each output, a product is the sum of codes times
 * codes, times two scales, which tensor cores do in 8 bits. */
#ifndef INFERD_KERNELS_QUANT_INPUT_QUANT_H
#define INFERD_KERNELS_QUANT_INPUT_QUANT_H

#include "kernels/quant/quant_format.h"

enum input_quant_kind {
    INPUT_QUANT_NONE,
    INPUT_QUANT_INT8, /* whole numbers up to 127, to the nearest, ties to even */
    INPUT_QUANT_FP8   /* E4M3, see fp8_e4m3_from_f32 */
};

struct input_quant {
    enum input_quant_kind kind;
    /* Of every row (FP8 only); 0: each row has its own, its greatest magnitude divided by the
     * greatest code, 127 or 448, and 1 where that is 0. A row of its own scale with an infinity or
     * a NaN has NaN for a scale, and then no element of it is a number. */
    float scale;
};

/* The greatest that a sum of whole numbers may have columns: of 127 * 128 each, int32 holds it. */
enum { INPUT_QUANT_MAX_COLS = 1 << 17 };

/* Whether linears with weights of this format, `cols` of them in a row, take such an input: codes
 * of the same kind, with one scale for a row and no zero points. */
bool input_quant_fits(enum input_quant_kind kind, const struct quant_format *f, int64_t cols);

/* dst[i] = code * scale for a row; dst may be src. `q->kind` is not INPUT_QUANT_NONE. */
void input_quant_row(const struct input_quant *q, float *dst, const float *src, int64_t count);

#endif
