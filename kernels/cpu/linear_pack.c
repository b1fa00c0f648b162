/* linear_pack.c - into the panel layouts of linear.h, and rows back out of them.
 *
 * Packing is a transposition: of 32-bit elements (float32, or pairs of bfloat16) or of 16-bit ones.
 * It goes in squares of 4 x 4 words held in registers, a few rows at a time along whole cache
 * lines, the next lines being fetched meanwhile: rows are often a power of two apart, where neither
 * the caches nor the hardware's prefetch do well. Each row writes bytes of its own only, so rows of
 * one panel may be packed by different threads. */
#include "kernels/cpu/linear.h"

#include <string.h>

enum {
    LINE_WORDS = 16, /* of a cache line */
    PREFETCH_BYTES = 128
};

/* Four words in a register, whatever the processor calls it; at any address. */
typedef uint32_t words4 __attribute__((vector_size(16)));

static inline words4 load_words(const char *src)
{
    words4 w;
    memcpy(&w, src, sizeof w);
    return w;
}

static inline void store_words(void *dst, words4 w)
{
    memcpy(dst, &w, sizeof w);
}

/* Row i of `rows` becomes column i. */
static inline void transpose(words4 rows[4])
{
    words4 low01 = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
    words4 high01 = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
    words4 low23 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
    words4 high23 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
    rows[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    rows[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    rows[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    rows[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

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

/* `num_words` words of each of `num_rows` rows, `row_bytes` apart, to dst[word][row]. */
static void transpose_words(uint32_t *dst, const char *src, size_t row_bytes, int32_t num_rows,
                            int32_t num_words)
{
    int32_t whole_rows = num_rows / 4 * 4, whole_words = num_words / LINE_WORDS * LINE_WORDS;
    for (int32_t w = 0; w < whole_words; w += LINE_WORDS)
        for (int32_t r = 0; r < whole_rows; r += 4) {
            const char *at = src + (size_t)r * row_bytes + (size_t)w * 4;
            for (size_t i = 0; i < 4; i++)
                __builtin_prefetch(at + i * row_bytes + PREFETCH_BYTES);
            for (int32_t i = 0; i < LINE_WORDS; i += 4, at += 16) {
                words4 square[4] = { load_words(at), load_words(at + row_bytes),
                                     load_words(at + 2 * row_bytes),
                                     load_words(at + 3 * row_bytes) };
                transpose(square);
                for (int32_t j = 0; j < 4; j++)
                    store_words(dst + (size_t)(w + i + j) * LINEAR_PANEL + r, square[j]);
            }
        }
    for (int32_t r = 0; r < num_rows; r++) /* what is left of the rows and of their words */
        for (int32_t w = r < whole_rows ? whole_words : 0; w < num_words; w++)
            memcpy(dst + (size_t)w * LINEAR_PANEL + r, src + (size_t)r * row_bytes + (size_t)w * 4,
                   4);
}

void linear_pack_pairs(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                       const void *src)
{
    uint32_t *dst = (uint32_t *)panel + first;
    int32_t whole = l->in_features / 2;
    size_t row_bytes = (size_t)l->in_features * sizeof(uint16_t);
    transpose_words(dst, src, row_bytes, num_rows, whole);
    for (int32_t r = 0; r < num_rows && l->in_features % 2 != 0; r++) {
        uint16_t last;
        memcpy(&last, (const char *)src + (size_t)(r + 1) * row_bytes - sizeof last, sizeof last);
        dst[(size_t)whole * LINEAR_PANEL + (size_t)r] = last;
    }
}

void linear_pack_f32(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                     const void *src)
{
    transpose_words((uint32_t *)panel + first, src, (size_t)l->in_features * sizeof(uint32_t),
                    num_rows, l->in_features);
}

/* Eight rows at a time: two rows side by side make words, and these are transposed as above. */
void linear_pack_f16(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                     const void *src)
{
    uint16_t *dst = (uint16_t *)panel + first;
    size_t row_bytes = (size_t)l->in_features * sizeof(uint16_t);
    int32_t whole_rows = num_rows / 8 * 8, whole_steps = l->in_features / 8 * 8;
    for (int32_t k = 0; k < whole_steps; k += 8)
        for (int32_t r = 0; r < whole_rows; r += 8) {
            const char *at = (const char *)src + (size_t)r * row_bytes + (size_t)k * 2;
            words4 even[4], odd[4]; /* steps k, k + 2, ... and k + 1, k + 3, ... */
            for (size_t i = 0; i < 4; i++, at += 2 * row_bytes) {
                words4 a = load_words(at), b = load_words(at + row_bytes);
                __builtin_prefetch(at + PREFETCH_BYTES);
                __builtin_prefetch(at + row_bytes + PREFETCH_BYTES);
                even[i] = (a & 0xffffu) | b << 16;
                odd[i] = a >> 16 | (b & 0xffff0000u);
            }
            transpose(even);
            transpose(odd);
            for (int32_t i = 0; i < 4; i++) {
                store_words(dst + (size_t)(k + 2 * i) * LINEAR_PANEL + r, even[i]);
                store_words(dst + (size_t)(k + 2 * i + 1) * LINEAR_PANEL + r, odd[i]);
            }
        }
    for (int32_t r = 0; r < num_rows; r++)
        for (int32_t k = r < whole_rows ? whole_steps : 0; k < l->in_features; k++)
            memcpy(dst + (size_t)k * LINEAR_PANEL + r,
                   (const char *)src + (size_t)r * row_bytes + (size_t)k * 2, 2);
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
