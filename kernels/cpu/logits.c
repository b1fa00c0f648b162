/* logits.c - passes over one row of logits, shared by sampling.c and logprobs.c: the scalar row of
 * their table, and the choice among the rows. */
#include "kernels/cpu/op_kernels.h"

#include <math.h>

static float max_scalar(const float *x, int32_t count)
{
    float max = x[0];
    for (int32_t i = 0; i < count; i++) {
        if (isnan(x[i]))
            return x[i];
        max = x[i] > max ? x[i] : max;
    }
    return max;
}

static int32_t find_scalar(const float *x, int32_t count, float value)
{
    for (int32_t i = 0; i < count; i++)
        if (x[i] == value)
            return i;
    return -1;
}

static int32_t find_not_less_scalar(const float *x, int32_t begin, int32_t count, float value)
{
    for (int32_t i = begin; i < count; i++)
        if (x[i] >= value)
            return i;
    return count;
}

static int32_t count_greater_scalar(const float *x, int32_t count, float value)
{
    int32_t greater = 0;
    for (int32_t i = 0; i < count; i++)
        greater += x[i] > value;
    return greater;
}

static void weights_scalar(float *w, const float *x, int32_t count, const struct weight_rule *rule)
{
    for (int32_t i = 0; i < count; i++) {
        float distance = (rule->max - x[i]) * rule->factor;
        w[i] = distance <= rule->limit ? expf(-distance) : 0;
    }
}

static uint64_t sum_mass_scalar(const float *w, int32_t count)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += weight_mass(w[i]);
    return sum;
}

static double sum_exp_scalar(const float *x, int32_t count, float max)
{
    double sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += expf(x[i] - max);
    return sum;
}

static const struct logits_kernel logits_kernel_scalar = {
    .needs = CPU_ISA_SCALAR,
    .max = max_scalar,
    .find = find_scalar,
    .find_not_less = find_not_less_scalar,
    .count_greater = count_greater_scalar,
    .weights = weights_scalar,
    .sum_mass = sum_mass_scalar,
    .sum_exp = sum_exp_scalar,
};

static const struct logits_kernel *const kernels[] = {
    &logits_kernel_scalar,
#if defined(__x86_64__)
    &logits_kernel_avx2,
    &logits_kernel_avx512,
#endif
};

const struct logits_kernel *logits_kernel_for(const struct cpu_device *d)
{
    const struct logits_kernel *chosen = kernels[0];
    for (size_t i = 1; i < sizeof kernels / sizeof *kernels; i++)
        if (kernels[i]->needs <= d->isa)
            chosen = kernels[i];
    return chosen;
}
