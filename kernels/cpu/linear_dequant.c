/* linear_dequant.c - products with weights of any format, held as the format stores them.
 *
 * A piece of a panel's rows, short enough that it stays in the cache, is dequantized and packed as
 * float32 in the thread's scratch memory, and all rows of x are multiplied with it before the next
 * piece comes. The sums are kept in the output between pieces, where they lose nothing, so an
 * output is summed along in_features as ever. */
#include "kernels/cpu/linear.h"

#include <string.h>

/* Of a piece, unless one block is longer. Both copies of it then fit the second-level cache. */
enum { PIECE_ELEMENTS = 512 };

size_t linear_panel_bytes_rows(const struct linear *l)
{
    return LINEAR_PANEL * quant_row_bytes(l->format, l->in_features);
}

void linear_pack_rows(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                      const void *src)
{
    size_t row_bytes = quant_row_bytes(l->format, l->in_features);
    memcpy((char *)panel + (size_t)first * row_bytes, src, (size_t)num_rows * row_bytes);
}

void linear_unpack_row_rows(float *dst, const struct linear *l, int32_t row)
{
    const char *at = (const char *)l->packed + (size_t)(row / LINEAR_PANEL) * l->panel_bytes +
                     (size_t)(row % LINEAR_PANEL) * quant_row_bytes(l->format, l->in_features);
    l->format->dequantize(l->format, dst, at, 0, l->in_features);
}

static int32_t piece_elements(const struct quant_format *f)
{
    return f->block_elements < PIECE_ELEMENTS
               ? PIECE_ELEMENTS / f->block_elements * f->block_elements
               : f->block_elements;
}

/* Columns [begin, begin + count) of `cols` rows of a panel; what is missing of a panel is zero. */
static void dequantize_piece(float *packed, float *rows, const struct linear *l, const char *panel,
                             int32_t cols, int32_t begin, int32_t count)
{
    const struct linear piece = { .in_features = count, .out_features = LINEAR_PANEL };
    size_t row_bytes = quant_row_bytes(l->format, l->in_features);
    for (int32_t r = 0; r < cols; r++)
        l->format->dequantize(l->format, rows + (size_t)r * (size_t)count,
                              panel + (size_t)r * row_bytes, begin, count);
    if (cols < LINEAR_PANEL)
        memset(rows + (size_t)cols * (size_t)count, 0,
               (size_t)(LINEAR_PANEL - cols) * (size_t)count * sizeof *rows);
    linear_pack_f32(packed, &piece, 0, LINEAR_PANEL, rows);
}

static void run(const struct linear_block *b, void (*run_f32)(const struct linear_block *b))
{
    const struct linear *l = b->linear;
    int32_t step = piece_elements(l->format);
    float *packed = b->scratch, *rows = packed + LINEAR_PANEL * QUANT_MAX_BLOCK;
    for (int32_t col = 0; col < b->cols; col += LINEAR_PANEL) {
        const char *panel = (const char *)b->packed + (size_t)(col / LINEAR_PANEL) * l->panel_bytes;
        struct linear_block piece = *b;
        piece.packed = packed;
        piece.out = b->out + col;
        piece.cols = b->cols - col < LINEAR_PANEL ? b->cols - col : LINEAR_PANEL;
        for (int32_t k = 0; k < b->in_features; k += step) {
            piece.in_features = b->in_features - k < step ? b->in_features - k : step;
            piece.x = (const float *)b->x + k;
            piece.resume = k > 0;
            piece.bias = b->bias && k + step >= b->in_features ? b->bias + col : NULL;
            dequantize_piece(packed, rows, l, panel, piece.cols, k, piece.in_features);
            run_f32(&piece);
        }
    }
}

void linear_run_dequant_scalar(const struct linear_block *b)
{
    run(b, linear_run_f32_scalar);
}

#if defined(__x86_64__)
void linear_run_dequant_avx2(const struct linear_block *b)
{
    run(b, linear_run_f32_avx2);
}

void linear_run_dequant_avx512(const struct linear_block *b)
{
    run(b, linear_run_f32_avx512);
}
#endif
