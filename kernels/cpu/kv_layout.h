/* kv_layout.h - where an element of K or V lies within a block of the CPU's paged cache, and what
 * its bits stand for.
 *
 * Attention wants neighbouring lanes to be neighbouring positions for q k^T and neighbouring
 * elements of a head for p V. So, per kv head:
 *
 *   K: [head_dim, block_size]    V: [block_size, head_dim]
 *
 * bfloat16 widens cheapest in pairs, one per half of a 32-bit lane, so there two rows are woven
 * into one, element by element; an odd number of rows leaves the last one as it is:
 *
 *   K: [head_dim / 2, block_size, 2]    V: [block_size / 2, head_dim, 2]
 *
 * The 8-bit dtypes are read as numbers that come cheap, and what those lack is made good where it
 * costs little. An fp8_e4m3 element is read as value / 256, which float16 holds with the same bits
 * moved; 256 times the layer's scale then goes into the query, and into the result for V. An int8
 * element is a code from -127 to 127. Each token has a scale for its K and one for its V, greatest
 * magnitude / 127, float32, in [block_size] behind the elements; it goes into the score, and into
 * the weight for V. A token that holds something not finite has NaN for a scale. */
#ifndef INFERD_KERNELS_CPU_KV_LAYOUT_H
#define INFERD_KERNELS_CPU_KV_LAYOUT_H

#include "kernels/weight.h"

#include <string.h>

/* Bytes of one block of K, or of V. */
static inline size_t kv_block_bytes(const struct kv_layer *kv)
{
    return (size_t)kv->num_kv_heads * kv_layer_head_bytes(kv->dtype, kv->block_size, kv->head_dim);
}

/* Where the part of `head` begins in `block`; `data` is kv->k or kv->v. */
static inline char *kv_head_data(const struct kv_layer *kv, void *data, int32_t block, int32_t head)
{
    return (char *)data + ((size_t)block * (size_t)kv->num_kv_heads + (size_t)head) *
                              kv_layer_head_bytes(kv->dtype, kv->block_size, kv->head_dim);
}

/* Where the scales of an int8 head begin; not aligned where block_size * head_dim is odd. */
static inline char *kv_head_scales(const struct kv_layer *kv, void *data, int32_t block,
                                   int32_t head)
{
    return kv_head_data(kv, data, block, head) + (size_t)kv->block_size * (size_t)kv->head_dim;
}

/* What an element as it is read still has to be multiplied by, for all of a layer's K (or V). */
#define KV_F8_FACTOR 256.0f
static inline float kv_layer_factor(const struct kv_layer *kv, float scale)
{
    return kv->dtype == DTYPE_F8_E4M3 ? KV_F8_FACTOR * (scale > 0 ? scale : 1) : 1;
}

/* One element as it is read. */
static inline float kv_read(const char *head_data, size_t index, enum dtype dtype)
{
    float value;
    if (dtype == DTYPE_I8)
        return (float)((const int8_t *)head_data)[index];
    if (dtype == DTYPE_F8_E4M3)
        return fp8_e4m3_to_f32(((const uint8_t *)head_data)[index]) / KV_F8_FACTOR;
    dtype_convert(&value, DTYPE_F32, head_data + index * dtype_size(dtype), dtype, 1);
    return value;
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
