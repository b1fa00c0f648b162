/* vec_avx2.h - the vector words that the *_body.h files are written in, for AVX2 with FMA and F16C.
 * vec_avx512.h says the same for AVX-512. Include it only from *_avx2.c. */
#ifndef INFERD_KERNELS_CPU_X86_VEC_AVX2_H
#define INFERD_KERNELS_CPU_X86_VEC_AVX2_H

#include "kernels/tensor.h"

#include <immintrin.h>
#include <stdint.h>

#define VEC_NAME(name) name##_avx2
#define VEC_LANES      8
#define VEC_NEEDS      CPU_ISA_AVX2

typedef __m256 vf; /* floats */
typedef __m256 vm; /* all bits of a lane, or none */

static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
static inline vf vf_set1(float x)
{
    return _mm256_set1_ps(x);
}
static inline vf vf_zero(void)
{
    return _mm256_setzero_ps();
}
/* The lanes [0, n); all of them from 8 on. */
static inline vm vm_first(int32_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
}
static inline vm vm_and_not(vm a, vm not_b)
{
    return _mm256_andnot_ps(not_b, a);
}
static inline vm vm_or(vm a, vm b)
{
    return _mm256_or_ps(a, b);
}
static inline vm vm_none(void)
{
    return _mm256_setzero_ps();
}
/* Lanes outside of m are not touched in memory; they load as zero. */
static inline vf vf_load_masked(vm m, const float *p)
{
    return _mm256_maskload_ps(p, _mm256_castps_si256(m));
}
static inline void vf_store_masked(vm m, float *p, vf v)
{
    _mm256_maskstore_ps(p, _mm256_castps_si256(m), v);
}
/* a where m is set, else b. */
static inline vf vf_select(vm m, vf a, vf b)
{
    return _mm256_blendv_ps(b, a, m);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
/* b where either is NaN. */
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
static inline vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vm vf_less(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
static inline vm vf_equal(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
/* False also where either is NaN. */
static inline vm vf_not_less(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_GE_OQ);
}
static inline vm vf_is_nan(vf a)
{
    return _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
}
static inline uint32_t vm_bits(vm m)
{
    return (uint32_t)_mm256_movemask_ps(m);
}
/* Lanes are folded in halves: an order that depends on nothing. */
static inline float vf_reduce_add(vf v)
{
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}
static inline float vf_reduce_max(vf v)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
/* x * 2^n for whole n in [-150, 128]. In two steps, because 2^n alone may not be a float; only the
 * second can round, so a subnormal result is rounded once. */
static inline vf vf_scale_by_power(vf x, vf n)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, first), second);
}
static inline vf vf_round(vf x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Two rows of a block of the cache (kv_layout.h) as floats: bfloat16 rows are woven into one at
 * `p`, others lie `row_bytes` apart. */
struct vf_pair {
    vf even, odd;
};
static inline struct vf_pair pair_of_bf16(__m256i raw)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    return (struct vf_pair){ _mm256_castsi256_ps(_mm256_slli_epi32(raw, 16)),
                             _mm256_castsi256_ps(_mm256_and_si256(raw, high)) };
}
static inline vf vf_of_i8(__m128i codes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
}
/* E4M3 bits as those of value / 256 in float16: sign and magnitude go to their places, and the one
 * NaN, which has the greatest magnitude, gets the exponent's highest bit. Eight elements in the low
 * half, eight in the high one. */
static inline struct vf_pair pair_of_f8(__m128i rows)
{
    __m256i half = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(rows), 7),
                                    _mm256_set1_epi16((short)0xbf80));
    __m256i carry = _mm256_add_epi16(half, _mm256_set1_epi16(0x80));
    half = _mm256_or_si256(half, _mm256_and_si256(carry, _mm256_set1_epi16(0x4000)));
    return (struct vf_pair){ _mm256_cvtph_ps(_mm256_castsi256_si128(half)),
                             _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1)) };
}
static inline struct vf_pair vf_load_pair(const char *p, size_t row_bytes, enum dtype dtype)
{
    if (dtype == DTYPE_BF16)
        return pair_of_bf16(_mm256_loadu_si256((const void *)p));
    if (dtype == DTYPE_F16)
        return (struct vf_pair){ _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                                 _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + row_bytes))) };
    if (dtype == DTYPE_F8_E4M3)
        return pair_of_f8(_mm_unpacklo_epi64(_mm_loadl_epi64((const void *)p),
                                             _mm_loadl_epi64((const void *)(p + row_bytes))));
    if (dtype == DTYPE_I8)
        return (struct vf_pair){ vf_of_i8(_mm_loadl_epi64((const void *)p)),
                                 vf_of_i8(_mm_loadl_epi64((const void *)(p + row_bytes))) };
    return (struct vf_pair){ vf_load((const void *)p), vf_load((const void *)(p + row_bytes)) };
}
/* AVX2 cannot mask loads of less than 32 bits. */
static inline vf load_f16_first(int32_t n, const char *p)
{
    uint16_t lanes[8] = { 0 };
    __builtin_memcpy(lanes, p, (size_t)(n < 8 ? n : 8) * 2);
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)lanes));
}
/* Of each row at most 8 bytes, one row after the other. */
static inline __m128i load_rows_first(int32_t n, const char *p, size_t row_bytes)
{
    char bytes[16] = { 0 };
    __builtin_memcpy(bytes, p, (size_t)(n < 8 ? n : 8));
    __builtin_memcpy(bytes + 8, p + row_bytes, (size_t)(n < 8 ? n : 8));
    return _mm_loadu_si128((const void *)bytes);
}
/* Only the first n elements of either row are touched; the others are zero. */
static inline struct vf_pair vf_load_pair_first(int32_t n, const char *p, size_t row_bytes,
                                                enum dtype dtype)
{
    const vm lanes = vm_first(n);
    if (dtype == DTYPE_BF16)
        return pair_of_bf16(_mm256_maskload_epi32((const void *)p, _mm256_castps_si256(lanes)));
    if (dtype == DTYPE_F16)
        return (struct vf_pair){ load_f16_first(n, p), load_f16_first(n, p + row_bytes) };
    if (dtype == DTYPE_F8_E4M3)
        return pair_of_f8(load_rows_first(n, p, row_bytes));
    if (dtype == DTYPE_I8) {
        __m128i rows = load_rows_first(n, p, row_bytes);
        return (struct vf_pair){ vf_of_i8(rows), vf_of_i8(_mm_unpackhi_epi64(rows, rows)) };
    }
    return (struct vf_pair){ vf_load_masked(lanes, (const void *)p),
                             vf_load_masked(lanes, (const void *)(p + row_bytes)) };
}

#include "kernels/cpu/x86/vec_math.h"

#endif
