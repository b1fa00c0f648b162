/* moe_route.h - which experts a token runs, and how much each counts. Private to kernels/cpu. */
#ifndef INFERD_KERNELS_CPU_MOE_ROUTE_H
#define INFERD_KERNELS_CPU_MOE_ROUTE_H

#include "kernels/weight.h"

/* One token: ids and weights, each [num_experts_per_tok], in falling order of score + score_bias.
 * The rules are at struct moe. A NaN among the logits counts as the least of them when experts are
 * chosen, so that the ids are always valid and distinct, and shows in the weights. */
void moe_route(const struct moe *moe, const float *logits, int32_t *ids, float *weights);

#endif
