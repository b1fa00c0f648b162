/* op_kernels.h - the small kernels that the rows of each op's table offer: one scalar and plain,
 * the oracle, and one per instruction set. A row needs a level of the device's isa; the last row
 * that the device can run is taken. Private to kernels/cpu. */
#ifndef INFERD_KERNELS_CPU_OP_KERNELS_H
#define INFERD_KERNELS_CPU_OP_KERNELS_H

#include "kernels/cpu/cpu_device.h"

/* layernorm.c: one group of norm->size elements. residual may be NULL; out may be x. */
struct norm_kernel {
    enum cpu_isa needs;
    void (*run)(float *out, float *residual, const float *x, const struct norm *norm);
};

/* activation.c: out[i] = act(gate[i]) * up[i], or act(gate[i]) where up is NULL; out may be gate.
 * ACT_SWIGLU_OAI changes up on the way. */
struct activation_kernel {
    enum cpu_isa needs;
    void (*run)(float *out, const float *gate, const float *up, int32_t count, enum activation act);
    /* x[i] = cap * tanh(x[i] / cap) */
    void (*softcap)(float *x, int32_t count, float cap);
};

/* rotary_embedding.c: rotates one head in place; `half` = rotary_dim / 2. */
struct rotary_kernel {
    enum cpu_isa needs;
    void (*halves)(float *x, const float *cos, const float *sin, int32_t half);
    void (*interleaved)(float *x, const float *cos, const float *sin, int32_t half);
};

/* What a logit weighs in a draw: exp(-distance), or 0 past the limit (min_p); the distance is
 * (max - x) * factor, in float32, so it never falls as x does. */
struct weight_rule {
    float max, factor, limit;
};

/* Draws count in whole units of 2^-40 of the greatest weight, which is 1: sums of them are exact,
 * in any order, for rows of up to 2^23 logits. */
static inline uint64_t weight_mass(float weight)
{
    return (uint64_t)(int64_t)(weight * 0x1p40f);
}

/* logits.c: passes over a row of logits, for sampling.c and logprobs.c. */
struct logits_kernel {
    enum cpu_isa needs;
    /* The greatest element; NaN when there is any NaN. count >= 1. */
    float (*max)(const float *x, int32_t count);
    /* The first index with x[i] == value, or -1. */
    int32_t (*find)(const float *x, int32_t count, float value);
    /* The first index from `begin` on with x[i] >= value, or `count`. */
    int32_t (*find_not_less)(const float *x, int32_t begin, int32_t count, float value);
    /* How many x[i] > value. */
    int32_t (*count_greater)(const float *x, int32_t count, float value);
    void (*weights)(float *w, const float *x, int32_t count, const struct weight_rule *rule);
    uint64_t (*sum_mass)(const float *w, int32_t count);
    /* The sum of exp(x[i] - max), in an order that depends on nothing but `count`. */
    double (*sum_exp)(const float *x, int32_t count, float max);
};

extern const struct norm_kernel norm_kernel_avx2, norm_kernel_avx512;
extern const struct activation_kernel activation_kernel_avx2, activation_kernel_avx512;
/* The row for this device. */
const struct activation_kernel *activation_kernel_for(const struct cpu_device *d);
extern const struct rotary_kernel rotary_kernel_avx2, rotary_kernel_avx512;
extern const struct logits_kernel logits_kernel_avx2, logits_kernel_avx512;
/* The row for this device. */
const struct logits_kernel *logits_kernel_for(const struct cpu_device *d);

#endif
