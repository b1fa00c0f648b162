/* int_group.h - whole numbers with a scale for each group of a row, or one for the whole row. */
#ifndef INFERD_KERNELS_QUANT_INT_GROUP_H
#define INFERD_KERNELS_QUANT_INT_GROUP_H

#include "kernels/quant/quant_format.h"

/* An element is (code - offset) * scale, or code * scale + min, rounded to the dtype of the scale.
 * A group is stored as its scale, then its zero point or minimum if it has one, then the codes: 4
 * bits each, the lower half of a byte first, or 8 bits. */
struct int_group_params {
    int32_t bits;       /* 4 or 8 */
    int32_t group_size; /* even, up to QUANT_MAX_BLOCK; 0: one group for the whole row */
    enum quant_offset offset;
    enum dtype scale_dtype; /* a float one; of the minimum too */
};

struct quant_format int_group_format(const struct int_group_params *p);

/* Whether it is a member of this family. */
bool int_group_is(const struct quant_format *f);

/* struct quant_format's quantize, of formats with groups and no zero points: int_group_quantize.c.
 */
void int_group_quantize(const struct quant_format *f, void *row, const float *src, int64_t count);

/* The numbers that begin a group; `at` is its block or the row's header. */
struct int_group_head {
    float scale, zero, min; /* the element is (code - zero) * scale + min */
};
struct int_group_head int_group_head(const struct quant_format *f, const void *at);
size_t int_group_head_bytes(const struct quant_format *f);

/* How far from a row's beginning the byte with the code of element `at` lies. */
size_t int_group_code_offset(const struct quant_format *f, int64_t at);
/* How many groups a row of `count` elements has, and where the numbers of one begin. */
int64_t int_group_count(const struct quant_format *f, int64_t count);
void *int_group_head_at(const struct quant_format *f, void *row, int64_t group);

/* Writes such numbers; what the format has no place for is left out. */
void int_group_set_head(const struct quant_format *f, void *at, const void *scale, int32_t zero,
                        const void *min);

#endif
