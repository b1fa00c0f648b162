/* linear_words_avx512.c - packed integers and 8-bit floats with AVX-512. */
#include <immintrin.h>

#define VEC_WIDTH             16
#define VEC_SET_I(x)          _mm512_set1_epi32(x)
#define VEC_SET_F(x)          _mm512_set1_ps(x)
#define VEC_LOAD_I(p)         _mm512_load_si512(p)
#define VEC_LOAD_F(p)         _mm512_loadu_ps(p)
#define VEC_STORE(p, x)       _mm512_store_ps(p, x)
#define VEC_AND(a, b)         _mm512_and_si512(a, b)
#define VEC_OR(a, b)          _mm512_or_si512(a, b)
#define VEC_SHIFT_RIGHT(a, n) _mm512_srli_epi32(a, (unsigned)(n))
#define VEC_SHIFT_LEFT(a, n)  _mm512_slli_epi32(a, (unsigned)(n))
#define VEC_TO_FLOAT(a)       _mm512_cvtepi32_ps(a)
#define VEC_AS_FLOAT(a)       _mm512_castsi512_ps(a)
#define VEC_FMA(a, b, c)      _mm512_fmadd_ps(a, b, c)
#define VEC_MUL(a, b)         _mm512_mul_ps(a, b)
typedef __m512i veci;
typedef __m512 vecf;

#include "kernels/cpu/x86/linear_words_body.h"

void linear_run_words_avx512(const struct linear_block *b)
{
    linear_run_words(b, expand, linear_run_f32_avx512);
}
