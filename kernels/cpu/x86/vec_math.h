/* vec_math.h - functions over vectors, in the words of vec_avx2.h or vec_avx512.h, which include
 * it. The polynomials are minimax fits made for these intervals. */
#ifndef INFERD_KERNELS_CPU_X86_VEC_MATH_H
#define INFERD_KERNELS_CPU_X86_VEC_MATH_H

/* e^x, relative error below 1.2e-7 (one unit in the last place; measured by the activation test).
 * 0 below -104, infinity above 88.73, NaN stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2, and
 * e^r = 1 + r + r^2 p(r). */
static inline vf vf_exp(vf x)
{
    /* The bound comes first, because vf_max and vf_min keep a NaN in their second argument. */
    x = vf_max(vf_set1(-104.0f), vf_min(vf_set1(89.0f), x));
    vf n = vf_round(vf_mul(x, vf_set1(0x1.715476p+0f)));
    vf r = vf_fma(n, vf_set1(-0x1.62e4p-1f), x); /* the upper 15 bits of ln 2: exact */
    r = vf_fma(n, vf_set1(-0x1.7f7d1cp-20f), r); /* and the rest of it */
    vf p = vf_set1(0.0013814598649f);
    p = vf_fma(p, r, vf_set1(0.00836871687966f));
    p = vf_fma(p, r, vf_set1(0.0416683880453f));
    p = vf_fma(p, r, vf_set1(0.166665206317f));
    p = vf_fma(p, r, vf_set1(0.499999934478f));
    vf e = vf_fma(p, vf_mul(r, r), r);
    return vf_scale_by_power(vf_add(e, vf_set1(1.0f)), n);
}

/* tanh(x) = 1 - 2 / (e^2x + 1): absolute error below 2e-7. */
static inline vf vf_tanh(vf x)
{
    vf e = vf_exp(vf_add(x, x));
    return vf_sub(vf_set1(1.0f), vf_div(vf_set1(2.0f), vf_add(e, vf_set1(1.0f))));
}

/* erfc(x) for any x, relative error below 5e-6 where the result is normal: with t = 1 / (1 +
 * |x|/2), erfc(|x|) = t exp(-x^2 + p(t)), and erfc(-x) = 2 - erfc(x). */
static inline vf vf_erfc(vf x)
{
    vf a = vf_min(vf_set1(10.5f), vf_abs(x));
    vf t = vf_div(vf_set1(1.0f), vf_fma(a, vf_set1(0.5f), vf_set1(1.0f)));
    vf p = vf_set1(0.145750869184f);
    p = vf_fma(p, t, vf_set1(-0.685552045982f));
    p = vf_fma(p, t, vf_set1(1.16856509411f));
    p = vf_fma(p, t, vf_set1(-0.71311858043f));
    p = vf_fma(p, t, vf_set1(-0.0652428402796f));
    p = vf_fma(p, t, vf_set1(-0.00739423390886f));
    p = vf_fma(p, t, vf_set1(0.0378117762275f));
    p = vf_fma(p, t, vf_set1(0.38590688239f));
    p = vf_fma(p, t, vf_set1(0.998726133925f));
    p = vf_fma(p, t, vf_set1(-1.26545300756f));
    vf positive = vf_mul(t, vf_exp(vf_fma(vf_sub(vf_zero(), a), a, p)));
    return vf_select(vf_less(x, vf_zero()), vf_sub(vf_set1(2.0f), positive), positive);
}

#endif
