/* nf4.h - bitsandbytes' NormalFloat with 4 bits. */
#ifndef INFERD_KERNELS_QUANT_NF4_H
#define INFERD_KERNELS_QUANT_NF4_H

#include "kernels/quant/quant_format.h"

/* 16 values between -1 and 1, of which a block's greatest magnitude is a multiple: those of
 * Dettmers et al., 2023 (arXiv:2305.14314, appendix E). */
#define NF4_VALUES                                                                                 \
    {                                                                                              \
        -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,                  \
            -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,             \
            0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,                      \
            0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f,  \
            1.0f                                                                                   \
    }
extern const float nf4_values[16];

/* An element is nf4_values[code] times the block's scale, rounded to `dtype`. A block is stored as
 * its scale (float32), then the codes, two in a byte, the upper half first. block_size is even, up
 * to QUANT_MAX_BLOCK. */
struct quant_format nf4_format(int32_t block_size, enum dtype dtype);

#endif
