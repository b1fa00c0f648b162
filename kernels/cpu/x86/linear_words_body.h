/* linear_words_body.h - words of codes to float32, to memory or at once into products, with the
 * vectors that the including file has: an integer vector `veci`, a float vector `vecf` and the
 * macros below.
 *
 * An integer code is not shifted down: masked where it stands it is the code times a power of two,
 * whose inverse goes into the scale. That loses nothing, unless the scale is so small that the
 * result is no normal number, and both ways of multiplying do the same. */
#include "kernels/cpu/linear_words.h"
#include "kernels/quant/fp8.h"

_Static_assert(LINEAR_PANEL % VEC_WIDTH == 0, "a panel is whole vectors");

#define INLINE static inline __attribute__((always_inline))

enum { VECTORS = LINEAR_PANEL / VEC_WIDTH, MAX_PLACES = 8, MAX_TILE = 6 };

INLINE int in_word_of(const enum word_codes codes)
{
    return codes == WORD_INT4 ? 8 : 4;
}

/* Places where the mask and the scale differ. */
INLINE int places_of(const enum word_codes codes)
{
    return codes == WORD_FP8 ? 1 : in_word_of(codes);
}

/* --- the numbers of a group ------------------------------------------------------------------- */

INLINE vecf load_numbers(const void *at, enum dtype dtype, int v)
{
    if (dtype == DTYPE_F32)
        return VEC_LOAD_F((const float *)at + v * VEC_WIDTH);
    const uint16_t *narrow = (const uint16_t *)at + v * VEC_WIDTH;
    if (dtype == DTYPE_F16)
        return VEC_LOAD_F16(narrow);
    return VEC_AS_FLOAT(VEC_SHIFT_LEFT(VEC_LOAD_I16(narrow), 16));
}

INLINE void load_heads(vecf *scale, vecf *offset, const struct quant_format *f,
                       const unsigned char *group, int v)
{
    const void *second = linear_words_second(f, group);
    *scale = load_numbers(group, f->dtype, v);
    if (f->offset == QUANT_OFFSET_MIN) {
        *offset = load_numbers(second, f->dtype, v);
        return;
    }
    veci zero = VEC_SET_I(1 << (f->bits - 1)); /* floats do not look at it */
    if (f->offset == QUANT_OFFSET_ZERO)
        zero = VEC_LOAD_I16((const int16_t *)second + v * VEC_WIDTH);
    *offset = VEC_MUL(VEC_TO_FLOAT(zero), VEC_MUL(*scale, VEC_SET_F(-1.0f)));
}

static void read_heads(struct word_heads *h, const struct quant_format *f,
                       const unsigned char *group)
{
    for (int v = 0; v < VECTORS; v++) {
        vecf scale, offset;
        load_heads(&scale, &offset, f, group, v);
        VEC_STORE(h->scale + v * VEC_WIDTH, scale);
        VEC_STORE(h->offset + v * VEC_WIDTH, offset);
    }
}

/* --- one code of each lane -------------------------------------------------------------------- */

/* What the scale is multiplied with at each place. The last code is shifted after all, as it would
 * be the sign. */
static const float factors[NUM_WORD_CODES][MAX_PLACES] = {
    [WORD_INT4] = { 1, 0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f, 0x1p-20f, 0x1p-24f, 1 },
    [WORD_INT8] = { 1, 0x1p-8f, 0x1p-16f, 1 },
    [WORD_FP8] = { 1 },
};
static const int32_t masks[NUM_WORD_CODES][MAX_PLACES] = {
    [WORD_INT4] = { 0xf, 0xf0, 0xf00, 0xf000, 0xf0000, 0xf00000, 0xf000000 },
    [WORD_INT8] = { 0xff, 0xff00, 0xff0000 },
    [WORD_FP8] = { (int32_t)0x87f00000u },
};

/* Code `i` of the words; mask and scale are those for its place. */
INLINE vecf weight_of(const enum word_codes codes, veci word, int i, veci mask, vecf scale,
                      vecf offset)
{
    const int in_word = in_word_of(codes);
    if (codes != WORD_FP8) {
        veci code =
            i == in_word - 1 ? VEC_SHIFT_RIGHT(word, 32 - 32 / in_word) : VEC_AND(word, mask);
        return VEC_FMA(VEC_TO_FLOAT(code), scale, offset);
    }
    /* As in fp8_e4m3_to_f32, but for the NaN, which packing has taken out: sign, exponent and
     * fraction where a float32 has them, the exponent's bias moved by the product. */
    veci number = VEC_AND(VEC_SHIFT_SIGNED(VEC_SHIFT_LEFT(word, 24 - 8 * i), 4), mask);
    return VEC_MUL(VEC_MUL(VEC_AS_FLOAT(number), VEC_SET_F(0x1p120f)), scale);
}

/* --- to memory -------------------------------------------------------------------------------- */

/* A vector of rows at a time, so that its scales stay in registers. */
INLINE void expand(float *dst, const uint32_t *words, int32_t num_words, const struct word_heads *h,
                   const enum word_codes codes)
{
    const int in_word = in_word_of(codes), places = places_of(codes);
    for (int v = 0; v < VECTORS; v++) {
        const vecf offset = VEC_LOAD_F(h->offset + v * VEC_WIDTH);
        const uint32_t *from = words + v * VEC_WIDTH;
        float *to = dst + v * VEC_WIDTH;
        vecf scale[MAX_PLACES];
#pragma GCC unroll 8
        for (int i = 0; i < places; i++)
            scale[i] = VEC_MUL(VEC_LOAD_F(h->scale + v * VEC_WIDTH), VEC_SET_F(factors[codes][i]));
        for (int32_t w = 0; w < num_words; w++, from += LINEAR_PANEL) {
            const veci word = VEC_LOAD_I(from);
#pragma GCC unroll 8
            for (int i = 0; i < in_word; i++, to += LINEAR_PANEL)
                VEC_STORE(to, weight_of(codes, word, i, VEC_SET_I(masks[codes][i % places]),
                                        scale[i % places], offset));
        }
    }
}

static void expand_int4(float *dst, const uint32_t *words, int32_t num_words,
                        const struct word_heads *h)
{
    expand(dst, words, num_words, h, WORD_INT4);
}

static void expand_int8(float *dst, const uint32_t *words, int32_t num_words,
                        const struct word_heads *h)
{
    expand(dst, words, num_words, h, WORD_INT8);
}

static void expand_fp8(float *dst, const uint32_t *words, int32_t num_words,
                       const struct word_heads *h)
{
    expand(dst, words, num_words, h, WORD_FP8);
}

#define EXPAND                                                                                     \
    {                                                                                              \
        expand_int4, expand_int8, expand_fp8                                                       \
    }

/* --- into products ---------------------------------------------------------------------------- */

/* A group's numbers; scales by place in the word. */
struct numbers {
    _Alignas(64) float scale[MAX_PLACES][LINEAR_PANEL];
    _Alignas(64) float offset[LINEAR_PANEL];
};

/* Rows from `row` on and outputs from vector `first` on, times `count` columns of words. */
struct tile {
    const struct word_rows *r;
    int32_t row, first, count;
    const uint32_t *words;
    const struct numbers *numbers;
};

/* What one step along in_features needs, at the tile's first output. */
struct step {
    const float *x, *scale, *offset;
    int64_t x_stride;
    const int32_t *mask;
    veci word[VECTORS];
};

/* Code `i` of the words, for all rows of the tile. */
INLINE void add_column(vecf (*sum)[VECTORS], const struct step *s, int i,
                       const enum word_codes codes, const int rows, const int width)
{
    vecf weight[VECTORS];
    const int place = i % places_of(codes);
    const veci mask = VEC_SET_I(s->mask[place]);
#pragma GCC unroll 4
    for (int v = 0; v < width; v++)
        weight[v] = weight_of(codes, s->word[v], i, mask,
                              VEC_LOAD_F(s->scale + place * LINEAR_PANEL + v * VEC_WIDTH),
                              VEC_LOAD_F(s->offset + v * VEC_WIDTH));
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        const vecf factor = VEC_SET_F(s->x[r * s->x_stride + i]);
#pragma GCC unroll 4
        for (int v = 0; v < width; v++)
            sum[r][v] = VEC_FMA(weight[v], factor, sum[r][v]);
    }
}

INLINE void load_words(struct step *s, const uint32_t *from, const int width)
{
#pragma GCC unroll 4
    for (int v = 0; v < width; v++)
        s->word[v] = VEC_LOAD_I(from + v * VEC_WIDTH);
    /* Else they are all loaded before the loop, to be stored again on the stack. */
    __asm__("" : "+r"(s->scale), "+r"(s->mask));
}

INLINE void multiply_tile(const struct tile *t, const enum word_codes codes, const int rows,
                          const int width)
{
    const int in_word = in_word_of(codes);
    const uint32_t *from = t->words + t->first * VEC_WIDTH;
    struct step s = { .x = t->r->x + t->row * t->r->x_stride,
                      .scale = t->numbers->scale[0] + t->first * VEC_WIDTH,
                      .offset = t->numbers->offset + t->first * VEC_WIDTH,
                      .x_stride = t->r->x_stride,
                      .mask = masks[codes] };
    vecf sum[MAX_TILE][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < width; v++)
            sum[r][v] = VEC_LOAD_F(t->r->sums[t->row + r] + (t->first + v) * VEC_WIDTH);
    int32_t left = t->count;
    for (; left >= in_word; left -= in_word, s.x += in_word, from += LINEAR_PANEL) {
        load_words(&s, from, width);
#pragma GCC unroll 8
        for (int i = 0; i < in_word; i++)
            add_column(sum, &s, i, codes, rows, width);
    }
    for (int i = 0; i < left; i++) {
        load_words(&s, from, width);
        add_column(sum, &s, i, codes, rows, width);
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < width; v++)
            VEC_STORE(t->r->sums[t->row + r] + (t->first + v) * VEC_WIDTH, sum[r][v]);
}

/* Tiles by their number of rows. */
struct shape {
    int32_t width; /* vectors of outputs */
    void (*run[NUM_WORD_CODES])(const struct tile *t);
};

INLINE void multiply(const struct word_rows *r, const struct word_group *g,
                     const enum word_codes codes, const struct shape *shapes)
{
    struct numbers n;
    for (int v = 0; v < VECTORS; v++) {
        vecf scale, offset;
        load_heads(&scale, &offset, g->format, g->head, v);
        VEC_STORE(n.offset + v * VEC_WIDTH, offset);
        for (int i = 0; i < places_of(codes); i++)
            VEC_STORE(n.scale[i] + v * VEC_WIDTH, VEC_MUL(scale, VEC_SET_F(factors[codes][i])));
    }
    struct tile t = { .r = r, .count = g->count, .words = g->words, .numbers = &n };
    int32_t num_tiles = (r->rows + MAX_TILE - 1) / MAX_TILE;
    for (int32_t left = num_tiles; left > 0; left--) {
        int32_t rows = (r->rows - t.row + left - 1) / left; /* of about the same height */
        const struct shape *shape = &shapes[rows];
        for (t.first = 0; t.first < VECTORS; t.first += shape->width)
            shape->run[codes](&t);
        t.row += rows;
    }
}

#define DEFINE_TILE(ROWS, WIDTH)                                                                   \
    static void tile_int4_##ROWS(const struct tile *t)                                             \
    {                                                                                              \
        multiply_tile(t, WORD_INT4, ROWS, WIDTH);                                                  \
    }                                                                                              \
    static void tile_int8_##ROWS(const struct tile *t)                                             \
    {                                                                                              \
        multiply_tile(t, WORD_INT8, ROWS, WIDTH);                                                  \
    }                                                                                              \
    static void tile_fp8_##ROWS(const struct tile *t)                                              \
    {                                                                                              \
        multiply_tile(t, WORD_FP8, ROWS, WIDTH);                                                   \
    }
#define SHAPE_ROW(ROWS, WIDTH) { WIDTH, { tile_int4_##ROWS, tile_int8_##ROWS, tile_fp8_##ROWS } },
#define DEFINE_CODES(NAME, CODES)                                                                  \
    static void multiply_##NAME(const struct word_rows *r, const struct word_group *g)             \
    {                                                                                              \
        multiply(r, g, CODES, shapes);                                                             \
    }
/* SHAPES(M): M(rows, vectors of outputs) for 1 to MAX_TILE rows. */
#define DEFINE_MULTIPLY(SHAPES)                                                                    \
    SHAPES(DEFINE_TILE)                                                                            \
    static const struct shape shapes[MAX_TILE + 1] = { { 0, { NULL } }, SHAPES(SHAPE_ROW) };       \
    DEFINE_CODES(int4, WORD_INT4)                                                                  \
    DEFINE_CODES(int8, WORD_INT8)                                                                  \
    DEFINE_CODES(fp8, WORD_FP8)
#define MULTIPLY                                                                                   \
    {                                                                                              \
        multiply_int4, multiply_int8, multiply_fp8                                                 \
    }
