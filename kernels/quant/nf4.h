/* nf4.h - bitsandbytes' NormalFloat with 4 bits. */
#ifndef INFERD_KERNELS_QUANT_NF4_H
#define INFERD_KERNELS_QUANT_NF4_H

#include "kernels/quant/quant_format.h"

extern const float nf4_values[16];

/* An element is nf4_values[code] times the block's scale, rounded to `dtype`. A block is stored as
 * its scale (float32), then the codes, two in a byte, the upper half first. block_size is even, up
 * to QUANT_MAX_BLOCK. */
struct quant_format nf4_format(int32_t block_size, enum dtype dtype);

#endif
