/* kv_scales.h - the scales that a checkpoint brings for an fp8 KV cache, one for K and one for V in
 * a layer.
 *
 * Their names are those that vLLM reads: k_scale and v_scale in self_attn, in its attn or in its
 * k_proj and v_proj, or kv_scale for both. */
#ifndef INFERD_ENGINE_MODEL_KV_SCALES_H
#define INFERD_ENGINE_MODEL_KV_SCALES_H

#include "base/status.h"
#include "engine/model/checkpoint.h"

struct kv_scales {
    float k, v;
};

/* Whether the tensor of that name is such a scale, of one of num_layers layers. */
bool kv_scales_name(const char *tensor, int32_t num_layers);
/* 1 and 1 where the checkpoint has none, or is NULL; where it has only K's, V's is the same. False
 * where one is not a single positive float. */
bool kv_scales_find(const struct checkpoint *c, int32_t layer, struct kv_scales *out,
                    struct status *st);

#endif
