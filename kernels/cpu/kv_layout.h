/* kv_layout.h - where an element of K or V lies within a block of the CPU's paged cache.
 *
 * Attention wants neighbouring lanes to be neighbouring positions for q k^T and neighbouring
 * elements of a head for p V; and 16-bit elements widen cheapest in pairs, one per half of a
 * 32-bit lane. So, per kv head:
 *
 *   K: [head_dim / 2, block_size, 2]    pairs of elements of one position
 *   V: [block_size / 2, head_dim, 2]    pairs of positions of one element
 *
 * An odd head_dim or block_size leaves a last row without pairs. */
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

/* The form of both: one index in pairs, the other between the pairs and within them. */
static inline size_t kv_paired_index(int32_t paired, int32_t paired_size, int32_t other,
                                     int32_t other_size)
{
    if (paired == paired_size - 1 && paired % 2 == 0)
        return (size_t)paired * (size_t)other_size + (size_t)other;
    return ((size_t)(paired / 2) * (size_t)other_size + (size_t)other) * 2 + (size_t)(paired % 2);
}

/* Elements from kv_head_data. */
static inline size_t kv_k_index(const struct kv_layer *kv, int32_t offset, int32_t dim)
{
    return kv_paired_index(dim, kv->head_dim, offset, kv->block_size);
}
static inline size_t kv_v_index(const struct kv_layer *kv, int32_t offset, int32_t dim)
{
    return kv_paired_index(offset, kv->block_size, dim, kv->head_dim);
}

#endif
