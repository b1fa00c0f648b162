/* linear_avx512bf16.c - products with vdpbf16ps: x and the weights as pairs of bfloat16.
 *
 * A tile of up to 12 rows and one panel holds its 24 sums in registers over all of in_features; the
 * panel is read in order and each pair of x broadcast. All heights of a tile sum in the same order:
 * one vdpbf16ps per pair, pairs rising. */
#include "kernels/cpu/linear.h"

#include <immintrin.h>
#include <string.h>

enum {
    MAX_TILE = 12,
    PAIR_BYTES = LINEAR_PANEL * 4, /* of one panel and one pair of in_features */
    /* Low tiles are bound by memory, and the hardware's prefetch alone serves them best. In high
     * ones the loads of a panel are too far apart to keep memory busy: they fetch ahead into the
     * second-level cache, up to the end of the task's panels. */
    MIN_PREFETCH_ROWS = 8,
    PREFETCH_BYTES = 8192
};

struct tile {
    const char *x;
    size_t x_stride;         /* bytes */
    const char *panel, *end; /* end: of the task's panels */
    float *out;
    int64_t out_stride;
    const float *bias;
    int32_t num_pairs, cols;
};

static inline __m512bh broadcast_pair(const char *x)
{
    int32_t bits;
    memcpy(&bits, x, sizeof bits);
    return (__m512bh)_mm512_set1_epi32(bits);
}

static inline void store_row(const struct tile *t, int row, __m512 low, __m512 high)
{
    __mmask16 low_mask = t->cols >= 16 ? 0xffff : (__mmask16)((1u << t->cols) - 1);
    __mmask16 high_mask = t->cols >= 32   ? 0xffff
                          : t->cols <= 16 ? 0
                                          : (__mmask16)((1u << (t->cols - 16)) - 1);
    float *out = t->out + row * t->out_stride;
    if (t->bias) {
        low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(low_mask, t->bias));
        high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(high_mask, t->bias + 16));
    }
    _mm512_mask_storeu_ps(out, low_mask, low);
    _mm512_mask_storeu_ps(out + 16, high_mask, high);
}

static inline __attribute__((always_inline)) void run_tile(const struct tile *t, const int rows)
{
    __m512 low[MAX_TILE], high[MAX_TILE];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = _mm512_setzero_ps();
    const char *x = t->x, *w = t->panel;
    const size_t stride = t->x_stride;
    for (int32_t p = 0; p < t->num_pairs; p++, x += 4, w += PAIR_BYTES) {
        __m512bh w_low = (__m512bh)_mm512_load_si512(w);
        __m512bh w_high = (__m512bh)_mm512_load_si512(w + 64);
        if (rows >= MIN_PREFETCH_ROWS) {
            const char *ahead = w + PREFETCH_BYTES < t->end ? w + PREFETCH_BYTES : w;
            _mm_prefetch(ahead, _MM_HINT_T1);
            _mm_prefetch(ahead + 64, _MM_HINT_T1);
        }
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512bh factor = broadcast_pair(x + (size_t)r * stride);
            low[r] = _mm512_dpbf16_ps(low[r], w_low, factor);
            high[r] = _mm512_dpbf16_ps(high[r], w_high, factor);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        store_row(t, r, low[r], high[r]);
}

#define TILE(ROWS)                                                                                 \
    static void run_tile_##ROWS(const struct tile *t)                                              \
    {                                                                                              \
        run_tile(t, ROWS);                                                                         \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)

static void (*const run_tile_of[MAX_TILE + 1])(const struct tile *t) = {
    NULL,       run_tile_1, run_tile_2, run_tile_3,  run_tile_4,  run_tile_5, run_tile_6,
    run_tile_7, run_tile_8, run_tile_9, run_tile_10, run_tile_11, run_tile_12
};

void linear_run_bf16_avx512bf16(const struct linear_block *b)
{
    size_t panel_bytes = linear_panel_bytes(DTYPE_BF16, b->in_features);
    size_t num_panels = ((size_t)b->cols + LINEAR_PANEL - 1) / LINEAR_PANEL;
    struct tile t = {
        .x_stride = (size_t)b->x_stride * sizeof(uint16_t),
        .out_stride = b->out_stride,
        .num_pairs = b->in_features / 2 + b->in_features % 2,
        .end = (const char *)b->packed + num_panels * panel_bytes,
    };
    int32_t num_tiles = (b->rows + MAX_TILE - 1) / MAX_TILE;
    for (int32_t col = 0; col < b->cols; col += LINEAR_PANEL) {
        t.panel = (const char *)b->packed + (size_t)(col / LINEAR_PANEL) * panel_bytes;
        t.cols = b->cols - col < LINEAR_PANEL ? b->cols - col : LINEAR_PANEL;
        t.bias = b->bias ? b->bias + col : NULL;
        int32_t row = 0;
        for (int32_t i = 0; i < num_tiles; i++) {
            /* Evenly high tiles: 13 rows are 7 and 6, not 12 and a wasteful 1. */
            int32_t rows = (b->rows - row + num_tiles - i - 1) / (num_tiles - i);
            t.x = (const char *)b->x + (size_t)row * t.x_stride;
            t.out = b->out + row * b->out_stride + col;
            run_tile_of[rows](&t);
            row += rows;
        }
    }
}

/* The same rounding as bf16_from_f32 (vcvtneps2bf16 would flush subnormals). */
void linear_convert_bf16_avx512bf16(void *dst, const float *src, int32_t count)
{
    const __m512i half = _mm512_set1_epi32(0x7fff), one = _mm512_set1_epi32(1);
    const __m512i quiet = _mm512_set1_epi32(0x40);
    for (int32_t i = 0; i < count; i += 16) {
        __mmask16 mask = count - i >= 16 ? 0xffff : (__mmask16)((1u << (count - i)) - 1);
        __m512 value = _mm512_maskz_loadu_ps(mask, src + i);
        __m512i bits = _mm512_castps_si512(value);
        __m512i high = _mm512_srli_epi32(bits, 16);
        __m512i odd = _mm512_and_si512(high, one);
        __m512i rounded =
            _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(half, odd)), 16);
        __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        rounded = _mm512_mask_or_epi32(rounded, nan, high, quiet);
        _mm512_mask_cvtepi32_storeu_epi16((uint16_t *)dst + i, mask, rounded);
    }
}
