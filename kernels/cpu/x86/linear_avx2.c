/* linear_avx2.c - products in float32 with AVX2 and FMA, for weights of any plain dtype.
 *
 * Sixteen registers hold a tile of up to six rows and half a panel (four rows for bfloat16, whose
 * weights take twice the registers), or of one or two rows and a whole panel, so that few rows read
 * memory in order. Weights are widened as they are read; a pair of bfloat16 steps is summed even
 * first, then odd. All shapes of a tile sum in the same order. */
#include "kernels/cpu/linear.h"

#include <immintrin.h>
#include <string.h>

enum {
    MAX_TILE = 6,
    MAX_TILE_PAIRS = 4,
    MAX_WIDE_TILE = 2,       /* rows of a tile as wide as the panel */
    WIDE = LINEAR_PANEL / 8, /* registers across */
    HALF = WIDE / 2
};

struct tile {
    const float *x;
    int64_t x_stride;
    const char *panel; /* at the half that the tile computes */
    float *out;
    int64_t out_stride;
    const float *bias;
    int32_t in_features, cols;
    bool resume;
};

static inline __attribute__((always_inline)) void store_row(const struct tile *t, int row,
                                                            const __m256 *sums, const int width)
{
    float *out = t->out + row * t->out_stride, cut[LINEAR_PANEL];
    if (t->cols >= 8 * width) {
        for (int i = 0; i < width; i++) {
            __m256 sum = sums[i];
            if (t->bias)
                sum = _mm256_add_ps(sum, _mm256_loadu_ps(t->bias + 8 * i));
            _mm256_storeu_ps(out + 8 * i, sum);
        }
        return;
    }
    for (int i = 0; i < width; i++)
        _mm256_storeu_ps(cut + 8 * i, sums[i]);
    for (int32_t j = 0; j < t->cols; j++)
        out[j] = t->bias ? cut[j] + t->bias[j] : cut[j];
}

/* Zeros, or what an earlier piece of the columns has left in the output. */
static inline __attribute__((always_inline)) void begin_row(const struct tile *t, int row,
                                                            __m256 *sums, const int width)
{
    const float *out = t->out + row * t->out_stride;
    if (!t->resume) {
#pragma GCC unroll 4
        for (int i = 0; i < width; i++)
            sums[i] = _mm256_setzero_ps();
        return;
    }
    float cut[LINEAR_PANEL] = { 0 };
    memcpy(cut, out, (size_t)(t->cols < 8 * width ? t->cols : 8 * width) * sizeof *cut);
#pragma GCC unroll 4
    for (int i = 0; i < width; i++)
        sums[i] = _mm256_loadu_ps(cut + 8 * i);
}

/* One step along in_features for 8 outputs. */
static inline __m256 load_weights(const void *w, const enum dtype weights)
{
    if (weights == DTYPE_F32)
        return _mm256_load_ps(w);
    return _mm256_cvtph_ps(_mm_load_si128(w));
}

static inline __attribute__((always_inline)) void run_tile(const struct tile *t, const int rows,
                                                           const int width,
                                                           const enum dtype weights)
{
    const size_t eight = weights == DTYPE_F32 ? 32 : 16; /* bytes of 8 weights */
    __m256 sum[MAX_TILE][WIDE], w[WIDE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        begin_row(t, r, sum[r], width);
    const float *x = t->x;
    const char *at = t->panel;
    const int64_t stride = t->x_stride;
    for (int32_t k = 0; k < t->in_features; k++, x++, at += WIDE * eight) {
#pragma GCC unroll 4
        for (int i = 0; i < width; i++)
            w[i] = load_weights(at + (size_t)i * eight, weights);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m256 factor = _mm256_broadcast_ss(x + r * stride);
#pragma GCC unroll 4
            for (int i = 0; i < width; i++)
                sum[r][i] = _mm256_fmadd_ps(w[i], factor, sum[r][i]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        store_row(t, r, sum[r], width);
}

static inline __attribute__((always_inline)) void run_tile_pairs(const struct tile *t,
                                                                 const int rows, const int width)
{
    const __m256i odd_mask = _mm256_set1_epi32((int)0xffff0000u);
    __m256 sum[MAX_TILE_PAIRS][WIDE], w[WIDE];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < width; i++)
            sum[r][i] = _mm256_setzero_ps();
    const float *x = t->x;
    const __m256i *at = (const __m256i *)t->panel;
    const int64_t stride = t->x_stride;
    for (int32_t k = 0; k < t->in_features; k += 2, x += 2, at += WIDE) {
#pragma GCC unroll 4
        for (int i = 0; i < width; i++)
            w[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(at + i), 16));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256 factor = _mm256_broadcast_ss(x + r * stride);
#pragma GCC unroll 4
            for (int i = 0; i < width; i++)
                sum[r][i] = _mm256_fmadd_ps(w[i], factor, sum[r][i]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < width; i++)
            w[i] = _mm256_castsi256_ps(_mm256_and_si256(_mm256_load_si256(at + i), odd_mask));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256 factor = _mm256_broadcast_ss(x + r * stride + 1);
#pragma GCC unroll 4
            for (int i = 0; i < width; i++)
                sum[r][i] = _mm256_fmadd_ps(w[i], factor, sum[r][i]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        store_row(t, r, sum[r], width);
}

#define TILE(ROWS, WIDTH)                                                                          \
    static void run_f32_##ROWS##_##WIDTH(const struct tile *t)                                     \
    {                                                                                              \
        run_tile(t, ROWS, WIDTH, DTYPE_F32);                                                       \
    }                                                                                              \
    static void run_f16_##ROWS##_##WIDTH(const struct tile *t)                                     \
    {                                                                                              \
        run_tile(t, ROWS, WIDTH, DTYPE_F16);                                                       \
    }
#define TILE_PAIRS(ROWS, WIDTH)                                                                    \
    static void run_pairs_##ROWS##_##WIDTH(const struct tile *t)                                   \
    {                                                                                              \
        run_tile_pairs(t, ROWS, WIDTH);                                                            \
    }
#define COMMON_SHAPES(M) M(1, 4) M(2, 4) M(1, 2) M(2, 2) M(3, 2) M(4, 2)
COMMON_SHAPES(TILE)
TILE(5, 2)
TILE(6, 2)
COMMON_SHAPES(TILE_PAIRS)

/* The tiles for weights of one dtype, by their number of rows. */
struct tiles {
    enum dtype weights;
    int32_t max_rows;
    void (*wide[MAX_WIDE_TILE + 1])(const struct tile *t);
    void (*half[MAX_TILE + 1])(const struct tile *t);
};

static const struct tiles tiles_f32 = {
    DTYPE_F32,
    MAX_TILE,
    { NULL, run_f32_1_4, run_f32_2_4 },
    { NULL, run_f32_1_2, run_f32_2_2, run_f32_3_2, run_f32_4_2, run_f32_5_2, run_f32_6_2 },
};
static const struct tiles tiles_f16 = {
    DTYPE_F16,
    MAX_TILE,
    { NULL, run_f16_1_4, run_f16_2_4 },
    { NULL, run_f16_1_2, run_f16_2_2, run_f16_3_2, run_f16_4_2, run_f16_5_2, run_f16_6_2 },
};
static const struct tiles tiles_pairs = {
    DTYPE_BF16,
    MAX_TILE_PAIRS,
    { NULL, run_pairs_1_4, run_pairs_2_4 },
    { NULL, run_pairs_1_2, run_pairs_2_2, run_pairs_3_2, run_pairs_4_2 },
};

static void run_block(const struct linear_block *b, const struct tiles *tiles)
{
    bool wide = b->rows <= MAX_WIDE_TILE;
    int32_t tile_cols = wide ? LINEAR_PANEL : LINEAR_PANEL / 2;
    size_t panel_bytes = linear_panel_bytes(tiles->weights, b->in_features);
    size_t half_bytes = HALF * (tiles->weights == DTYPE_F16 ? 16 : 32); /* of a step or pair */
    struct tile t = { .x_stride = b->x_stride,
                      .out_stride = b->out_stride,
                      .in_features = b->in_features,
                      .resume = b->resume };
    int32_t num_tiles = (b->rows + tiles->max_rows - 1) / tiles->max_rows;
    for (int32_t col = 0; col < b->cols; col += tile_cols) {
        t.panel = (const char *)b->packed + (size_t)(col / LINEAR_PANEL) * panel_bytes +
                  (col % LINEAR_PANEL ? half_bytes : 0);
        t.cols = b->cols - col < tile_cols ? b->cols - col : tile_cols;
        t.bias = b->bias ? b->bias + col : NULL;
        int32_t row = 0;
        for (int32_t i = 0; i < num_tiles; i++) {
            int32_t rows = (b->rows - row + num_tiles - i - 1) / (num_tiles - i);
            t.x = (const float *)b->x + row * b->x_stride;
            t.out = b->out + row * b->out_stride + col;
            (wide ? tiles->wide : tiles->half)[rows](&t);
            row += rows;
        }
    }
}

void linear_run_f32_avx2(const struct linear_block *b)
{
    run_block(b, &tiles_f32);
}

void linear_run_f16_avx2(const struct linear_block *b)
{
    run_block(b, &tiles_f16);
}

void linear_run_bf16_avx2(const struct linear_block *b)
{
    run_block(b, &tiles_pairs);
}
