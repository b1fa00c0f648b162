/* activation_body.h - act(gate) * up in vectors, compiled once per instruction set. */
#include "kernels/cpu/op_kernels.h"

static inline vf silu(vf x)
{
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}

static inline vf gelu(vf x)
{
    return vf_mul(vf_mul(vf_set1(0.5f), x), vf_erfc(vf_mul(x, vf_set1(-0.70710678f))));
}

/* 0.5 x (1 + tanh(u)) is x / (1 + e^-2u), which does not cancel for negative u. */
static inline vf gelu_tanh(vf x)
{
    vf cube = vf_mul(vf_mul(x, x), x);
    vf u = vf_mul(vf_set1(-1.59576912f), vf_fma(vf_set1(0.044715f), cube, x));
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(u)));
}

/* Of two arguments the second keeps a NaN, here and below. */
static inline vf swiglu_oai(vf x)
{
    x = vf_min(vf_set1(SWIGLU_OAI_LIMIT), x);
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(vf_mul(vf_set1(-SWIGLU_OAI_ALPHA), x))));
}

static inline vf gated(vf up, enum activation act)
{
    if (act != ACT_SWIGLU_OAI)
        return up;
    up = vf_max(vf_set1(-SWIGLU_OAI_LIMIT), vf_min(vf_set1(SWIGLU_OAI_LIMIT), up));
    return vf_add(up, vf_set1(1.0f));
}

static inline vf activate(vf x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return silu(x);
    case ACT_GELU:
        return gelu(x);
    case ACT_GELU_TANH:
        return gelu_tanh(x);
    case ACT_SWIGLU_OAI:
        return swiglu_oai(x);
    default:
        return vf_max(vf_zero(), x); /* relu */
    }
}

__attribute__((always_inline)) static inline void run_one(float *out, const float *gate,
                                                          const float *up, int32_t count,
                                                          enum activation act)
{
    for (int32_t i = 0; i < count; i += VEC_LANES) {
        vm lanes = vm_first(count - i);
        vf y = activate(vf_load_masked(lanes, gate + i), act);
        if (up)
            y = vf_mul(y, gated(vf_load_masked(lanes, up + i), act));
        vf_store_masked(lanes, out + i, y);
    }
}

/* One loop per activation, so that the choice is made outside. */
static void activation_run(float *out, const float *gate, const float *up, int32_t count,
                           enum activation act)
{
    switch (act) {
    case ACT_SILU:
        run_one(out, gate, up, count, ACT_SILU);
        break;
    case ACT_GELU:
        run_one(out, gate, up, count, ACT_GELU);
        break;
    case ACT_GELU_TANH:
        run_one(out, gate, up, count, ACT_GELU_TANH);
        break;
    case ACT_SWIGLU_OAI:
        run_one(out, gate, up, count, ACT_SWIGLU_OAI);
        break;
    default:
        run_one(out, gate, up, count, ACT_RELU);
        break;
    }
}

static void softcap_run(float *x, int32_t count, float cap)
{
    const vf c = vf_set1(cap);
    for (int32_t i = 0; i < count; i += VEC_LANES) {
        vm lanes = vm_first(count - i);
        vf y = vf_tanh(vf_div(vf_load_masked(lanes, x + i), c));
        vf_store_masked(lanes, x + i, vf_mul(c, y));
    }
}

const struct activation_kernel VEC_NAME(activation_kernel) = { VEC_NEEDS, activation_run,
                                                               softcap_run };
