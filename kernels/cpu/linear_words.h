/* linear_words.h - the packing of linear_words.c and the functions that make float32 of it. Private
 * to kernels/cpu. */
#ifndef INFERD_KERNELS_CPU_LINEAR_WORDS_H
#define INFERD_KERNELS_CPU_LINEAR_WORDS_H

#include "kernels/cpu/linear.h"

enum word_codes { WORD_INT4, WORD_INT8, WORD_FP8, NUM_WORD_CODES };

/* Up to so many rows of x are multiplied while the weights are expanded: few enough that writing
 * the weights out and reading them again would cost more than expanding them for each tile. */
enum { WORD_FEW_ROWS = 12 };

/* The numbers of a group: an element is code * scale + offset, in one rounding, of integers, and
 * code * scale of floats. */
struct word_heads {
    _Alignas(64) float scale[LINEAR_PANEL];
    _Alignas(64) float offset[LINEAR_PANEL];
};

/* Rows of x at the group's first column, and the sums so far of their outputs, which go on as in
 * the float32 kernels: one fused multiply-add for each column, columns rising. */
struct word_rows {
    const float *x;
    int64_t x_stride;
    int32_t rows;
    float (*sums)[LINEAR_PANEL]; /* [rows], 64-byte aligned */
};

/* A group of a panel, of `count` columns. */
struct word_group {
    const struct quant_format *format;
    const unsigned char *head; /* the scales and what else comes before the words */
    const uint32_t *words;
    int32_t count;
};

/* num_words words [num_words][32] of codes to columns [num_words * codes of a word][32], 64-byte
 * aligned. */
typedef void word_expand(float *dst, const uint32_t *words, int32_t num_words,
                         const struct word_heads *heads);
/* The columns of a group times rows of x: what the float32 kernel of the same instruction set makes
 * of the expanded columns, to the bit. */
typedef void word_multiply(const struct word_rows *r, const struct word_group *g);

/* What one instruction set has. */
struct word_kernels {
    void (*read_heads)(struct word_heads *heads, const struct quant_format *f,
                       const unsigned char *group);
    word_expand *expand[NUM_WORD_CODES];
    word_multiply *multiply[NUM_WORD_CODES]; /* NULL: few rows go as many do */
    void (*run_f32)(const struct linear_block *b);
};

size_t linear_panel_bytes_words(const struct linear *l);
void linear_pack_words(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                       const void *src);
void linear_unpack_row_words(float *dst, const struct linear *l, int32_t row);
void linear_run_words(const struct linear_block *b, const struct word_kernels *kernels);
/* Where the second numbers of a group's rows (zero points or minima) begin. */
const void *linear_words_second(const struct quant_format *f, const unsigned char *group);

void linear_run_words_scalar(const struct linear_block *b);
#if defined(__x86_64__)
void linear_run_words_avx2(const struct linear_block *b);
void linear_run_words_avx512(const struct linear_block *b);
#endif

#endif
