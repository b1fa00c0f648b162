/* linear_words_avx512.c - packed integers and 8-bit floats with AVX-512. */
#include <immintrin.h>

#define VEC_WIDTH             16
#define VEC_SET_I(x)          _mm512_set1_epi32(x)
#define VEC_SET_F(x)          _mm512_set1_ps(x)
#define VEC_LOAD_I(p)         _mm512_load_si512(p)
#define VEC_LOAD_F(p)         _mm512_loadu_ps(p)
#define VEC_STORE(p, x)       _mm512_store_ps(p, x)
#define VEC_AND(a, b)         _mm512_and_si512(a, b)
#define VEC_SHIFT_RIGHT(a, n) _mm512_srli_epi32(a, (unsigned)(n))
#define VEC_SHIFT_LEFT(a, n)  _mm512_slli_epi32(a, (unsigned)(n))
#define VEC_TO_FLOAT(a)       _mm512_cvtepi32_ps(a)
#define VEC_AS_FLOAT(a)       _mm512_castsi512_ps(a)
#define VEC_FMA(a, b, c)      _mm512_fmadd_ps(a, b, c)
#define VEC_MUL(a, b)         _mm512_mul_ps(a, b)
#define VEC_LOAD_F16(p)       _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define VEC_LOAD_I16(p)                                                                            \
    _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define VEC_SHIFT_SIGNED(a, n) _mm512_srai_epi32(a, (unsigned)(n))
typedef __m512i veci;
typedef __m512 vecf;

#include "kernels/cpu/x86/linear_words_body.h"

#define SHAPES(M) M(1, 2) M(2, 2) M(3, 2) M(4, 2) M(5, 2) M(6, 2)
DEFINE_MULTIPLY(SHAPES)

void linear_run_words_avx512(const struct linear_block *b)
{
    static const struct word_kernels kernels = { read_heads, EXPAND, MULTIPLY,
                                                 linear_run_f32_avx512 };
    linear_run_words(b, &kernels);
}
