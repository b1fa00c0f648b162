/* vec_avx512.h - the vector words that the *_body.h files are written in, for AVX-512 (F, BW, DQ,
 * VL). vec_avx2.h says the same for AVX2. Include it only from *_avx512.c. */
#ifndef INFERD_KERNELS_CPU_X86_VEC_AVX512_H
#define INFERD_KERNELS_CPU_X86_VEC_AVX512_H

#include "kernels/tensor.h"

#include <immintrin.h>
#include <stdint.h>

#define VEC_NAME(name) name##_avx512
#define VEC_LANES      16
#define VEC_NEEDS      CPU_ISA_AVX512

typedef __m512 vf;    /* floats */
typedef __mmask16 vm; /* one bit per lane */

static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
static inline vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}
static inline vf vf_zero(void)
{
    return _mm512_setzero_ps();
}
/* The lanes [0, n); all of them from 16 on, none from 0 down. */
static inline vm vm_first(int32_t n)
{
    return n >= 16 ? (vm)0xffff : n <= 0 ? 0 : (vm)((1u << n) - 1u);
}
static inline vm vm_and_not(vm a, vm not_b)
{
    return (vm)(a & ~not_b);
}
static inline vm vm_or(vm a, vm b)
{
    return (vm)(a | b);
}
static inline vm vm_none(void)
{
    return 0;
}
/* Lanes outside of m are not touched in memory; they load as zero. */
static inline vf vf_load_masked(vm m, const float *p)
{
    return _mm512_maskz_loadu_ps(m, p);
}
static inline void vf_store_masked(vm m, float *p, vf v)
{
    _mm512_mask_storeu_ps(p, m, v);
}
/* a where m is set, else b. */
static inline vf vf_select(vm m, vf a, vf b)
{
    return _mm512_mask_blend_ps(m, b, a);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* b where either is NaN. */
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
static inline vm vf_less(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline vm vf_equal(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
/* False also where either is NaN. */
static inline vm vf_not_less(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
static inline vm vf_is_nan(vf a)
{
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
static inline uint32_t vm_bits(vm m)
{
    return m;
}
/* Lanes are folded in halves: an order that depends on nothing. */
static inline float vf_reduce_add(vf v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}
static inline float vf_reduce_max(vf v)
{
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
/* x * 2^n for whole n in [-150, 128]; rounds once where the result is subnormal. */
static inline vf vf_scale_by_power(vf x, vf n)
{
    return _mm512_scalef_ps(x, n);
}
static inline vf vf_round(vf x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Two rows of a block of the cache (kv_layout.h) as floats: bfloat16 rows are woven into one at
 * `p`, others lie `row_bytes` apart. */
struct vf_pair {
    vf even, odd;
};
static inline struct vf_pair pair_of_bf16(__m512i raw)
{
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    return (struct vf_pair){ _mm512_castsi512_ps(_mm512_slli_epi32(raw, 16)),
                             _mm512_castsi512_ps(_mm512_and_si512(raw, high)) };
}
static inline vf vf_of_i8(__m128i codes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
}
/* E4M3 bits as those of value / 256 in float16: sign and magnitude go to their places, and the one
 * NaN, which has the greatest magnitude, gets the exponent's highest bit. */
static inline struct vf_pair pair_of_f8(__m128i even, __m128i odd)
{
    __m512i half = _mm512_cvtepi8_epi16(_mm256_set_m128i(odd, even));
    half = _mm512_and_si512(_mm512_slli_epi16(half, 7), _mm512_set1_epi16((short)0xbf80));
    __m512i carry = _mm512_add_epi16(half, _mm512_set1_epi16(0x80));
    half = _mm512_or_si512(half, _mm512_and_si512(carry, _mm512_set1_epi16(0x4000)));
    return (struct vf_pair){ _mm512_cvtph_ps(_mm512_castsi512_si256(half)),
                             _mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1)) };
}
static inline struct vf_pair vf_load_pair(const char *p, size_t row_bytes, enum dtype dtype)
{
    if (dtype == DTYPE_BF16)
        return pair_of_bf16(_mm512_loadu_si512(p));
    if (dtype == DTYPE_F16)
        return (
            struct vf_pair){ _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)),
                             _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p + row_bytes))) };
    if (dtype == DTYPE_F8_E4M3)
        return pair_of_f8(_mm_loadu_si128((const void *)p),
                          _mm_loadu_si128((const void *)(p + row_bytes)));
    if (dtype == DTYPE_I8)
        return (struct vf_pair){ vf_of_i8(_mm_loadu_si128((const void *)p)),
                                 vf_of_i8(_mm_loadu_si128((const void *)(p + row_bytes))) };
    return (struct vf_pair){ vf_load((const void *)p), vf_load((const void *)(p + row_bytes)) };
}
/* Only the first n elements of either row are touched; the others are zero. */
static inline struct vf_pair vf_load_pair_first(int32_t n, const char *p, size_t row_bytes,
                                                enum dtype dtype)
{
    const vm lanes = vm_first(n);
    if (dtype == DTYPE_BF16)
        return pair_of_bf16(_mm512_maskz_loadu_epi32(lanes, p));
    if (dtype == DTYPE_F16)
        return (struct vf_pair){ _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, p)),
                                 _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, p + row_bytes)) };
    if (dtype == DTYPE_F8_E4M3)
        return pair_of_f8(_mm_maskz_loadu_epi8(lanes, p),
                          _mm_maskz_loadu_epi8(lanes, p + row_bytes));
    if (dtype == DTYPE_I8)
        return (struct vf_pair){ vf_of_i8(_mm_maskz_loadu_epi8(lanes, p)),
                                 vf_of_i8(_mm_maskz_loadu_epi8(lanes, p + row_bytes)) };
    return (struct vf_pair){ vf_load_masked(lanes, (const void *)p),
                             vf_load_masked(lanes, (const void *)(p + row_bytes)) };
}

#include "kernels/cpu/x86/vec_math.h"

#endif
