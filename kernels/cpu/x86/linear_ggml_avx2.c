/* linear_ggml_avx2.c - products with weights in ggml's formats, eight rows in a register's 32-bit
 * lanes, four codes of each.
 *
 * Codes that are not negative multiply those of x as they are (vpmaddubsw takes one unsigned
 * operand); of the others the sign goes over to x. What a code stands above zero for (the 8 of
 * Q4_0, the minima) is taken from the sum of x's block instead. 16-bit sums never overflow: the
 * greatest are noted where they are made. */
#include "kernels/cpu/linear_ggml.h"

#include "kernels/quant/ggml_block.h"

#include <immintrin.h>
#include <string.h>

/* Rows of x taken together: their sums and one group's codes fit the registers. */
enum { MAX_ROWS = 4 };

#define INLINE static inline __attribute__((always_inline))

/* --- x -----------------------------------------------------------------------------------------
 */

INLINE float max_of(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* Of 16 signed bytes. */
INLINE int32_t sum_of(__m128i v)
{
    __m256i wide = _mm256_madd_epi16(_mm256_cvtepi8_epi16(v), _mm256_set1_epi16(1));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* Rounded to float16, unless it is too large for one. */
INLINE float as_half(float value)
{
    float half = _cvtsh_ss(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
    return half - half == 0 ? half : value;
}

/* Below it a block counts as zero: 127 over it would not be finite. */
#define SMALLEST 1e-30f

static void convert_block(struct linear_q8 *dst, const float *src)
{
    const __m256 abs = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256 v[4], greatest = _mm256_setzero_ps(), zero = _mm256_setzero_ps();
    __m256i whole[4];
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(src + 8 * i);
        greatest = _mm256_max_ps(greatest, _mm256_and_ps(abs, v[i]));
        zero = _mm256_add_ps(zero, _mm256_mul_ps(v[i], _mm256_setzero_ps()));
    }
    bool finite = _mm256_movemask_ps(_mm256_cmp_ps(zero, zero, _CMP_UNORD_Q)) == 0;
    float most = max_of(greatest);
    __m256 inverse = _mm256_set1_ps(most >= SMALLEST ? 127 / most : 0);
    for (int i = 0; i < 4; i++)
        whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]),
                                       _mm256_packs_epi32(whole[2], whole[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, order);
    int32_t first = sum_of(_mm256_castsi256_si128(bytes));
    int32_t second = sum_of(_mm256_extracti128_si256(bytes, 1));
    dst->scale = finite ? as_half(most / 127) : __builtin_nanf("");
    dst->half_sums[0] = dst->scale * (float)first;
    dst->half_sums[1] = dst->scale * (float)second;
    dst->sum = finite ? as_half(most / 127 * (float)(first + second)) : dst->scale;
    _mm256_storeu_si256((__m256i *)(void *)dst->codes, bytes);
}

void linear_convert_q8_avx2(void *dst, const float *src, int32_t count)
{
    struct linear_q8 *blocks = dst;
    for (int32_t k = 0; k < count; k += LINEAR_Q8_BLOCK)
        convert_block(blocks++, src + k);
}

/* --- words -------------------------------------------------------------------------------------
 */

INLINE __m256i load(const unsigned char *at)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

/* Word `i` of a block of x, four codes, for all lanes. */
INLINE __m256i word(const struct linear_q8 *x, int i)
{
    int32_t bits;
    memcpy(&bits, x->codes + 4 * i, sizeof bits);
    return _mm256_set1_epi32(bits);
}

INLINE __m256 halves(const unsigned char *at)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at));
}

INLINE __m256 bytes_as_floats(const unsigned char *at, bool is_signed)
{
    __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)at);
    return _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(bytes)
                                        : _mm256_cvtepu8_epi32(bytes));
}

INLINE __m256i low_nibbles(__m256i w)
{
    return _mm256_and_si256(w, _mm256_set1_epi8(15));
}

INLINE __m256i high_nibbles(__m256i w)
{
    return low_nibbles(_mm256_srli_epi16(w, 4));
}

INLINE __m256i pairs_to_32(__m256i v)
{
    return _mm256_madd_epi16(v, _mm256_set1_epi16(1));
}

/* Adds codes times x, as 32-bit sums: for signed codes, whose pairs come to 2 * 128 * 127. */
INLINE __m256i add_signed(__m256i sum, __m256i codes, __m256i x)
{
    __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
    return _mm256_add_epi32(sum, pairs_to_32(products));
}

/* acc += sums * scale * x's scale */
INLINE __m256 add_scaled(__m256 acc, __m256i sums, __m256 scale, const struct linear_q8 *x)
{
    __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(x->scale));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), both, acc);
}

/* --- blocks of 32 --------------------------------------------------------------------------------
 */

/* Four bits of each row, from bit 4 i of its word on, as the fifth bits of four codes. */
INLINE __m256i fifth_bits(__m256i high, int i)
{
    __m256i four = _mm256_and_si256(_mm256_srli_epi32(high, 4 * i), _mm256_set1_epi32(15));
    __m256i apart = _mm256_mullo_epi32(four, _mm256_set1_epi32(0x00204081));
    return _mm256_slli_epi32(_mm256_and_si256(apart, _mm256_set1_epi32(0x01010101)), 4);
}

/* The eight words of a block's codes, four or five bits each. */
INLINE void unpack_codes(__m256i codes[8], const unsigned char *at, const unsigned char *high)
{
    for (int i = 0; i < 4; i++) {
        __m256i w = load(at + 32 * i);
        codes[i] = low_nibbles(w);
        codes[4 + i] = high_nibbles(w);
    }
    for (int i = 0; i < 8 && high; i++)
        codes[i] = _mm256_or_si256(codes[i], fifth_bits(load(high), i));
}

/* Codes of up to five bits: eight pairs of products come to 8 * 2 * 15 * 127, or four to
 * 4 * 2 * 31 * 127. */
INLINE __m256i dot_unsigned(const __m256i codes[8], const struct linear_q8 *x, bool five_bits)
{
    __m256i first = _mm256_maddubs_epi16(codes[0], word(x, 0));
    __m256i second = _mm256_maddubs_epi16(codes[4], word(x, 4));
    for (int i = 1; i < 4; i++) {
        first = _mm256_add_epi16(first, _mm256_maddubs_epi16(codes[i], word(x, i)));
        second = _mm256_add_epi16(second, _mm256_maddubs_epi16(codes[4 + i], word(x, 4 + i)));
    }
    if (five_bits)
        return _mm256_add_epi32(pairs_to_32(first), pairs_to_32(second));
    return pairs_to_32(_mm256_add_epi16(first, second));
}

/* `min_at` 0: the codes stand for code - middle. */
INLINE void add_linear_codes(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                             __m256 *acc, int min_at, int high_at, int codes_at, float middle)
{
    __m256i codes[8];
    __m256 scale = halves(at);
    __m256 min = min_at ? halves(at + min_at) : _mm256_mul_ps(scale, _mm256_set1_ps(-middle));
    unpack_codes(codes, at + codes_at, high_at ? at + high_at : NULL);
    for (int r = 0; r < rows; r++) {
        float sum = min_at ? x[r]->sum : x[r]->half_sums[0] + x[r]->half_sums[1];
        acc[r] = add_scaled(acc[r], dot_unsigned(codes, x[r], high_at != 0), scale, x[r]);
        acc[r] = _mm256_fmadd_ps(min, _mm256_set1_ps(sum), acc[r]);
    }
}

INLINE void add_q4_0(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                     __m256 *acc)
{
    add_linear_codes(at, x, rows, acc, 0, 0, 16, 8);
}

INLINE void add_q4_1(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                     __m256 *acc)
{
    add_linear_codes(at, x, rows, acc, 16, 0, 32, 0);
}

INLINE void add_q5_0(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                     __m256 *acc)
{
    add_linear_codes(at, x, rows, acc, 0, 16, 48, 16);
}

INLINE void add_q5_1(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                     __m256 *acc)
{
    add_linear_codes(at, x, rows, acc, 16, 32, 64, 0);
}

INLINE void add_q8_0(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                     __m256 *acc)
{
    __m256i sum[MAX_ROWS];
    __m256 scale = halves(at);
    for (int r = 0; r < rows; r++)
        sum[r] = _mm256_setzero_si256();
    for (int i = 0; i < 8; i++) {
        __m256i codes = load(at + 16 + 32 * i);
        for (int r = 0; r < rows; r++)
            sum[r] = add_signed(sum[r], codes, word(x[r], i));
    }
    for (int r = 0; r < rows; r++)
        acc[r] = add_scaled(acc[r], sum[r], scale, x[r]);
}

/* Codes that index a table of signed values. */
INLINE void add_table_codes(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                            __m256 *acc, const int8_t table[16], __m256 scale)
{
    const __m256i values =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table));
    __m256i sum[MAX_ROWS];
    for (int r = 0; r < rows; r++)
        sum[r] = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        __m256i w = load(at + 32 * i);
        __m256i low = _mm256_shuffle_epi8(values, low_nibbles(w));
        __m256i high = _mm256_shuffle_epi8(values, high_nibbles(w));
        for (int r = 0; r < rows; r++) {
            sum[r] = add_signed(sum[r], low, word(x[r], i));
            sum[r] = add_signed(sum[r], high, word(x[r], 4 + i));
        }
    }
    for (int r = 0; r < rows; r++)
        acc[r] = add_scaled(acc[r], sum[r], scale, x[r]);
}

INLINE void add_iq4_nl(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                       __m256 *acc)
{
    add_table_codes(at + 16, x, rows, acc, ggml_iq4_values, halves(at));
}

/* 2^(exponent - 128) of eight bytes: see mxfp4.c. */
INLINE __m256 half_exponents(const unsigned char *at)
{
    __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

INLINE void add_mxfp4(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                      __m256 *acc)
{
    add_table_codes(at + 8, x, rows, acc, ggml_mxfp4_values, half_exponents(at));
}

/* --- blocks of 256 -------------------------------------------------------------------------------
 */

/* Bit `bit` of each byte as the fifth of a code. */
INLINE __m256i fifth_bit(__m256i high, int bit)
{
    __m256i moved = bit < 4 ? _mm256_slli_epi16(high, 4 - bit) : _mm256_srli_epi16(high, bit - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8(16));
}

/* Sub-block `sub` of Q4_K or Q5_K: 32 codes with a scale and a minimum. */
INLINE void add_k_sub(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                      __m256 *acc, int sub, bool five_bits)
{
    const unsigned char *words = at + (five_bits ? 416 : 160) + sub / 2 * 256;
    __m256i codes[8];
    for (int i = 0; i < 8; i++) {
        __m256i w = load(words + 32 * i);
        codes[i] = sub % 2 ? high_nibbles(w) : low_nibbles(w);
        if (five_bits)
            codes[i] = _mm256_or_si256(codes[i], fifth_bit(load(at + 160 + 32 * i), sub));
    }
    __m256 scale = _mm256_mul_ps(halves(at), bytes_as_floats(at + 32 + 8 * sub, false));
    __m256 min = _mm256_mul_ps(halves(at + 16), bytes_as_floats(at + 96 + 8 * sub, false));
    for (int r = 0; r < rows; r++) {
        const struct linear_q8 *block = x[r] + sub;
        acc[r] = add_scaled(acc[r], dot_unsigned(codes, block, five_bits), scale, block);
        acc[r] = _mm256_fnmadd_ps(min, _mm256_set1_ps(block->half_sums[0] + block->half_sums[1]),
                                  acc[r]);
    }
}

INLINE void add_q4_k(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                     __m256 *acc)
{
    for (int sub = 0; sub < 8; sub++)
        add_k_sub(at, x, rows, acc, sub, false);
}

INLINE void add_q5_k(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                     __m256 *acc)
{
    for (int sub = 0; sub < 8; sub++)
        add_k_sub(at, x, rows, acc, sub, true);
}

/* Word `i` of quarter `quarter` of half `half` of a Q6_K block. */
INLINE __m256i q6_codes(const unsigned char *at, int half, int quarter, int i)
{
    __m256i low = load(at + 656 + (half * 16 + quarter % 2 * 8 + i) * 32);
    __m256i high = load(at + 144 + (half * 8 + i) * 32);
    const __m256i two = _mm256_set1_epi8(48);
    low = quarter < 2 ? low_nibbles(low) : high_nibbles(low);
    switch (quarter) {
    case 0:
        high = _mm256_slli_epi16(high, 4);
        break;
    case 1:
        high = _mm256_slli_epi16(high, 2);
        break;
    case 3:
        high = _mm256_srli_epi16(high, 2);
        break;
    default:
        break;
    }
    return _mm256_or_si256(low, _mm256_and_si256(high, two));
}

/* 16 elements with a scale: two pairs of products come to 2 * 2 * 63 * 127. */
INLINE void add_q6_group(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                         __m256 *acc, int group)
{
    const int half = group / 8, quarter = group % 8 / 2, first = group % 2 * 4;
    __m256i codes[4];
    for (int i = 0; i < 4; i++)
        codes[i] = q6_codes(at, half, quarter, first + i);
    __m256 scale = _mm256_mul_ps(halves(at), bytes_as_floats(at + 16 + 8 * group, true));
    __m256 middle = _mm256_mul_ps(scale, _mm256_set1_ps(32));
    for (int r = 0; r < rows; r++) {
        const struct linear_q8 *block = x[r] + half * 4 + quarter;
        __m256i a = _mm256_add_epi16(_mm256_maddubs_epi16(codes[0], word(block, first)),
                                     _mm256_maddubs_epi16(codes[1], word(block, first + 1)));
        __m256i b = _mm256_add_epi16(_mm256_maddubs_epi16(codes[2], word(block, first + 2)),
                                     _mm256_maddubs_epi16(codes[3], word(block, first + 3)));
        __m256i sum = _mm256_add_epi32(pairs_to_32(a), pairs_to_32(b));
        acc[r] = add_scaled(acc[r], sum, scale, block);
        acc[r] = _mm256_fnmadd_ps(middle, _mm256_set1_ps(block->half_sums[group % 2]), acc[r]);
    }
}

INLINE void add_q6_k(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                     __m256 *acc)
{
    for (int group = 0; group < 16; group++)
        add_q6_group(at, x, rows, acc, group);
}

INLINE void add_iq4_xs(const unsigned char *at, const struct linear_q8 *const *x, int rows,
                       __m256 *acc)
{
    const __m256i four = _mm256_set1_epi32(15), two = _mm256_set1_epi32(3);
    __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(at + 16)));
    __m256i low = load(at + 32);
    for (int sub = 0; sub < 8; sub++) {
        const struct linear_q8 *blocks[MAX_ROWS];
        __m256i scale = _mm256_and_si256(_mm256_srli_epi32(low, 4 * sub), four);
        __m256i upper = _mm256_and_si256(_mm256_srli_epi32(high, 2 * sub), two);
        scale = _mm256_or_si256(scale, _mm256_slli_epi32(upper, 4));
        scale = _mm256_sub_epi32(scale, _mm256_set1_epi32(32));
        for (int r = 0; r < rows; r++)
            blocks[r] = x[r] + sub;
        add_table_codes(at + 64 + 128 * sub, blocks, rows, acc, ggml_iq4_values,
                        _mm256_mul_ps(halves(at), _mm256_cvtepi32_ps(scale)));
    }
}

/* --- products ------------------------------------------------------------------------------------
 */

INLINE void store(const struct linear_block *b, int32_t row, int32_t col, __m256 sums)
{
    float *out = b->out + row * b->out_stride + col;
    float cut[LINEAR_GGML_ROWS];
    int32_t cols = b->cols - col < LINEAR_GGML_ROWS ? b->cols - col : LINEAR_GGML_ROWS;
    _mm256_storeu_ps(cut, sums);
    for (int32_t j = 0; j < cols; j++)
        out[j] = b->bias ? cut[j] + b->bias[col + j] : cut[j];
}

/* `rows` rows of x, from `row` on, times the eight rows of weights at `group`. */
#define DEFINE(NAME, ELEMENTS, GROUP_BYTES)                                                        \
    INLINE void run_group_##NAME(const struct linear_block *b, const unsigned char *group,         \
                                 int32_t row, int32_t col, const int rows)                         \
    {                                                                                              \
        const struct linear_q8 *x[MAX_ROWS];                                                       \
        __m256 acc[MAX_ROWS];                                                                      \
        for (int r = 0; r < rows; r++) {                                                           \
            x[r] = (const struct linear_q8 *)(const void *)((const float *)b->x +                  \
                                                            (row + r) * b->x_stride);              \
            acc[r] = _mm256_setzero_ps();                                                          \
        }                                                                                          \
        for (int32_t k = 0; k < b->in_features; k += ELEMENTS, group += GROUP_BYTES) {             \
            add_##NAME(group, x, rows, acc);                                                       \
            for (int r = 0; r < rows; r++)                                                         \
                x[r] += ELEMENTS / LINEAR_Q8_BLOCK;                                                \
        }                                                                                          \
        for (int r = 0; r < rows; r++)                                                             \
            store(b, row + r, col, acc[r]);                                                        \
    }                                                                                              \
    void linear_run_##NAME##_avx2(const struct linear_block *b)                                    \
    {                                                                                              \
        const size_t group_bytes = (size_t)(b->in_features / ELEMENTS) * GROUP_BYTES;              \
        for (int32_t col = 0; col < b->cols; col += LINEAR_GGML_ROWS) {                            \
            const unsigned char *group =                                                           \
                (const unsigned char *)b->packed + (size_t)(col / LINEAR_GGML_ROWS) * group_bytes; \
            int32_t row = 0;                                                                       \
            for (; row + MAX_ROWS <= b->rows; row += MAX_ROWS)                                     \
                run_group_##NAME(b, group, row, col, MAX_ROWS);                                    \
            for (; row < b->rows; row++)                                                           \
                run_group_##NAME(b, group, row, col, 1);                                           \
        }                                                                                          \
    }

DEFINE(q4_0, 32, 144)
DEFINE(q4_1, 32, 160)
DEFINE(q5_0, 32, 176)
DEFINE(q5_1, 32, 192)
DEFINE(q8_0, 32, 272)
DEFINE(q4_k, 256, 1184)
DEFINE(q5_k, 256, 1440)
DEFINE(q6_k, 256, 1680)
DEFINE(iq4_nl, 32, 144)
DEFINE(iq4_xs, 256, 1088)
DEFINE(mxfp4, 32, 136)
