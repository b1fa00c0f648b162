/* quant_format.h - how a row of weights is stored; one row of the registry per format.
 *
 * A stored row is header_bytes and then blocks of block_elements each, the last one filled up. A
 * format added here runs at once on every backend and in its own bytes: where no faster kernel is
 * registered for it, pieces of rows are dequantized just before they are multiplied.
 *
 * Some formats are a family with parameters (the group size, the width of a code): a member is made
 * from them (int_group.h, say) and lives in a struct quant_format_set. Formats of the same
 * name are then one object, so that pointers can be compared. */
#ifndef INFERD_KERNELS_QUANT_QUANT_FORMAT_H
#define INFERD_KERNELS_QUANT_QUANT_FORMAT_H

#include "kernels/tensor.h"

/* The most elements that may be encoded together; a scale for more of them is one for the row, and
 * belongs into its header. */
enum { QUANT_MAX_BLOCK = 1024 };

/* What is subtracted from a code before it is multiplied with its scale. */
enum quant_offset {
    QUANT_OFFSET_MIDDLE, /* half the range, 2^(bits - 1): nothing is stored */
    QUANT_OFFSET_ZERO,   /* a zero point, int16 */
    QUANT_OFFSET_MIN     /* none; a minimum of the dtype of the scale is added afterwards */
};

struct quant_format {
    char name[40];          /* "float32", "q4_0", "int4_g128_float16" */
    int32_t block_elements; /* encoded together; up to QUANT_MAX_BLOCK */
    int32_t block_bytes;
    int32_t header_bytes; /* of a row, before its blocks */
    enum dtype dtype;     /* the nearest plain dtype: dequantized values are rounded to it, unless
                             it is float32 */
    /* Elements [begin, begin + count) of a row, both multiples of block_elements, but for the end
     * of the row. Any thread. */
    void (*dequantize)(const struct quant_format *f, float *dst, const void *row, int64_t begin,
                       int64_t count);
    /* A whole row of `count` elements; NULL where the format is only read. */
    void (*quantize)(const struct quant_format *f, void *row, const float *src, int64_t count);
    /* Parameters of families; 0 elsewhere. */
    int32_t bits;
    enum quant_offset offset;
};

/* The plain formats; the others are found by name. */
extern const struct quant_format quant_format_float32, quant_format_bfloat16, quant_format_float16;

/* NULL when there is none of that name among those without parameters. */
const struct quant_format *quant_format_find(const char *name);
const struct quant_format *quant_format_of_dtype(enum dtype dtype);
/* Whether it is one of the plain ones. */
bool quant_format_is_plain(const struct quant_format *f);
/* The table of those without parameters, ended by NULL. */
extern const struct quant_format *const quant_formats[];

/* Members of families, owned. Filled by one thread, constant afterwards. */
struct quant_format_set {
    struct quant_format **formats;
    size_t count;
};

/* The one of that name: of the table, of the set, or added to it. */
const struct quant_format *quant_format_intern(struct quant_format_set *set,
                                               const struct quant_format *f);
void quant_format_set_free(struct quant_format_set *set);

/* Where the block that holds element `at` begins. */
static inline const void *quant_block_at(const struct quant_format *f, const void *row, int64_t at)
{
    return (const char *)row + f->header_bytes + at / f->block_elements * f->block_bytes;
}

static inline size_t quant_row_bytes(const struct quant_format *f, int64_t count)
{
    int64_t blocks = (count + f->block_elements - 1) / f->block_elements;
    return (size_t)f->header_bytes + (size_t)blocks * (size_t)f->block_bytes;
}

#endif
