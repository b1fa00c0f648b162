/* fp8.h - 8-bit floats (E4M3) with a scale for each group of a row, or one for the whole row. */
#ifndef INFERD_KERNELS_QUANT_FP8_H
#define INFERD_KERNELS_QUANT_FP8_H

#include "kernels/quant/quant_format.h"

/* An element is its code times the scale, rounded to the dtype of the scale. A group is stored as
 * its scale, then a byte for each element. group_size is up to QUANT_MAX_BLOCK; 0: one group for
 * the whole row. */
struct quant_format fp8_format(int32_t group_size, enum dtype scale_dtype);

/* Whether it is a member of this family. */
bool fp8_is(const struct quant_format *f);

#endif
