/* moe_route.c - the router's choice for one token. */
#include "kernels/cpu/moe_route.h"

#include <assert.h>
#include <math.h>

/* The greatest value that is still in play; of equal ones the first. */
static int32_t best_of(const float *values, const bool *out_of_play, int32_t count)
{
    int32_t best = -1;
    for (int32_t i = 0; i < count; i++)
        if (!out_of_play[i] && (best < 0 || values[i] > values[best]))
            best = i;
    assert(best >= 0);
    return best;
}

/* values[i] = exp(values[i] - max) / sum. */
static void softmax(float *values, int32_t count)
{
    float max = -INFINITY;
    for (int32_t i = 0; i < count; i++)
        max = values[i] > max || isnan(values[i]) ? values[i] : max;
    double sum = 0;
    for (int32_t i = 0; i < count; i++) {
        values[i] = expf(values[i] - max);
        sum += values[i];
    }
    for (int32_t i = 0; i < count; i++)
        values[i] = (float)(values[i] / sum);
}

static void score(const struct moe *moe, const float *logits, float *scores)
{
    for (int32_t i = 0; i < moe->num_experts; i++)
        scores[i] = moe->scoring == MOE_SIGMOID ? 1.0f / (1.0f + expf(-logits[i])) : logits[i];
    if (moe->scoring == MOE_SOFTMAX)
        softmax(scores, moe->num_experts);
}

static float group_score(const struct moe *moe, const float *choice, int32_t size)
{
    float best = -INFINITY, second = -INFINITY;
    for (int32_t i = 0; i < size; i++)
        if (choice[i] > best) {
            second = best;
            best = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    return moe->group_score == MOE_GROUP_TOP2 && size > 1 ? best + second : best;
}

/* Leaves only the experts of the best groups in play. */
static void limit_groups(const struct moe *moe, const float *choice, bool *out_of_play)
{
    float scores[MOE_MAX_EXPERTS];
    bool chosen[MOE_MAX_EXPERTS] = { false };
    int32_t size = moe->num_experts / moe->num_groups;
    for (int32_t g = 0; g < moe->num_groups; g++)
        scores[g] = group_score(moe, choice + g * size, size);
    for (int32_t n = 0; n < moe->topk_groups; n++)
        chosen[best_of(scores, chosen, moe->num_groups)] = true;
    for (int32_t i = 0; i < moe->num_experts; i++)
        out_of_play[i] = !chosen[i / size];
}

void moe_route(const struct moe *moe, const float *logits, int32_t *ids, float *weights)
{
    float scores[MOE_MAX_EXPERTS], choice[MOE_MAX_EXPERTS];
    bool out_of_play[MOE_MAX_EXPERTS] = { false };
    int32_t top_k = moe->num_experts_per_tok;
    score(moe, logits, scores);
    for (int32_t i = 0; i < moe->num_experts; i++) {
        choice[i] = moe->score_bias ? scores[i] + moe->score_bias[i] : scores[i];
        if (isnan(choice[i]))
            choice[i] = -INFINITY;
    }
    if (moe->num_groups > 1)
        limit_groups(moe, choice, out_of_play);
    for (int32_t n = 0; n < top_k; n++) {
        ids[n] = best_of(choice, out_of_play, moe->num_experts);
        out_of_play[ids[n]] = true;
        weights[n] = scores[ids[n]];
    }
    if (moe->scoring == MOE_SOFTMAX_TOPK)
        softmax(weights, top_k);
    double sum = 1e-20; /* all chosen sigmoids may be zero */
    for (int32_t n = 0; n < top_k && moe->norm_topk_prob; n++)
        sum += weights[n];
    for (int32_t n = 0; n < top_k; n++) {
        if (moe->norm_topk_prob)
            weights[n] = (float)(weights[n] / sum);
        weights[n] *= moe->routed_scaling_factor;
    }
}
