/* linear_ggml_codecs.h - reading blocks of ggml's formats, eight rows of them side by side, with
 * AVX2: codes as bytes, scales and minima as float32. For linear_ggml_avx2.c. */
#ifndef INFERD_KERNELS_CPU_X86_LINEAR_GGML_CODECS_H
#define INFERD_KERNELS_CPU_X86_LINEAR_GGML_CODECS_H

#include "kernels/quant/ggml_block.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* --- parts of a block ----------------------------------------------------------------------------
 */

INLINE __m256i load(const unsigned char *at)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
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

INLINE __m256 negative(__m256 v)
{
    return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f));
}

/* Word `i` of eight with four bits each: the lower halves of bytes come first. */
INLINE __m256i nibble_word(const unsigned char *at, int i)
{
    return i < 4 ? low_nibbles(load(at + 32 * i)) : high_nibbles(load(at + 32 * (i - 4)));
}

/* Four bits of each row, from bit 4 i of its word on, as the fifth bits of four codes. */
INLINE __m256i fifth_bits(__m256i high, int i)
{
    __m256i four = _mm256_and_si256(_mm256_srli_epi32(high, 4 * i), _mm256_set1_epi32(15));
    __m256i apart = _mm256_mullo_epi32(four, _mm256_set1_epi32(0x00204081));
    return _mm256_slli_epi32(_mm256_and_si256(apart, _mm256_set1_epi32(0x01010101)), 4);
}

INLINE __m256i in_table(const int8_t table[16], __m256i codes)
{
    const __m128i *values = (const __m128i *)(const void *)table;
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(values)), codes);
}

/* --- formats -------------------------------------------------------------------------------------
 */

/* How a format's block of eight rows is read, 32 elements (`sub`) at a time. */
struct codec {
    int32_t elements, group_bytes; /* of a block */
    int32_t parts;                 /* of 32 elements: 1 with a scale for all, 2 with one for 16 */
    bool is_signed;                /* what `word` gives */
    /* Elements 4 i to 4 i + 3 of each row, a byte each. */
    __m256i (*word)(const unsigned char *at, int sub, int i);
    __m256 (*scale)(const unsigned char *at, int sub, int part);
    /* What is added to each element, or NULL. */
    __m256 (*min)(const unsigned char *at, int sub);
};

/* Blocks of 32 with one float16 scale, and a float16 minimum beside it. */
INLINE __m256 first_scale(const unsigned char *at, int sub, int part)
{
    (void)sub;
    (void)part;
    return halves(at);
}

INLINE __m256 second_min(const unsigned char *at, int sub)
{
    (void)sub;
    return halves(at + 16);
}

INLINE __m256i q4_0_word(const unsigned char *at, int sub, int i)
{
    (void)sub;
    return nibble_word(at + 16, i);
}

/* Codes stand for themselves less a middle. */
INLINE __m256 q4_0_min(const unsigned char *at, int sub)
{
    (void)sub;
    return _mm256_mul_ps(halves(at), _mm256_set1_ps(-8));
}

INLINE __m256i q4_1_word(const unsigned char *at, int sub, int i)
{
    (void)sub;
    return nibble_word(at + 32, i);
}

INLINE __m256i q5_0_word(const unsigned char *at, int sub, int i)
{
    (void)sub;
    return _mm256_or_si256(nibble_word(at + 48, i), fifth_bits(load(at + 16), i));
}

INLINE __m256 q5_0_min(const unsigned char *at, int sub)
{
    (void)sub;
    return _mm256_mul_ps(halves(at), _mm256_set1_ps(-16));
}

INLINE __m256i q5_1_word(const unsigned char *at, int sub, int i)
{
    (void)sub;
    return _mm256_or_si256(nibble_word(at + 64, i), fifth_bits(load(at + 32), i));
}

INLINE __m256i q8_0_word(const unsigned char *at, int sub, int i)
{
    (void)sub;
    return load(at + 16 + 32 * i);
}

INLINE __m256i iq4_nl_word(const unsigned char *at, int sub, int i)
{
    (void)sub;
    return in_table(ggml_iq4_values, nibble_word(at + 16, i));
}

INLINE __m256i mxfp4_word(const unsigned char *at, int sub, int i)
{
    (void)sub;
    return in_table(ggml_mxfp4_values, nibble_word(at + 8, i));
}

/* 2^(exponent - 128) of eight bytes: see mxfp4.c. */
INLINE __m256 mxfp4_scale(const unsigned char *at, int sub, int part)
{
    (void)sub;
    (void)part;
    __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

/* Bit `bit` of each byte as the fifth of a code. */
INLINE __m256i fifth_bit(__m256i high, int bit)
{
    __m256i moved = bit < 4 ? _mm256_slli_epi16(high, 4 - bit) : _mm256_srli_epi16(high, bit - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8(16));
}

INLINE __m256i k_word(const unsigned char *words, int sub, int i)
{
    __m256i w = load(words + sub / 2 * 256 + 32 * i);
    return sub % 2 ? high_nibbles(w) : low_nibbles(w);
}

INLINE __m256i q4_k_word(const unsigned char *at, int sub, int i)
{
    return k_word(at + 160, sub, i);
}

INLINE __m256i q5_k_word(const unsigned char *at, int sub, int i)
{
    return _mm256_or_si256(k_word(at + 416, sub, i), fifth_bit(load(at + 160 + 32 * i), sub));
}

/* Of Q4_K and Q5_K. */
INLINE __m256 k_scale(const unsigned char *at, int sub, int part)
{
    (void)part;
    return _mm256_mul_ps(halves(at), bytes_as_floats(at + 32 + 8 * sub, false));
}

INLINE __m256 k_min(const unsigned char *at, int sub)
{
    return negative(_mm256_mul_ps(halves(at + 16), bytes_as_floats(at + 96 + 8 * sub, false)));
}

INLINE __m256i q6_k_word(const unsigned char *at, int sub, int i)
{
    const int half = sub / 4, quarter = sub % 4;
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
    __m256i codes = _mm256_or_si256(low, _mm256_and_si256(high, two));
    return _mm256_sub_epi8(codes, _mm256_set1_epi8(32));
}

INLINE __m256 q6_k_scale(const unsigned char *at, int sub, int part)
{
    return _mm256_mul_ps(halves(at), bytes_as_floats(at + 16 + 8 * (2 * sub + part), true));
}

INLINE __m256i iq4_xs_word(const unsigned char *at, int sub, int i)
{
    return in_table(ggml_iq4_values, nibble_word(at + 64 + 128 * sub, i));
}

INLINE __m256 iq4_xs_scale(const unsigned char *at, int sub, int part)
{
    const __m256i four = _mm256_set1_epi32(15), two = _mm256_set1_epi32(3);
    __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(at + 16)));
    __m256i scale = _mm256_and_si256(_mm256_srli_epi32(load(at + 32), 4 * sub), four);
    __m256i upper = _mm256_and_si256(_mm256_srli_epi32(high, 2 * sub), two);
    (void)part;
    scale = _mm256_or_si256(scale, _mm256_slli_epi32(upper, 4));
    scale = _mm256_sub_epi32(scale, _mm256_set1_epi32(32));
    return _mm256_mul_ps(halves(at), _mm256_cvtepi32_ps(scale));
}

#endif
