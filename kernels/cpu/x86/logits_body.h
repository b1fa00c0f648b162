/* logits_body.h - passes over one row of logits in vectors, compiled once per instruction set. */
#include "kernels/cpu/op_kernels.h"

#include <math.h>

static float logits_max(const float *x, int32_t count)
{
    const vf lowest = vf_set1(-INFINITY);
    vf max = lowest;
    vm bad = vm_none();
    int32_t i = 0;
    for (; i + VEC_LANES <= count; i += VEC_LANES) {
        vf v = vf_load(x + i);
        bad = vm_or(bad, vf_is_nan(v));
        max = vf_max(v, max);
    }
    if (i < count) {
        vm lanes = vm_first(count - i);
        vf v = vf_select(lanes, vf_load_masked(lanes, x + i), lowest);
        bad = vm_or(bad, vf_is_nan(v));
        max = vf_max(v, max);
    }
    return vm_bits(bad) ? NAN : vf_reduce_max(max);
}

static int32_t logits_find(const float *x, int32_t count, float value)
{
    const vf wanted = vf_set1(value);
    int32_t i = 0;
    for (; i + VEC_LANES <= count; i += VEC_LANES) {
        uint32_t bits = vm_bits(vf_equal(vf_load(x + i), wanted));
        if (bits)
            return i + __builtin_ctz(bits);
    }
    for (; i < count; i++)
        if (x[i] == value)
            return i;
    return -1;
}

static int32_t logits_find_not_less(const float *x, int32_t begin, int32_t count, float value)
{
    const vf bound = vf_set1(value);
    int32_t i = begin;
    for (; i + VEC_LANES <= count; i += VEC_LANES) {
        uint32_t bits = vm_bits(vf_not_less(vf_load(x + i), bound));
        if (bits)
            return i + __builtin_ctz(bits);
    }
    for (; i < count; i++)
        if (x[i] >= value)
            return i;
    return count;
}

static int32_t logits_count_greater(const float *x, int32_t count, float value)
{
    const vf bound = vf_set1(value);
    int32_t greater = 0, i = 0;
    for (; i + VEC_LANES <= count; i += VEC_LANES)
        greater += __builtin_popcount(vm_bits(vf_less(bound, vf_load(x + i))));
    for (; i < count; i++)
        greater += x[i] > value;
    return greater;
}

static void logits_weights(float *w, const float *x, int32_t count, const struct weight_rule *rule)
{
    const vf max = vf_set1(rule->max), factor = vf_set1(rule->factor);
    const vf limit = vf_set1(rule->limit);
    for (int32_t i = 0; i < count; i += VEC_LANES) {
        vm lanes = vm_first(count - i);
        vf distance = vf_mul(vf_sub(max, vf_load_masked(lanes, x + i)), factor);
        vf weight = vf_exp(vf_sub(vf_zero(), distance));
        weight = vf_select(vf_not_less(limit, distance), weight, vf_zero());
        vf_store_masked(lanes, w + i, weight);
    }
}

static uint64_t logits_sum_mass(const float *w, int32_t count)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += weight_mass(w[i]);
    return sum;
}

/* Each piece of 1,024 is summed in float32 lanes, the pieces in double. */
static double logits_sum_exp(const float *x, int32_t count, float max)
{
    enum { PIECE = 1024 };
    const vf m = vf_set1(max);
    double sum = 0;
    for (int32_t begin = 0; begin < count; begin += PIECE) {
        int32_t end = count - begin < PIECE ? count : begin + PIECE;
        vf piece = vf_zero();
        for (int32_t i = begin; i < end; i += VEC_LANES) {
            vm lanes = vm_first(end - i);
            vf e = vf_exp(vf_sub(vf_load_masked(lanes, x + i), m));
            piece = vf_add(piece, vf_select(lanes, e, vf_zero()));
        }
        sum += vf_reduce_add(piece);
    }
    return sum;
}

const struct logits_kernel VEC_NAME(logits_kernel) = {
    .needs = VEC_NEEDS,
    .max = logits_max,
    .find = logits_find,
    .find_not_less = logits_find_not_less,
    .count_greater = logits_count_greater,
    .weights = logits_weights,
    .sum_mass = logits_sum_mass,
    .sum_exp = logits_sum_exp,
};
