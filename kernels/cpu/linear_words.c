/* linear_words.c - products with the integers and 8-bit floats of kernels/quant, repacked so that
 * vectors of outputs can be made from them without a shuffle.
 *
 * A panel holds, group after group: the scales of its 32 rows, then their zero points or minima if
 * the format has them, then words of 32 bits: [words of the group][32], each with the 8 or 4 codes
 * of one row that follow each other, the first in its lowest bits. So 8 rows are a vector, and code
 * i of all of them is a shift and a mask away. The weights come out in float32, not rounded to the
 * dtype of the format.
 *
 * For many rows of x they are written out, a few dozen columns at a time, in the order in which the
 * float32 kernel wants them, which then runs over all rows. A few rows are multiplied while the
 * weights are in registers, with the same operations in the same order: both ways give the same
 * bits, so that a row's do not depend on how many rows come with it. */
#include "kernels/cpu/linear_words.h"
#include "kernels/quant/fp8.h"
#include "kernels/quant/int_group.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Columns expanded at once: with 32 rows they fill half of the first-level cache. */
enum { PIECE = 128 };

static enum word_codes codes_of(const struct quant_format *f)
{
    return fp8_is(f) ? WORD_FP8 : f->bits == 4 ? WORD_INT4 : WORD_INT8;
}

static int32_t codes_in_word(const struct quant_format *f)
{
    return 32 / f->bits;
}

static int32_t group_of(const struct quant_format *f, int32_t in_features)
{
    return f->header_bytes > 0 ? in_features : f->block_elements;
}

static int32_t num_words(const struct quant_format *f, int32_t count)
{
    return (count + codes_in_word(f) - 1) / codes_in_word(f);
}

static bool has_second(const struct quant_format *f)
{
    return int_group_is(f) && f->offset != QUANT_OFFSET_MIDDLE;
}

static size_t second_bytes(const struct quant_format *f)
{
    return f->offset == QUANT_OFFSET_ZERO ? sizeof(int16_t) : dtype_size(f->dtype);
}

/* Of a group's numbers, before its words. */
static size_t head_bytes(const struct quant_format *f)
{
    return LINEAR_PANEL * (dtype_size(f->dtype) + (has_second(f) ? second_bytes(f) : 0));
}

static size_t group_bytes(const struct quant_format *f, int32_t count)
{
    return head_bytes(f) + (size_t)num_words(f, count) * LINEAR_PANEL * sizeof(uint32_t);
}

size_t linear_panel_bytes_words(const struct linear *l)
{
    const struct quant_format *f = l->format;
    if ((!int_group_is(f) && !fp8_is(f)) ||
        (f->header_bytes == 0 && f->block_elements % codes_in_word(f) != 0))
        return 0;
    int32_t group = group_of(f, l->in_features), whole = l->in_features / group;
    int32_t rest = l->in_features % group;
    return (size_t)whole * group_bytes(f, group) + (rest > 0 ? group_bytes(f, rest) : 0);
}

/* --- packing ---------------------------------------------------------------------------------- */

/* A group's codes with a not-a-number among them, which the kernels do not look for, get a scale
 * that is one. */
static bool has_nan(const struct quant_format *f, const unsigned char *codes, int32_t count)
{
    bool found = false;
    for (int32_t i = 0; fp8_is(f) && i < count; i++)
        found = found || (codes[i] & 0x7f) == 0x7f;
    return found;
}

static void pack_group(unsigned char *panel, const struct quant_format *f, int32_t row,
                       const unsigned char *head, const unsigned char *codes, int32_t count)
{
    size_t scale = dtype_size(f->dtype), bytes = ((size_t)count * (size_t)f->bits + 7) / 8;
    unsigned char *second = panel + LINEAR_PANEL * scale;
    memcpy(panel + (size_t)row * scale, head, scale);
    if (has_nan(f, codes, count))
        memset(panel + (size_t)row * scale, 0xff, scale); /* a NaN of any dtype */
    if (has_second(f))
        memcpy(second + (size_t)row * second_bytes(f), head + scale, second_bytes(f));
    for (size_t w = 0; w * sizeof(uint32_t) < bytes; w++) {
        uint32_t word = 0;
        size_t left = bytes - w * sizeof word;
        memcpy(&word, codes + w * sizeof word, left < sizeof word ? left : sizeof word);
        memcpy(panel + head_bytes(f) + (w * LINEAR_PANEL + (size_t)row) * sizeof word, &word,
               sizeof word);
    }
}

void linear_pack_words(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                       const void *src)
{
    const struct quant_format *f = l->format;
    int32_t group = group_of(f, l->in_features);
    size_t row_bytes = quant_row_bytes(f, l->in_features);
    size_t head = fp8_is(f) ? dtype_size(f->dtype) : int_group_head_bytes(f);
    for (int32_t r = 0; r < num_rows; r++) {
        const unsigned char *row = (const unsigned char *)src + (size_t)r * row_bytes;
        unsigned char *to = panel;
        for (int32_t k = 0; k < l->in_features; k += group) {
            int32_t n = l->in_features - k < group ? l->in_features - k : group;
            const unsigned char *at = row + (size_t)(k / group) * (size_t)f->block_bytes;
            pack_group(to, f, first + r, at, at + head, n);
            to += group_bytes(f, n);
        }
    }
}

/* --- products --------------------------------------------------------------------------------- */

const void *linear_words_second(const struct quant_format *f, const unsigned char *group)
{
    return group + LINEAR_PANEL * dtype_size(f->dtype);
}

static void read_heads(struct word_heads *h, const struct quant_format *f,
                       const unsigned char *group)
{
    const void *second = linear_words_second(f, group);
    int16_t zero[LINEAR_PANEL];
    dtype_convert(h->scale, DTYPE_F32, group, f->dtype, LINEAR_PANEL);
    if (fp8_is(f)) {
        memset(h->offset, 0, sizeof h->offset);
        return;
    }
    if (f->offset == QUANT_OFFSET_MIN) {
        dtype_convert(h->offset, DTYPE_F32, second, f->dtype, LINEAR_PANEL);
        return;
    }
    for (int j = 0; j < LINEAR_PANEL; j++)
        zero[j] = (int16_t)(1 << (f->bits - 1));
    if (f->offset == QUANT_OFFSET_ZERO)
        memcpy(zero, second, sizeof zero);
    for (int j = 0; j < LINEAR_PANEL; j++)
        h->offset[j] = -(float)zero[j] * h->scale[j];
}

/* A few rows and one panel. */
static void run_panel_few(const struct linear_block *b, const unsigned char *panel,
                          const struct word_kernels *kernels)
{
    const struct quant_format *f = b->linear->format;
    const int32_t group = group_of(f, b->in_features);
    _Alignas(64) float sums[WORD_FEW_ROWS][LINEAR_PANEL];
    struct word_rows r = { b->x, b->x_stride, b->rows, sums };
    memset(sums, 0, (size_t)b->rows * sizeof *sums);
    for (int32_t k = 0; k < b->in_features; k += group, r.x += group) {
        int32_t n = b->in_features - k < group ? b->in_features - k : group;
        struct word_group g = { f, panel, (const uint32_t *)(panel + head_bytes(f)), n };
        kernels->multiply[codes_of(f)](&r, &g);
        panel += group_bytes(f, n);
    }
    for (int32_t i = 0; i < b->rows; i++)
        for (int32_t j = 0; j < b->cols; j++)
            b->out[i * b->out_stride + j] = b->bias ? sums[i][j] + b->bias[j] : sums[i][j];
}

static void run_panel(const struct linear_block *b, const unsigned char *panel,
                      const struct word_kernels *kernels)
{
    const struct quant_format *f = b->linear->format;
    const int32_t group = group_of(f, b->in_features), in_word = codes_in_word(f);
    word_expand *expand = kernels->expand[codes_of(f)];
    struct linear_block piece = *b;
    struct word_heads heads;
    float *scratch = b->scratch;
    piece.packed = scratch;
    int32_t filled = 0, done = 0; /* columns in the scratch memory, and before them */
    for (int32_t k = 0; k < b->in_features; k += group) {
        int32_t n = b->in_features - k < group ? b->in_features - k : group;
        const uint32_t *words = (const uint32_t *)(panel + head_bytes(f));
        kernels->read_heads(&heads, f, panel);
        for (int32_t i = 0; i < n;) {
            int32_t room = PIECE - filled, take = n - i < room ? n - i : room;
            expand(scratch + (size_t)filled * LINEAR_PANEL,
                   words + (size_t)(i / in_word) * LINEAR_PANEL, (take + in_word - 1) / in_word,
                   &heads);
            filled += take;
            i += take;
            if (filled < PIECE && k + i < b->in_features)
                continue;
            piece.in_features = filled;
            piece.x = (const float *)b->x + done;
            piece.resume = done > 0;
            piece.bias = k + i >= b->in_features ? b->bias : NULL;
            kernels->run_f32(&piece);
            done += filled;
            filled = 0;
        }
        panel += group_bytes(f, n);
    }
}

void linear_run_words(const struct linear_block *b, const struct word_kernels *kernels)
{
    static_assert(PIECE % 8 == 0, "words are expanded whole");
    bool few = b->rows <= WORD_FEW_ROWS && kernels->multiply[codes_of(b->linear->format)];
    for (int32_t col = 0; col < b->cols; col += LINEAR_PANEL) {
        struct linear_block one = *b;
        one.cols = b->cols - col < LINEAR_PANEL ? b->cols - col : LINEAR_PANEL;
        one.out = b->out + col;
        one.bias = b->bias ? b->bias + col : NULL;
        (few ? run_panel_few : run_panel)(&one,
                                          (const unsigned char *)b->packed +
                                              (size_t)(col / LINEAR_PANEL) * b->linear->panel_bytes,
                                          kernels);
    }
}

/* --- in plain C ------------------------------------------------------------------------------- */

static void expand_int(float *dst, const uint32_t *words, int32_t num_words,
                       const struct word_heads *h, int bits)
{
    uint32_t mask = (1u << bits) - 1;
    for (int32_t w = 0; w < num_words; w++, words += LINEAR_PANEL)
        for (int shift = 0; shift < 32; shift += bits, dst += LINEAR_PANEL)
            for (int j = 0; j < LINEAR_PANEL; j++)
                dst[j] =
                    fmaf((float)(int32_t)(words[j] >> shift & mask), h->scale[j], h->offset[j]);
}

static void expand_int4(float *dst, const uint32_t *words, int32_t num_words,
                        const struct word_heads *h)
{
    expand_int(dst, words, num_words, h, 4);
}

static void expand_int8(float *dst, const uint32_t *words, int32_t num_words,
                        const struct word_heads *h)
{
    expand_int(dst, words, num_words, h, 8);
}

static void expand_fp8(float *dst, const uint32_t *words, int32_t num_words,
                       const struct word_heads *h)
{
    for (int32_t w = 0; w < num_words; w++, words += LINEAR_PANEL)
        for (int shift = 0; shift < 32; shift += 8, dst += LINEAR_PANEL)
            for (int j = 0; j < LINEAR_PANEL; j++)
                dst[j] = fp8_e4m3_to_f32((uint8_t)(words[j] >> shift)) * h->scale[j];
}

void linear_run_words_scalar(const struct linear_block *b)
{
    static const struct word_kernels kernels = {
        read_heads, { expand_int4, expand_int8, expand_fp8 }, { NULL }, linear_run_f32_scalar
    };
    linear_run_words(b, &kernels);
}

/* Seldom used: embeddings are hardly ever stored so. */
void linear_unpack_row_words(float *dst, const struct linear *l, int32_t row)
{
    const struct quant_format *f = l->format;
    const unsigned char *panel =
        (const unsigned char *)l->packed + (size_t)(row / LINEAR_PANEL) * l->panel_bytes;
    int32_t group = group_of(f, l->in_features), in_word = codes_in_word(f),
            at = row % LINEAR_PANEL;
    struct word_heads h;
    for (int32_t k = 0; k < l->in_features; k++) {
        int32_t i = k % group, left = l->in_features - (k - i);
        if (i == 0)
            read_heads(&h, f, panel);
        uint32_t word;
        memcpy(&word,
               panel + head_bytes(f) + ((size_t)(i / in_word) * LINEAR_PANEL + (size_t)at) * 4,
               sizeof word);
        uint32_t code = word >> f->bits * (i % in_word) & ((1u << f->bits) - 1);
        dst[k] = fp8_is(f) ? fp8_e4m3_to_f32((uint8_t)code) * h.scale[at]
                           : fmaf((float)(int32_t)code, h.scale[at], h.offset[at]);
        if (i + 1 == group)
            panel += group_bytes(f, left < group ? left : group);
    }
}
