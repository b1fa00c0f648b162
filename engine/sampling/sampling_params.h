/* sampling_params.h - how a request's tokens are to be chosen; checked by the server, frozen
 * afterwards. Lists belong to whoever made the struct and must outlive the request. */
#ifndef INFERD_ENGINE_SAMPLING_SAMPLING_PARAMS_H
#define INFERD_ENGINE_SAMPLING_SAMPLING_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

struct sampling_params {
#define SAMPLING_FLOAT(field, def, min, max, min_open) float field;
#define SAMPLING_INT(field, def, min, max)             int64_t field;
#define SAMPLING_BOOL(field, def)                      bool field;
#include "engine/sampling/sampling_params.def"
#undef SAMPLING_FLOAT
#undef SAMPLING_INT
#undef SAMPLING_BOOL
    int32_t num_logprobs;        /* -1: none; 0: the sampled token's; k: the best k as well */
    int32_t num_prompt_logprobs; /* likewise for prompt tokens */
    int32_t
        num_stop_token_ids; /* the request's own, then (unless ignore_eos) the model's EOS ids */
    const int32_t *stop_token_ids;
    int32_t num_eos_token_ids;
    const int32_t *eos_token_ids; /* end the sequence unless ignore_eos; kept out by min_tokens */
    int32_t num_logit_bias;
    const int32_t *logit_bias_ids;
    const float *logit_bias_values;
    const uint32_t *allowed_mask; /* [(vocab + 31) / 32] bits, or NULL: every id */
};

void sampling_params_defaults(struct sampling_params *p);

#endif
