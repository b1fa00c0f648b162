/* quant_format.h - how a row of weights is stored; one row of the registry per format.
 *
 * A format added here runs at once on every backend: rows are dequantized where no faster kernel
 * is registered for it. */
#ifndef INFERD_KERNELS_QUANT_QUANT_FORMAT_H
#define INFERD_KERNELS_QUANT_QUANT_FORMAT_H

#include "kernels/tensor.h"

struct quant_format {
    const char *name;       /* "float32", "bfloat16", "float16"; later "fp8", "awq", "q4_0", ... */
    int32_t block_elements; /* elements encoded together; in_features is a multiple of it */
    int32_t block_bytes;
    enum dtype
        dtype; /* the nearest plain dtype: what activations are rounded to before a product */
    /* `count` elements (a multiple of block_elements) to float32 and back. */
    void (*dequantize_row)(float *dst, const void *src, int64_t count);
    void (*quantize_row)(void *dst, const float *src, int64_t count);
};

/* The plain formats; the others are found by name. */
extern const struct quant_format quant_format_float32, quant_format_bfloat16, quant_format_float16;

/* NULL when there is none of that name. */
const struct quant_format *quant_format_find(const char *name);
const struct quant_format *quant_format_of_dtype(enum dtype dtype);
/* The table, ended by NULL. */
extern const struct quant_format *const quant_formats[];

static inline size_t quant_row_bytes(const struct quant_format *f, int64_t count)
{
    return (size_t)(count / f->block_elements) * (size_t)f->block_bytes;
}

#endif
