/* layernorm_body.h - RMSNorm and LayerNorm in vectors, compiled once per instruction set.
 *
 * Sums run in two accumulators over absolute positions of the row, so their order is fixed. */
#include "kernels/cpu/op_kernels.h"

#include <math.h>

static float sum_elements(const float *x, int32_t n)
{
    vf a = vf_zero(), b = vf_zero();
    int32_t i = 0;
    for (; i + 2 * VEC_LANES <= n; i += 2 * VEC_LANES) {
        a = vf_add(a, vf_load(x + i));
        b = vf_add(b, vf_load(x + i + VEC_LANES));
    }
    for (; i < n; i += VEC_LANES)
        a = vf_add(a, vf_load_masked(vm_first(n - i), x + i));
    return vf_reduce_add(vf_add(a, b));
}

static float sum_squares(const float *x, int32_t n, float mean)
{
    const vf m = vf_set1(mean);
    vf a = vf_zero(), b = vf_zero();
    int32_t i = 0;
    for (; i + 2 * VEC_LANES <= n; i += 2 * VEC_LANES) {
        vf u = vf_sub(vf_load(x + i), m), v = vf_sub(vf_load(x + i + VEC_LANES), m);
        a = vf_fma(u, u, a);
        b = vf_fma(v, v, b);
    }
    for (; i < n; i += VEC_LANES) {
        vm lanes = vm_first(n - i);
        vf u = vf_select(lanes, vf_sub(vf_load_masked(lanes, x + i), m), vf_zero());
        a = vf_fma(u, u, a);
    }
    return vf_reduce_add(vf_add(a, b));
}

static void add_to(float *residual, const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i += VEC_LANES) {
        vm lanes = vm_first(n - i);
        vf sum = vf_add(vf_load_masked(lanes, residual + i), vf_load_masked(lanes, x + i));
        vf_store_masked(lanes, residual + i, sum);
    }
}

static void norm_run(float *out, float *residual, const float *x, const struct norm *norm)
{
    const int32_t n = norm->size;
    float mean = 0;
    if (residual) {
        add_to(residual, x, n);
        x = residual;
    }
    if (norm->kind == NORM_LAYER)
        mean = sum_elements(x, n) / (float)n;
    const float factor = 1.0f / sqrtf(sum_squares(x, n, mean) / (float)n + norm->eps);
    const vf m = vf_set1(mean), f = vf_set1(factor), offset = vf_set1(norm->weight_offset);
    for (int32_t i = 0; i < n; i += VEC_LANES) {
        vm lanes = vm_first(n - i);
        vf y = vf_mul(vf_sub(vf_load_masked(lanes, x + i), m), f);
        if (norm->weight)
            y = vf_mul(y, vf_add(vf_load_masked(lanes, norm->weight + i), offset));
        if (norm->bias)
            y = vf_add(y, vf_load_masked(lanes, norm->bias + i));
        vf_store_masked(lanes, out + i, y);
    }
}

const struct norm_kernel VEC_NAME(norm_kernel) = { VEC_NEEDS, norm_run };
