/* kv_layout.h - where an element of K or V lies within a block of the CPU's paged cache.
 *
 * Attention wants neighbouring lanes to be neighbouring positions for q k^T and neighbouring
 * elements of a head for p V. So, per kv head:
 *
 *   K: [head_dim, block_size]    V: [block_size, head_dim]
 *
 * bfloat16 widens cheapest in pairs, one per half of a 32-bit lane, so there two rows are woven
 * into one, element by element; an odd number of rows leaves the last one as it is:
 *
 *   K: [head_dim / 2, block_size, 2]    V: [block_size / 2, head_dim, 2] */
#ifndef INFERD_KERNELS_CPU_KV_LAYOUT_H
#define INFERD_KERNELS_CPU_KV_LAYOUT_H

#include "kernels/weight.h"

/* Bytes of one block of K, or of V. */
static inline size_t kv_block_bytes(const struct kv_layer *kv)
{
    return (size_t)kv->block_size * (size_t)kv->num_kv_heads * (size_t)kv->head_dim *
           dtype_size(kv->dtype);
}

/* Where the part of `head` begins in `block`; `data` is kv->k or kv->v. */
static inline char *kv_head_data(const struct kv_layer *kv, void *data, int32_t block, int32_t head)
{
    size_t head_bytes = (size_t)kv->block_size * (size_t)kv->head_dim * dtype_size(kv->dtype);
    return (char *)data + ((size_t)block * (size_t)kv->num_kv_heads + (size_t)head) * head_bytes;
}

/* Element `column` of `row` in a matrix of that many. */
static inline size_t kv_index(enum dtype dtype, int32_t row, int32_t rows, int32_t column,
                              int32_t columns)
{
    if (dtype != DTYPE_BF16 || (row == rows - 1 && row % 2 == 0))
        return (size_t)row * (size_t)columns + (size_t)column;
    return ((size_t)(row / 2) * (size_t)columns + (size_t)column) * 2 + (size_t)(row % 2);
}

/* Elements from kv_head_data. */
static inline size_t kv_k_index(const struct kv_layer *kv, int32_t offset, int32_t dim)
{
    return kv_index(kv->dtype, dim, kv->head_dim, offset, kv->block_size);
}
static inline size_t kv_v_index(const struct kv_layer *kv, int32_t offset, int32_t dim)
{
    return kv_index(kv->dtype, offset, kv->block_size, dim, kv->head_dim);
}

#endif
