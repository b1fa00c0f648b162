/* linear_words.h - the packing of linear_words.c and the functions that make float32 of it. Private
 * to kernels/cpu. */
#ifndef INFERD_KERNELS_CPU_LINEAR_WORDS_H
#define INFERD_KERNELS_CPU_LINEAR_WORDS_H

#include "kernels/cpu/linear.h"

enum word_codes { WORD_INT4, WORD_INT8, WORD_FP8, NUM_WORD_CODES };

/* num_words words [num_words][32] of codes to columns [num_words * codes of a word][32], 64-byte
 * aligned: code * scale + offset in one rounding for integers, code * scale for floats. scale,
 * offset: [32]. */
typedef void word_expand(float *dst, const uint32_t *words, int32_t num_words, const float *scale,
                         const float *offset);

size_t linear_panel_bytes_words(const struct linear *l);
void linear_pack_words(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                       const void *src);
void linear_unpack_row_words(float *dst, const struct linear *l, int32_t row);
/* `expand` by enum word_codes. */
void linear_run_words(const struct linear_block *b, word_expand *const *expand,
                      void (*run_f32)(const struct linear_block *b));

void linear_run_words_scalar(const struct linear_block *b);
#if defined(__x86_64__)
void linear_run_words_avx2(const struct linear_block *b);
void linear_run_words_avx512(const struct linear_block *b);
#endif

#endif
