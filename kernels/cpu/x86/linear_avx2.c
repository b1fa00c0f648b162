/* linear_avx2.c - products in float32 with AVX2 and FMA, for weights of any plain dtype.
 *
 * Sixteen registers hold a tile of up to six rows and half a panel (four rows for bfloat16, whose
 * weights take twice the registers). Weights are widened as they are read; a pair of bfloat16 steps
 * is summed even first, then odd. All heights of a tile sum in the same order. */
#include "kernels/cpu/linear.h"

#include <immintrin.h>
#include <string.h>

enum { MAX_TILE = 6, MAX_TILE_PAIRS = 4, HALF_PANEL = LINEAR_PANEL / 2 };

struct tile {
    const float *x;
    int64_t x_stride;
    const char *panel; /* at the half that the tile computes */
    float *out;
    int64_t out_stride;
    const float *bias;
    int32_t in_features, cols;
};

static inline void store_row(const struct tile *t, int row, __m256 low, __m256 high)
{
    float *out = t->out + row * t->out_stride;
    if (t->cols >= HALF_PANEL) {
        if (t->bias) {
            low = _mm256_add_ps(low, _mm256_loadu_ps(t->bias));
            high = _mm256_add_ps(high, _mm256_loadu_ps(t->bias + 8));
        }
        _mm256_storeu_ps(out, low);
        _mm256_storeu_ps(out + 8, high);
        return;
    }
    float sums[HALF_PANEL];
    _mm256_storeu_ps(sums, low);
    _mm256_storeu_ps(sums + 8, high);
    for (int32_t j = 0; j < t->cols; j++)
        out[j] = t->bias ? sums[j] + t->bias[j] : sums[j];
}

/* One step along in_features for 8 outputs. */
static inline __m256 load_weights(const char *w, const enum dtype weights)
{
    if (weights == DTYPE_F32)
        return _mm256_load_ps((const float *)w);
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)w));
}

static inline __attribute__((always_inline)) void run_tile(const struct tile *t, const int rows,
                                                           const enum dtype weights)
{
    const size_t quarter = weights == DTYPE_F32 ? 32 : 16; /* bytes of 8 weights */
    __m256 low[MAX_TILE], high[MAX_TILE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = _mm256_setzero_ps();
    const float *x = t->x;
    const char *w = t->panel;
    const int64_t stride = t->x_stride;
    for (int32_t k = 0; k < t->in_features; k++, x++, w += 4 * quarter) {
        __m256 w_low = load_weights(w, weights), w_high = load_weights(w + quarter, weights);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m256 factor = _mm256_broadcast_ss(x + r * stride);
            low[r] = _mm256_fmadd_ps(w_low, factor, low[r]);
            high[r] = _mm256_fmadd_ps(w_high, factor, high[r]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        store_row(t, r, low[r], high[r]);
}

static inline __attribute__((always_inline)) void run_tile_pairs(const struct tile *t,
                                                                 const int rows)
{
    const __m256i odd_mask = _mm256_set1_epi32((int)0xffff0000u);
    __m256 low[MAX_TILE_PAIRS], high[MAX_TILE_PAIRS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = _mm256_setzero_ps();
    const float *x = t->x;
    const char *w = t->panel;
    const int64_t stride = t->x_stride;
    for (int32_t k = 0; k < t->in_features; k += 2, x += 2, w += LINEAR_PANEL * 4) {
        __m256i pairs_low = _mm256_load_si256((const __m256i *)w);
        __m256i pairs_high = _mm256_load_si256((const __m256i *)(w + 32));
        __m256 w_low = _mm256_castsi256_ps(_mm256_slli_epi32(pairs_low, 16));
        __m256 w_high = _mm256_castsi256_ps(_mm256_slli_epi32(pairs_high, 16));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256 factor = _mm256_broadcast_ss(x + r * stride);
            low[r] = _mm256_fmadd_ps(w_low, factor, low[r]);
            high[r] = _mm256_fmadd_ps(w_high, factor, high[r]);
        }
        w_low = _mm256_castsi256_ps(_mm256_and_si256(pairs_low, odd_mask));
        w_high = _mm256_castsi256_ps(_mm256_and_si256(pairs_high, odd_mask));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256 factor = _mm256_broadcast_ss(x + r * stride + 1);
            low[r] = _mm256_fmadd_ps(w_low, factor, low[r]);
            high[r] = _mm256_fmadd_ps(w_high, factor, high[r]);
        }
    }
#pragma GCC unroll 4
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
#define ALL_HEIGHTS(M) M(1) M(2) M(3) M(4)
ALL_HEIGHTS(TILE)
TILE(5)
TILE(6)
ALL_HEIGHTS(TILE_PAIRS)

static void (*const run_f32[MAX_TILE + 1])(const struct tile *t) = {
    NULL, run_f32_1, run_f32_2, run_f32_3, run_f32_4, run_f32_5, run_f32_6
};
static void (*const run_f16[MAX_TILE + 1])(const struct tile *t) = {
    NULL, run_f16_1, run_f16_2, run_f16_3, run_f16_4, run_f16_5, run_f16_6
};
static void (*const run_pairs[MAX_TILE_PAIRS + 1])(const struct tile *t) = {
    NULL, run_pairs_1, run_pairs_2, run_pairs_3, run_pairs_4
};

static void run_block(const struct linear_block *b, enum dtype weights, int32_t max_tile,
                      void (*const *run)(const struct tile *t))
{
    size_t panel_bytes = linear_panel_bytes(weights, b->in_features);
    size_t half_bytes = HALF_PANEL * (weights == DTYPE_F16 ? 2 : 4); /* of one step or pair */
    struct tile t = { .x_stride = b->x_stride,
                      .out_stride = b->out_stride,
                      .in_features = b->in_features };
    int32_t num_tiles = (b->rows + max_tile - 1) / max_tile;
    for (int32_t col = 0; col < b->cols; col += HALF_PANEL) {
        t.panel = (const char *)b->packed + (size_t)(col / LINEAR_PANEL) * panel_bytes +
                  (col % LINEAR_PANEL ? half_bytes : 0);
        t.cols = b->cols - col < HALF_PANEL ? b->cols - col : HALF_PANEL;
        t.bias = b->bias ? b->bias + col : NULL;
        int32_t row = 0;
        for (int32_t i = 0; i < num_tiles; i++) {
            int32_t rows = (b->rows - row + num_tiles - i - 1) / (num_tiles - i);
            t.x = (const float *)b->x + row * b->x_stride;
            t.out = b->out + row * b->out_stride + col;
            run[rows](&t);
            row += rows;
        }
    }
}

void linear_run_f32_avx2(const struct linear_block *b)
{
    run_block(b, DTYPE_F32, MAX_TILE, run_f32);
}

void linear_run_f16_avx2(const struct linear_block *b)
{
    run_block(b, DTYPE_F16, MAX_TILE, run_f16);
}

void linear_run_bf16_avx2(const struct linear_block *b)
{
    run_block(b, DTYPE_BF16, MAX_TILE_PAIRS, run_pairs);
}
