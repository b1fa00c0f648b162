/* linear_scalar.c - the products in plain C: the oracle of all other kernels, and what runs where
 * there is none. The loops go across a panel's 32 outputs, which any compiler vectorises. */
#include "kernels/cpu/linear.h"

#include <string.h>

/* Rows taken together, so that weights are widened once for all of them. */
enum { MAX_ROWS = 4 };

static inline int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The expand functions widen the weights of one or two steps and say how many. */

static inline int32_t expand_pairs(float w[2][LINEAR_PANEL], const void *panel, int32_t k)
{
    const uint32_t *src = (const uint32_t *)panel + (size_t)(k / 2) * LINEAR_PANEL;
    uint32_t even[LINEAR_PANEL], odd[LINEAR_PANEL];
    for (int j = 0; j < LINEAR_PANEL; j++) {
        even[j] = src[j] << 16;
        odd[j] = src[j] & 0xffff0000u;
    }
    memcpy(w[0], even, sizeof even);
    memcpy(w[1], odd, sizeof odd);
    return 2;
}

static inline int32_t expand_f32(float w[2][LINEAR_PANEL], const void *panel, int32_t k)
{
    memcpy(w[0], (const float *)panel + (size_t)k * LINEAR_PANEL, sizeof w[0]);
    return 1;
}

static inline int32_t expand_f16(float w[2][LINEAR_PANEL], const void *panel, int32_t k)
{
    dtype_convert(w[0], DTYPE_F32, (const uint16_t *)panel + (size_t)k * LINEAR_PANEL, DTYPE_F16,
                  LINEAR_PANEL);
    return 1;
}

static inline __attribute__((always_inline)) void run_panel(
    const struct linear_block *b, const void *panel, int32_t col,
    int32_t (*expand)(float w[2][LINEAR_PANEL], const void *panel, int32_t k))
{
    int32_t cols = min_i32(LINEAR_PANEL, b->cols - col);
    for (int32_t row = 0; row < b->rows; row += MAX_ROWS) {
        int32_t rows = min_i32(MAX_ROWS, b->rows - row);
        const float *x = (const float *)b->x + row * b->x_stride;
        float sum[MAX_ROWS][LINEAR_PANEL] = { { 0 } };
        for (int32_t r = 0; r < rows && b->resume; r++)
            memcpy(sum[r], b->out + (row + r) * b->out_stride + col, (size_t)cols * sizeof(float));
        for (int32_t k = 0; k < b->in_features;) {
            float w[2][LINEAR_PANEL];
            int32_t steps = expand(w, panel, k);
            for (int32_t s = 0; s < steps; s++, k++)
                for (int32_t r = 0; r < rows; r++) {
                    float factor = x[r * b->x_stride + k];
                    for (int j = 0; j < LINEAR_PANEL; j++)
                        sum[r][j] += factor * w[s][j];
                }
        }
        for (int32_t r = 0; r < rows; r++) {
            float *out = b->out + (row + r) * b->out_stride + col;
            for (int32_t j = 0; j < cols; j++)
                out[j] = b->bias ? sum[r][j] + b->bias[col + j] : sum[r][j];
        }
    }
}

static inline __attribute__((always_inline)) void run_block(
    const struct linear_block *b, enum dtype weights,
    int32_t (*expand)(float w[2][LINEAR_PANEL], const void *panel, int32_t k))
{
    size_t panel_bytes = linear_panel_bytes(weights, b->in_features);
    const char *panel = b->packed;
    for (int32_t col = 0; col < b->cols; col += LINEAR_PANEL, panel += panel_bytes)
        run_panel(b, panel, col, expand);
}

void linear_run_bf16_scalar(const struct linear_block *b)
{
    run_block(b, DTYPE_BF16, expand_pairs);
}

void linear_run_f32_scalar(const struct linear_block *b)
{
    run_block(b, DTYPE_F32, expand_f32);
}

void linear_run_f16_scalar(const struct linear_block *b)
{
    run_block(b, DTYPE_F16, expand_f16);
}
