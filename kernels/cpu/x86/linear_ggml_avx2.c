/* linear_ggml_avx2.c - products with weights in ggml's formats, eight rows in a register's 32-bit
 * lanes.
 *
 * Codes of weights become 16-bit numbers, two of a row in a lane, and meet pairs of x's codes in
 * vpmaddwd: elements 0 and 2 of each four, then 1 and 3, so that a pair is a shift or a mask away
 * from a word of four codes; x's codes lie in that order. A few rows of x are multiplied as the
 * codes are widened; for more of them the widened codes of a panel are kept for a piece of its
 * columns, which all rows then run over. Sums of a block are whole numbers and exact, and what is
 * made of them is the same both ways, so a row's bits do not depend on the rows beside it. 32-bit
 * sums never overflow: 32 * 128 * 32767 is the greatest. */
#include "kernels/cpu/linear_ggml.h"
#include "kernels/cpu/x86/linear_ggml_codecs.h"

#include <immintrin.h>
#include <string.h>

enum {
    MAX_ROWS = 4,   /* of x taken together, whose sums fit the registers */
    WIDE_ROWS = 16, /* from so many on codes are widened first */
    GROUPS = LINEAR_PANEL / LINEAR_GGML_ROWS, /* of a panel */
    TILE_GROUPS = 2,
    PIECE_BLOCKS = LINEAR_Q16_PIECE / LINEAR_Q16_BLOCK
};

/* --- x -----------------------------------------------------------------------------------------
 */

INLINE float max_of(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

INLINE int32_t sum_of(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* Below it a block counts as zero: GREATEST_CODE over it would not be finite. */
#define SMALLEST      1e-30f
#define GREATEST_CODE 32767.0f

/* 16 codes as 16 bits each, of every four the first and third, then the second and fourth. */
INLINE __m256i pack_codes(__m256i first, __m256i second)
{
    __m256i v = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8);
    return _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(v, 0xd8), 0xd8);
}

/* The greatest magnitude of `count` elements, a multiple of 32; NaN where one is not finite. */
static float greatest_of(const float *src, int32_t count)
{
    const __m256 abs = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 greatest = _mm256_setzero_ps(), zero = _mm256_setzero_ps();
    for (int32_t i = 0; i < count; i += 8) {
        __m256 v = _mm256_loadu_ps(src + i);
        greatest = _mm256_max_ps(greatest, _mm256_and_ps(abs, v));
        zero = _mm256_add_ps(zero, _mm256_mul_ps(v, _mm256_setzero_ps()));
    }
    bool finite = _mm256_movemask_ps(_mm256_cmp_ps(zero, zero, _CMP_UNORD_Q)) == 0;
    return finite ? max_of(greatest) : __builtin_nanf("");
}

static void convert_block(struct linear_q16 *dst, const float *src, __m256 inverse)
{
    __m256i whole[4];
    for (int i = 0; i < 4; i++)
        whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(src + 8 * i), inverse));
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(whole[0], whole[1]),
                                   _mm256_add_epi32(whole[2], whole[3]));
    dst->sum = (float)sum_of(sum);
    _mm256_storeu_si256((__m256i *)(void *)dst->codes, pack_codes(whole[0], whole[1]));
    _mm256_storeu_si256((__m256i *)(void *)(dst->codes + 16), pack_codes(whole[2], whole[3]));
}

void linear_convert_q16_avx2(void *dst, const float *src, int32_t count)
{
    struct linear_q16 *block = dst;
    for (int32_t k = 0; k < count; k += LINEAR_Q16_PIECE) {
        int32_t n = count - k < LINEAR_Q16_PIECE ? count - k : LINEAR_Q16_PIECE;
        float greatest = greatest_of(src + k, n);
        __m256 inverse = _mm256_set1_ps(greatest >= SMALLEST ? GREATEST_CODE / greatest : 0);
        for (int32_t i = 0; i < n; i += LINEAR_Q16_BLOCK, block++) {
            convert_block(block, src + k + i, inverse);
            block->scale = greatest / GREATEST_CODE;
        }
    }
}

/* --- numbers of 16 bits --------------------------------------------------------------------------
 */

/* Elements 0 and 2 of each four bytes, or 1 and 3. */
INLINE __m256i widened(__m256i codes, bool odd, bool is_signed)
{
    if (!is_signed)
        return odd ? _mm256_srli_epi16(codes, 8) : _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
    return _mm256_srai_epi16(odd ? codes : _mm256_slli_epi16(codes, 8), 8);
}

/* Pair `i` of a block of x, for all lanes. */
INLINE __m256i pair_of(const struct linear_q16 *x, int i)
{
    int32_t bits;
    memcpy(&bits, x->codes + 2 * i, sizeof bits);
    return _mm256_set1_epi32(bits);
}

INLINE __m256i add_products(__m256i sum, __m256i a, __m256i b)
{
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    /* Else the compiler makes a tree of a block's sums, whose leaves do not fit the registers. */
    __asm__("" : "+x"(sum));
    return sum;
}

/* acc += sums * scale */
INLINE __m256 add_scaled(__m256 acc, __m256i sums, __m256 scale)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, acc);
}

INLINE __m256 add_min(__m256 acc, __m256 min, const struct linear_q16 *x)
{
    return _mm256_fmadd_ps(min, _mm256_set1_ps(x->sum), acc);
}

/* What a piece comes to, with the scale of x in it. */
INLINE __m256 add_piece(__m256 total, __m256 acc, const struct linear_q16 *x)
{
    return _mm256_fmadd_ps(acc, _mm256_set1_ps(x->scale), total);
}

/* --- products ------------------------------------------------------------------------------------
 */

/* Totals so far of a row and a group, from column `col` of the output on. */
INLINE __m256 load_totals(const struct linear_block *b, int32_t row, int32_t col)
{
    const float *out = b->out + row * b->out_stride + col;
    float cut[LINEAR_GGML_ROWS] = { 0 };
    if (b->cols - col >= LINEAR_GGML_ROWS)
        return _mm256_loadu_ps(out);
    for (int32_t j = 0; j < b->cols - col; j++)
        cut[j] = out[j];
    return _mm256_loadu_ps(cut);
}

INLINE void store(const struct linear_block *b, int32_t row, int32_t col, __m256 totals, bool last)
{
    float *out = b->out + row * b->out_stride + col, cut[LINEAR_GGML_ROWS];
    const float *bias = b->bias && last ? b->bias + col : NULL;
    if (b->cols - col >= LINEAR_GGML_ROWS) {
        _mm256_storeu_ps(out, bias ? _mm256_add_ps(totals, _mm256_loadu_ps(bias)) : totals);
        return;
    }
    _mm256_storeu_ps(cut, totals);
    for (int32_t j = 0; j < b->cols - col; j++)
        out[j] = bias ? cut[j] + bias[j] : cut[j];
}

INLINE const struct linear_q16 *row_of(const struct linear_block *b, int32_t row)
{
    return (const struct linear_q16 *)(const void *)((const float *)b->x + row * b->x_stride);
}

/* 32 columns of a group, while they are widened. */
INLINE void add_block(const struct codec *c, const unsigned char *at, int sub,
                      const struct linear_q16 *const *x, const int rows, __m256 *acc)
{
    const int words = 8 / c->parts;
    for (int part = 0; part < c->parts; part++) {
        __m256i sum[MAX_ROWS];
        for (int r = 0; r < rows; r++)
            sum[r] = _mm256_setzero_si256();
        for (int i = part * words; i < (part + 1) * words; i++) {
            __m256i codes = c->word(at, sub, i);
            __m256i even = widened(codes, false, c->is_signed);
            __m256i odd = widened(codes, true, c->is_signed);
            for (int r = 0; r < rows; r++) {
                sum[r] = add_products(sum[r], even, pair_of(x[r], 2 * i));
                sum[r] = add_products(sum[r], odd, pair_of(x[r], 2 * i + 1));
            }
        }
        __m256 scale = c->scale(at, sub, part);
        for (int r = 0; r < rows; r++)
            acc[r] = add_scaled(acc[r], sum[r], scale);
    }
    if (!c->min)
        return;
    __m256 min = c->min(at, sub);
    for (int r = 0; r < rows; r++)
        acc[r] = add_min(acc[r], min, x[r]);
}

/* `rows` rows of x, from `row` on, times the eight rows of weights at `group`. */
INLINE void run_group(const struct codec *c, const struct linear_block *b,
                      const unsigned char *group, int32_t row, int32_t col, const int rows)
{
    const struct linear_q16 *x[MAX_ROWS];
    __m256 total[MAX_ROWS], acc[MAX_ROWS];
    const int subs = c->elements / LINEAR_Q16_BLOCK;
    for (int r = 0; r < rows; r++) {
        x[r] = row_of(b, row + r);
        total[r] = _mm256_setzero_ps();
    }
    for (int32_t k = 0; k < b->in_features;) {
        for (int r = 0; r < rows; r++)
            acc[r] = _mm256_setzero_ps();
        const int32_t end = k + LINEAR_Q16_PIECE;
        for (; k < end && k < b->in_features; k += c->elements, group += c->group_bytes)
            for (int sub = 0; sub < subs; sub++) {
                add_block(c, group, sub, x, rows, acc);
                for (int r = 0; r < rows; r++)
                    x[r]++;
            }
        for (int r = 0; r < rows; r++)
            total[r] = add_piece(total[r], acc[r], x[r] - 1);
    }
    for (int r = 0; r < rows; r++)
        store(b, row + r, col, total[r], true);
}

/* --- many rows -----------------------------------------------------------------------------------
 */

/* 32 columns of a group. */
struct wide_block {
    __m256i pairs[LINEAR_Q16_BLOCK / 2];
    __m256 scale[2], min;
};
_Static_assert(PIECE_BLOCKS *GROUPS * sizeof(struct wide_block) <= LINEAR_DEQUANT_BYTES,
               "a piece fits the scratch memory");

INLINE void widen_block(const struct codec *c, struct wide_block *w, const unsigned char *at,
                        int sub)
{
    for (int i = 0; i < 8; i++) {
        __m256i codes = c->word(at, sub, i);
        w->pairs[2 * i] = widened(codes, false, c->is_signed);
        w->pairs[2 * i + 1] = widened(codes, true, c->is_signed);
    }
    for (int part = 0; part < c->parts; part++)
        w->scale[part] = c->scale(at, sub, part);
    if (c->min)
        w->min = c->min(at, sub);
}

/* Rows of x from `row` on and neighbouring groups from column `col` of the output on, times blocks
 * of a piece, [blocks][GROUPS]. */
struct tile {
    const struct linear_block *b;
    const struct wide_block *wide;
    int32_t row, col, first_block, blocks;
    bool last; /* of the pieces */
};

/* The totals are kept in the output between pieces, where they lose nothing. */
INLINE void end_tile(const struct tile *t, __m256 (*acc)[TILE_GROUPS], const int rows)
{
    const struct linear_q16 *x = row_of(t->b, t->row) + t->first_block;
    const int groups = (t->b->cols - t->col + LINEAR_GGML_ROWS - 1) / LINEAR_GGML_ROWS;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int g = 0; g < TILE_GROUPS; g++) {
            if (g >= groups)
                break;
            const int32_t row = t->row + r, col = t->col + g * LINEAR_GGML_ROWS;
            __m256 totals = t->first_block > 0 ? load_totals(t->b, row, col) : _mm256_setzero_ps();
            store(t->b, row, col, add_piece(totals, acc[r][g], x), t->last);
        }
        x = (const struct linear_q16 *)(const void *)((const float *)(const void *)x +
                                                      t->b->x_stride);
    }
}

/* The sums of one part of a block. */
INLINE void add_part(const struct wide_block *w, const struct linear_q16 *const *x,
                     __m256 (*acc)[TILE_GROUPS], const int rows, const int part, const int parts)
{
    const int pairs = LINEAR_Q16_BLOCK / 2 / parts;
    __m256i sum[MAX_ROWS][TILE_GROUPS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int g = 0; g < TILE_GROUPS; g++)
            sum[r][g] = _mm256_setzero_si256();
#pragma GCC unroll 16
    for (int i = part * pairs; i < (part + 1) * pairs; i++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256i factor = pair_of(x[r], i);
#pragma GCC unroll 2
            for (int g = 0; g < TILE_GROUPS; g++)
                sum[r][g] = add_products(sum[r][g], w[g].pairs[i], factor);
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int g = 0; g < TILE_GROUPS; g++)
            acc[r][g] = add_scaled(acc[r][g], sum[r][g], w[g].scale[part]);
}

INLINE void run_tile(const struct tile *t, const int rows, const int parts, const bool has_min)
{
    const struct linear_q16 *x[MAX_ROWS];
    __m256 acc[MAX_ROWS][TILE_GROUPS];
    for (int r = 0; r < rows; r++) {
        x[r] = row_of(t->b, t->row + r) + t->first_block;
        for (int g = 0; g < TILE_GROUPS; g++)
            acc[r][g] = _mm256_setzero_ps();
    }
    const struct wide_block *w = t->wide;
    for (int32_t k = 0; k < t->blocks; k++, w += GROUPS) {
        for (int part = 0; part < parts; part++)
            add_part(w, x, acc, rows, part, parts);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
            for (int g = 0; g < TILE_GROUPS && has_min; g++)
                acc[r][g] = add_min(acc[r][g], w[g].min, x[r]);
            x[r]++;
        }
    }
    end_tile(t, acc, rows);
}

#define DEFINE_TILES(NAME, PARTS, HAS_MIN)                                                         \
    static void NAME##_1(const struct tile *t)                                                     \
    {                                                                                              \
        run_tile(t, 1, PARTS, HAS_MIN);                                                            \
    }                                                                                              \
    static void NAME##_2(const struct tile *t)                                                     \
    {                                                                                              \
        run_tile(t, 2, PARTS, HAS_MIN);                                                            \
    }                                                                                              \
    static void NAME##_3(const struct tile *t)                                                     \
    {                                                                                              \
        run_tile(t, 3, PARTS, HAS_MIN);                                                            \
    }                                                                                              \
    static void NAME##_4(const struct tile *t)                                                     \
    {                                                                                              \
        run_tile(t, 4, PARTS, HAS_MIN);                                                            \
    }                                                                                              \
    static run_tile_fn *const NAME[MAX_ROWS] = { NAME##_1, NAME##_2, NAME##_3, NAME##_4 };

typedef void run_tile_fn(const struct tile *t);
DEFINE_TILES(tiles_plain, 1, false)
DEFINE_TILES(tiles_min, 1, true)
DEFINE_TILES(tiles_parts, 2, false)

/* A piece of a panel: its groups' blocks, each group's in a row, `group_bytes` apart. */
struct piece {
    const unsigned char *at;
    size_t group_bytes;
    int32_t blocks; /* of 32 columns */
};

INLINE struct piece piece_at(const struct codec *c, const struct linear_block *b, int32_t col,
                             int32_t first_block)
{
    const int32_t subs = c->elements / LINEAR_Q16_BLOCK;
    const int32_t left = b->in_features / LINEAR_Q16_BLOCK - first_block;
    struct piece p = { .blocks = left < PIECE_BLOCKS ? left : PIECE_BLOCKS };
    p.group_bytes = (size_t)(b->in_features / c->elements) * (size_t)c->group_bytes;
    p.at = (const unsigned char *)b->packed + (size_t)(col / LINEAR_GGML_ROWS) * p.group_bytes +
           (size_t)(first_block / subs) * (size_t)c->group_bytes;
    return p;
}

INLINE void widen_piece(const struct codec *c, struct wide_block *wide, const struct piece *p)
{
    const int32_t subs = c->elements / LINEAR_Q16_BLOCK;
    for (int32_t g = 0; g < GROUPS; g++) {
        const unsigned char *at = p->at + (size_t)g * p->group_bytes;
        for (int32_t i = 0; i < p->blocks; i += subs, at += c->group_bytes)
            for (int sub = 0; sub < subs; sub++)
                widen_block(c, wide + (i + sub) * GROUPS + g, at, sub);
    }
}

/* Part `part` of `parts` of a piece's lines: pieces are too short for the hardware to see what
 * comes next, and all of one at once is more than it can have on the way. */
INLINE void prefetch_piece(const struct codec *c, const struct piece *p, int32_t part,
                           int32_t parts)
{
    const int32_t subs = c->elements / LINEAR_Q16_BLOCK;
    const int32_t lines = (p->blocks / subs * c->group_bytes + 63) / 64, all = lines * GROUPS;
    for (int32_t i = all * part / parts; i < all * (part + 1) / parts; i++)
        _mm_prefetch((const char *)p->at + (size_t)(i / lines) * p->group_bytes +
                         (size_t)(i % lines) * 64,
                     _MM_HINT_T0);
}

INLINE void run_wide(const struct codec *c, const struct linear_block *b)
{
    const int32_t num_blocks = b->in_features / LINEAR_Q16_BLOCK;
    run_tile_fn *const *tiles = c->parts == 2 ? tiles_parts : c->min ? tiles_min : tiles_plain;
    struct wide_block *wide = b->scratch;
    struct piece now = piece_at(c, b, 0, 0);
    for (int32_t col = 0; col < b->cols; col += LINEAR_PANEL)
        for (int32_t k = 0; k < num_blocks; k += PIECE_BLOCKS) {
            struct tile t = { .b = b,
                              .first_block = k,
                              .blocks = now.blocks,
                              .last = k + PIECE_BLOCKS >= num_blocks };
            widen_piece(c, wide, &now);
            now.blocks = 0;
            if (!t.last || col + LINEAR_PANEL < b->cols)
                now = t.last ? piece_at(c, b, col + LINEAR_PANEL, 0)
                             : piece_at(c, b, col, k + PIECE_BLOCKS);
            for (t.row = 0; t.row < b->rows; t.row += MAX_ROWS) {
                prefetch_piece(c, &now, t.row / MAX_ROWS, (b->rows + MAX_ROWS - 1) / MAX_ROWS);
                for (t.col = col; t.col < b->cols && t.col < col + LINEAR_PANEL;
                     t.col += TILE_GROUPS * LINEAR_GGML_ROWS) {
                    t.wide = wide + (t.col - col) / LINEAR_GGML_ROWS;
                    tiles[(b->rows - t.row < MAX_ROWS ? b->rows - t.row : MAX_ROWS) - 1](&t);
                }
            }
        }
}

/* --- the functions -------------------------------------------------------------------------------
 */

INLINE void run(const struct codec *c, const struct linear_block *b)
{
    const size_t group_bytes = (size_t)(b->in_features / c->elements) * (size_t)c->group_bytes;
    if (b->rows >= WIDE_ROWS) {
        run_wide(c, b);
        return;
    }
    for (int32_t col = 0; col < b->cols; col += LINEAR_GGML_ROWS) {
        const unsigned char *group =
            (const unsigned char *)b->packed + (size_t)(col / LINEAR_GGML_ROWS) * group_bytes;
        for (int32_t row = 0; row < b->rows; row += MAX_ROWS)
            switch (b->rows - row) {
            case 1:
                run_group(c, b, group, row, col, 1);
                break;
            case 2:
                run_group(c, b, group, row, col, 2);
                break;
            case 3:
                run_group(c, b, group, row, col, 3);
                break;
            default:
                run_group(c, b, group, row, col, MAX_ROWS);
                break;
            }
    }
}

#define DEFINE(NAME, ...)                                                                          \
    void linear_run_##NAME##_avx2(const struct linear_block *b)                                    \
    {                                                                                              \
        static const struct codec codec = { __VA_ARGS__ };                                         \
        run(&codec, b);                                                                            \
    }

DEFINE(q4_0, 32, 144, 1, false, q4_0_word, first_scale, q4_0_min)
DEFINE(q4_1, 32, 160, 1, false, q4_1_word, first_scale, second_min)
DEFINE(q5_0, 32, 176, 1, false, q5_0_word, first_scale, q5_0_min)
DEFINE(q5_1, 32, 192, 1, false, q5_1_word, first_scale, second_min)
DEFINE(q8_0, 32, 272, 1, true, q8_0_word, first_scale, NULL)
DEFINE(q4_k, 256, 1184, 1, false, q4_k_word, k_scale, k_min)
DEFINE(q5_k, 256, 1440, 1, false, q5_k_word, k_scale, k_min)
DEFINE(q6_k, 256, 1680, 2, true, q6_k_word, q6_k_scale, NULL)
DEFINE(iq4_nl, 32, 144, 1, true, iq4_nl_word, first_scale, NULL)
DEFINE(iq4_xs, 256, 1088, 1, true, iq4_xs_word, iq4_xs_scale, NULL)
DEFINE(mxfp4, 32, 136, 1, true, mxfp4_word, mxfp4_scale, NULL)
