/* linear_avx512.c - products in float32 with AVX-512, for weights of any plain dtype.
 *
 * A tile of a few rows and one panel holds its sums in registers over all of in_features. Weights
 * are widened as they are read; a pair of bfloat16 steps is summed even first, then odd. All
 * heights of a tile sum in the same order: one fused multiply-add per step, steps rising. */
#include "kernels/cpu/linear.h"

#include <immintrin.h>

enum {
    MAX_TILE = 12,
    MAX_TILE_PAIRS = 11,
    /* As in linear_avx512bf16.c: only high tiles need help to keep memory busy. */
    MIN_PREFETCH_ROWS = 8,
    PREFETCH_BYTES = 8192
};

struct tile {
    const float *x;
    int64_t x_stride;
    const char *panel, *end; /* end: of the task's panels */
    float *out;
    int64_t out_stride;
    const float *bias;
    int32_t in_features, cols;
    bool resume;
};

static inline __mmask16 low_mask_of(const struct tile *t)
{
    return t->cols >= 16 ? 0xffff : (__mmask16)((1u << t->cols) - 1);
}

static inline __mmask16 high_mask_of(const struct tile *t)
{
    return t->cols >= 32 ? 0xffff : t->cols <= 16 ? 0 : (__mmask16)((1u << (t->cols - 16)) - 1);
}

/* Zeros, or what an earlier piece of the columns has left in the output. */
static inline void begin_row(const struct tile *t, int row, __m512 *low, __m512 *high)
{
    const float *out = t->out + row * t->out_stride;
    *low = *high = _mm512_setzero_ps();
    if (t->resume) {
        *low = _mm512_maskz_loadu_ps(low_mask_of(t), out);
        *high = _mm512_maskz_loadu_ps(high_mask_of(t), out + 16);
    }
}

static inline void store_row(const struct tile *t, int row, __m512 low, __m512 high)
{
    __mmask16 low_mask = low_mask_of(t), high_mask = high_mask_of(t);
    float *out = t->out + row * t->out_stride;
    if (t->bias) {
        low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(low_mask, t->bias));
        high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(high_mask, t->bias + 16));
    }
    _mm512_mask_storeu_ps(out, low_mask, low);
    _mm512_mask_storeu_ps(out + 16, high_mask, high);
}

/* The `lines` cache lines that a later step will read. */
static inline void prefetch(const struct tile *t, const char *w, const int lines)
{
    const char *ahead = w + PREFETCH_BYTES < t->end ? w + PREFETCH_BYTES : w;
    _mm_prefetch(ahead, _MM_HINT_T1);
    if (lines > 1)
        _mm_prefetch(ahead + 64, _MM_HINT_T1);
}

/* One step along in_features for 16 outputs. */
static inline __m512 load_weights(const char *w, const enum dtype weights)
{
    if (weights == DTYPE_F32)
        return _mm512_load_ps(w);
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)w));
}

static inline __attribute__((always_inline)) void run_tile(const struct tile *t, const int rows,
                                                           const enum dtype weights)
{
    const size_t half = weights == DTYPE_F32 ? 64 : 32; /* bytes of 16 weights */
    __m512 low[MAX_TILE], high[MAX_TILE];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        begin_row(t, r, &low[r], &high[r]);
    const float *x = t->x;
    const char *w = t->panel;
    const int64_t stride = t->x_stride;
    for (int32_t k = 0; k < t->in_features; k++, x++, w += 2 * half) {
        __m512 w_low = load_weights(w, weights), w_high = load_weights(w + half, weights);
        if (rows >= MIN_PREFETCH_ROWS)
            prefetch(t, w, weights == DTYPE_F32 ? 2 : 1);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512 factor = _mm512_set1_ps(x[r * stride]);
            low[r] = _mm512_fmadd_ps(w_low, factor, low[r]);
            high[r] = _mm512_fmadd_ps(w_high, factor, high[r]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        store_row(t, r, low[r], high[r]);
}

static inline __attribute__((always_inline)) void run_tile_pairs(const struct tile *t,
                                                                 const int rows)
{
    const __m512i odd_mask = _mm512_set1_epi32((int)0xffff0000u);
    __m512 low[MAX_TILE_PAIRS], high[MAX_TILE_PAIRS];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = _mm512_setzero_ps();
    const float *x = t->x;
    const char *w = t->panel;
    const int64_t stride = t->x_stride;
    for (int32_t k = 0; k < t->in_features; k += 2, x += 2, w += LINEAR_PANEL * 4) {
        __m512i pairs_low = _mm512_load_si512(w), pairs_high = _mm512_load_si512(w + 64);
        if (rows >= MIN_PREFETCH_ROWS)
            prefetch(t, w, 2);
        __m512 w_low = _mm512_castsi512_ps(_mm512_slli_epi32(pairs_low, 16));
        __m512 w_high = _mm512_castsi512_ps(_mm512_slli_epi32(pairs_high, 16));
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512 factor = _mm512_set1_ps(x[r * stride]);
            low[r] = _mm512_fmadd_ps(w_low, factor, low[r]);
            high[r] = _mm512_fmadd_ps(w_high, factor, high[r]);
        }
        w_low = _mm512_castsi512_ps(_mm512_and_si512(pairs_low, odd_mask));
        w_high = _mm512_castsi512_ps(_mm512_and_si512(pairs_high, odd_mask));
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512 factor = _mm512_set1_ps(x[r * stride + 1]);
            low[r] = _mm512_fmadd_ps(w_low, factor, low[r]);
            high[r] = _mm512_fmadd_ps(w_high, factor, high[r]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        store_row(t, r, low[r], high[r]);
}

#define TILE(ROWS)                                                                                 \
    static void run_f32_##ROWS(const struct tile *t)                                               \
    {                                                                                              \
        run_tile(t, ROWS, DTYPE_F32);                                                              \
    }                                                                                              \
    static void run_f16_##ROWS(const struct tile *t)                                               \
    {                                                                                              \
        run_tile(t, ROWS, DTYPE_F16);                                                              \
    }
#define TILE_PAIRS(ROWS)                                                                           \
    static void run_pairs_##ROWS(const struct tile *t)                                             \
    {                                                                                              \
        run_tile_pairs(t, ROWS);                                                                   \
    }
#define ALL_HEIGHTS(M) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)
ALL_HEIGHTS(TILE)
TILE(12)
ALL_HEIGHTS(TILE_PAIRS)

static void (*const run_f32[MAX_TILE + 1])(const struct tile *t) = {
    NULL,      run_f32_1, run_f32_2, run_f32_3,  run_f32_4,  run_f32_5, run_f32_6,
    run_f32_7, run_f32_8, run_f32_9, run_f32_10, run_f32_11, run_f32_12
};
static void (*const run_f16[MAX_TILE + 1])(const struct tile *t) = {
    NULL,      run_f16_1, run_f16_2, run_f16_3,  run_f16_4,  run_f16_5, run_f16_6,
    run_f16_7, run_f16_8, run_f16_9, run_f16_10, run_f16_11, run_f16_12
};
static void (*const run_pairs[MAX_TILE_PAIRS + 1])(const struct tile *t) = {
    NULL,        run_pairs_1, run_pairs_2, run_pairs_3, run_pairs_4,  run_pairs_5,
    run_pairs_6, run_pairs_7, run_pairs_8, run_pairs_9, run_pairs_10, run_pairs_11
};

static void run_block(const struct linear_block *b, enum dtype weights, int32_t max_tile,
                      void (*const *run)(const struct tile *t))
{
    size_t panel_bytes = linear_panel_bytes(weights, b->in_features);
    size_t num_panels = ((size_t)b->cols + LINEAR_PANEL - 1) / LINEAR_PANEL;
    struct tile t = { .x_stride = b->x_stride,
                      .end = (const char *)b->packed + num_panels * panel_bytes,
                      .out_stride = b->out_stride,
                      .in_features = b->in_features,
                      .resume = b->resume };
    int32_t num_tiles = (b->rows + max_tile - 1) / max_tile;
    for (int32_t col = 0; col < b->cols; col += LINEAR_PANEL) {
        t.panel = (const char *)b->packed + (size_t)(col / LINEAR_PANEL) * panel_bytes;
        t.cols = b->cols - col < LINEAR_PANEL ? b->cols - col : LINEAR_PANEL;
        t.bias = b->bias ? b->bias + col : NULL;
        int32_t row = 0;
        for (int32_t i = 0; i < num_tiles; i++) {
            /* Evenly high tiles: 13 rows are 7 and 6, not 12 and a wasteful 1. */
            int32_t rows = (b->rows - row + num_tiles - i - 1) / (num_tiles - i);
            t.x = (const float *)b->x + row * b->x_stride;
            t.out = b->out + row * b->out_stride + col;
            run[rows](&t);
            row += rows;
        }
    }
}

void linear_run_f32_avx512(const struct linear_block *b)
{
    run_block(b, DTYPE_F32, MAX_TILE, run_f32);
}

void linear_run_f16_avx512(const struct linear_block *b)
{
    run_block(b, DTYPE_F16, MAX_TILE, run_f16);
}

void linear_run_bf16_avx512(const struct linear_block *b)
{
    run_block(b, DTYPE_BF16, MAX_TILE_PAIRS, run_pairs);
}
