/* weight_rows.h - rows of weights as the GPU holds them. Private to kernels/cuda. */
#ifndef INFERD_KERNELS_CUDA_WEIGHT_ROWS_H
#define INFERD_KERNELS_CUDA_WEIGHT_ROWS_H

#include "kernels/cuda/cuda_weight_layout.h"

/* A row of `cols` elements of f to layout->row_bytes at dst; `layout` is f's for that many. Any
 * thread. */
void cuda_pack_row(unsigned char *dst, const struct cuda_weight_layout *layout,
                   const struct quant_format *f, const unsigned char *src, int32_t cols);

#endif
