/* linear_ggml.h - products with weights in ggml's formats by whole numbers. Private to kernels/cpu.
 *
 * x is brought to 16-bit codes, 32 at a time with a scale of their own, and the codes of weights
 * and of x are multiplied and summed as integers within a block; block sums are scaled and added in
 * float32 in rising order of blocks. With codes of 8 bits answers would depend on their rounding:
 * it moves SmolLM2's log-probabilities by a tenth, these by thousandths. A row of x is converted by
 * itself, so that an output still depends on its own inputs alone.
 *
 * In a panel the rows lie in groups of eight; a group's blocks follow one another along
 * in_features, and in a block each 32-bit word of codes lies beside the same word of the other
 * seven rows, so that one register holds four elements of eight rows. Scales lie side by side
 * likewise. Only places change, no value does: a row can be read back as it was. */
#ifndef INFERD_KERNELS_CPU_LINEAR_GGML_H
#define INFERD_KERNELS_CPU_LINEAR_GGML_H

#include "kernels/cpu/linear.h"

enum {
    LINEAR_GGML_ROWS = 8, /* of a group */
    LINEAR_Q16_BLOCK = 32,
    LINEAR_Q16_PIECE = 256 /* elements of x with a scale in common */
};

/* 32 elements of x. Its size is no more than theirs as float32, whose place it takes. */
struct linear_q16 {
    /* The same in all blocks of a piece: its greatest element over 32767; NaN where one is not
     * finite. */
    float scale;
    float sum; /* of the codes; for formats with a minimum */
    /* -32767 to 32767, in an order of the instruction set's kernels. */
    int16_t codes[LINEAR_Q16_BLOCK];
};
_Static_assert(sizeof(struct linear_q16) <= LINEAR_Q16_BLOCK * sizeof(float), "fits x's place");

/* Where the parts of a format's block lie, in the file and for a group of eight rows. All rows of
 * this table describe a copy of pieces: `count` pieces of `bytes` each, at `row` in a row's block
 * and, for eight rows side by side, at `group` in the group's. */
struct linear_ggml_part {
    int32_t bytes, count, row, group;
};
enum { LINEAR_GGML_MAX_PARTS = 5 };
struct linear_ggml_layout {
    const struct quant_format *format;
    int32_t group_bytes; /* of a block of eight rows */
    struct linear_ggml_part parts[LINEAR_GGML_MAX_PARTS];
    bool scales_6bit; /* K formats: 12 bytes of scales and minima, unpacked to 16 in the group */
};

/* NULL when the format has no such layout. */
const struct linear_ggml_layout *linear_ggml_layout(const struct quant_format *f);

/* struct linear_kernel's functions. */
size_t linear_ggml_panel_bytes(const struct linear *l);
void linear_ggml_pack(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                      const void *src);
void linear_ggml_unpack_row(float *dst, const struct linear *l, int32_t row);

#endif
