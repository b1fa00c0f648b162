/* linear_pack.c - into the panel layouts of linear.h, and rows back out of them.
 *
 * Rows are transposed in squares small enough for the first-level cache: a row is read by whole
 * cache lines, and the lines written stay near until they are full. Each row writes bytes of its
 * own only, so rows of one panel may be packed by different threads. */
#include "kernels/cpu/linear.h"

#include <string.h>

enum { SQUARE = 16 }; /* steps along in_features */

static int32_t num_pairs(int32_t in_features)
{
    return in_features / 2 + in_features % 2;
}

size_t linear_panel_bytes(enum dtype weights, int32_t in_features)
{
    if (weights == DTYPE_BF16)
        return (size_t)num_pairs(in_features) * LINEAR_PANEL * sizeof(uint32_t);
    return (size_t)in_features * LINEAR_PANEL * dtype_size(weights);
}

static const void *panel_of(const struct linear *l, enum dtype weights, int32_t row)
{
    return (const char *)l->packed +
           (size_t)(row / LINEAR_PANEL) * linear_panel_bytes(weights, l->in_features);
}

static inline int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t pair(uint16_t even, uint16_t odd)
{
    return (uint32_t)even | (uint32_t)odd << 16;
}

void linear_pack_pairs(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                       const void *src)
{
    uint32_t *dst = (uint32_t *)panel + first;
    int32_t whole = l->in_features / 2;
    size_t row_bytes = (size_t)l->in_features * sizeof(uint16_t);
    for (int32_t begin = 0; begin < whole; begin += SQUARE) {
        int32_t count = min_i32(SQUARE, whole - begin);
        for (int32_t r = 0; r < num_rows; r++) {
            uint16_t line[2 * SQUARE];
            memcpy(line, (const char *)src + (size_t)r * row_bytes + (size_t)begin * 4,
                   (size_t)count * 4);
            for (int32_t i = 0; i < count; i++)
                dst[(size_t)(begin + i) * LINEAR_PANEL + (size_t)r] =
                    pair(line[2 * i], line[2 * i + 1]);
        }
    }
    for (int32_t r = 0; r < num_rows && l->in_features % 2 != 0; r++) {
        uint16_t last;
        memcpy(&last, (const char *)src + (size_t)(r + 1) * row_bytes - sizeof last, sizeof last);
        dst[(size_t)whole * LINEAR_PANEL + (size_t)r] = pair(last, 0);
    }
}

void linear_pack_f32(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                     const void *src)
{
    uint32_t *dst = (uint32_t *)panel + first;
    size_t row_bytes = (size_t)l->in_features * sizeof(uint32_t);
    for (int32_t begin = 0; begin < l->in_features; begin += SQUARE) {
        int32_t count = min_i32(SQUARE, l->in_features - begin);
        for (int32_t r = 0; r < num_rows; r++) {
            uint32_t line[SQUARE];
            memcpy(line, (const char *)src + (size_t)r * row_bytes + (size_t)begin * 4,
                   (size_t)count * 4);
            for (int32_t i = 0; i < count; i++)
                dst[(size_t)(begin + i) * LINEAR_PANEL + (size_t)r] = line[i];
        }
    }
}

void linear_pack_f16(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                     const void *src)
{
    uint16_t *dst = (uint16_t *)panel + first;
    size_t row_bytes = (size_t)l->in_features * sizeof(uint16_t);
    for (int32_t begin = 0; begin < l->in_features; begin += 2 * SQUARE) {
        int32_t count = min_i32(2 * SQUARE, l->in_features - begin);
        for (int32_t r = 0; r < num_rows; r++) {
            uint16_t line[2 * SQUARE];
            memcpy(line, (const char *)src + (size_t)r * row_bytes + (size_t)begin * 2,
                   (size_t)count * 2);
            for (int32_t i = 0; i < count; i++)
                dst[(size_t)(begin + i) * LINEAR_PANEL + (size_t)r] = line[i];
        }
    }
}

void linear_unpack_row_pairs(float *dst, const struct linear *l, int32_t row)
{
    const uint32_t *src = (const uint32_t *)panel_of(l, DTYPE_BF16, row) + row % LINEAR_PANEL;
    int32_t whole = l->in_features / 2;
    for (int32_t i = 0; i < whole; i++) {
        uint32_t two[2] = { src[(size_t)i * LINEAR_PANEL] << 16,
                            src[(size_t)i * LINEAR_PANEL] & 0xffff0000u };
        memcpy(dst + 2 * i, two, sizeof two);
    }
    if (l->in_features % 2 != 0)
        dst[2 * whole] = bf16_to_f32((uint16_t)src[(size_t)whole * LINEAR_PANEL]);
}

void linear_unpack_row_f32(float *dst, const struct linear *l, int32_t row)
{
    const float *src = (const float *)panel_of(l, DTYPE_F32, row) + row % LINEAR_PANEL;
    for (int32_t i = 0; i < l->in_features; i++)
        dst[i] = src[(size_t)i * LINEAR_PANEL];
}

void linear_unpack_row_f16(float *dst, const struct linear *l, int32_t row)
{
    const uint16_t *src = (const uint16_t *)panel_of(l, DTYPE_F16, row) + row % LINEAR_PANEL;
    for (int32_t i = 0; i < l->in_features; i++)
        dst[i] = f16_to_f32(src[(size_t)i * LINEAR_PANEL]);
}
