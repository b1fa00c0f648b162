/* linear_words_avx2.c - packed integers and 8-bit floats with AVX2 and FMA. */
#include <immintrin.h>

#define VEC_WIDTH              8
#define VEC_SET_I(x)           _mm256_set1_epi32(x)
#define VEC_SET_F(x)           _mm256_set1_ps(x)
#define VEC_LOAD_I(p)          _mm256_load_si256((const __m256i *)(p))
#define VEC_LOAD_F(p)          _mm256_loadu_ps(p)
#define VEC_STORE(p, x)        _mm256_store_ps(p, x)
#define VEC_AND(a, b)          _mm256_and_si256(a, b)
#define VEC_SHIFT_RIGHT(a, n)  _mm256_srli_epi32(a, n)
#define VEC_SHIFT_LEFT(a, n)   _mm256_slli_epi32(a, n)
#define VEC_TO_FLOAT(a)        _mm256_cvtepi32_ps(a)
#define VEC_AS_FLOAT(a)        _mm256_castsi256_ps(a)
#define VEC_FMA(a, b, c)       _mm256_fmadd_ps(a, b, c)
#define VEC_MUL(a, b)          _mm256_mul_ps(a, b)
#define VEC_LOAD_F16(p)        _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define VEC_LOAD_I16(p)        _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define VEC_SHIFT_SIGNED(a, n) _mm256_srai_epi32(a, n)
typedef __m256i veci;
typedef __m256 vecf;

#include "kernels/cpu/x86/linear_words_body.h"

/* Tiles as in linear_avx2.c: sixteen registers hold the sums of one or two rows and a whole panel,
 * or of up to six and half of one. */
#define SHAPES(M) M(1, 4) M(2, 4) M(3, 2) M(4, 2) M(5, 2) M(6, 2)
DEFINE_MULTIPLY(SHAPES)

void linear_run_words_avx2(const struct linear_block *b)
{
    static const struct word_kernels kernels = { read_heads, EXPAND, MULTIPLY,
                                                 linear_run_f32_avx2 };
    linear_run_words(b, &kernels);
}
