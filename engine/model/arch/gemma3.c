/* gemma3.c - Gemma 3, text only: Gemma 2 with norms on the heads of q and k, no softcaps by
 * default, five layers that slide (with rope settings of their own) to one that does not. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_gemma2, arch_gemma3;

static const struct config_key config[] = {
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 131072,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "attn_logit_softcapping", FIELD(attn_logit_softcap), OPTIONAL, .fallback = 0, .min = 1e-6,
      .max = 1e9 },
    { "final_logit_softcapping", FIELD(final_logit_softcap), OPTIONAL, .fallback = 0, .min = 1e-6,
      .max = 1e9 },
    { "sliding_window_pattern", FIELD(full_attention_interval), OPTIONAL, .fallback = 6, .min = 1,
      .max = INT32_MAX },
    { "rope_theta", FIELD(default_rope_theta), OPTIONAL, .fallback = 1e6, .min = 1, .max = 1e15 },
    { "rope_local_base_freq", FIELD(sliding_rope_theta), OPTIONAL, .fallback = 1e4, .min = 1.001,
      .max = 1e15 },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.self_attn.q_norm", W_Q_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.self_attn.k_norm", W_K_NORM, REPLICATED, .part = 0 },
    { 0 },
};

const struct model_arch arch_gemma3 = {
    .architectures = { "Gemma3ForCausalLM" },
    .models = "Gemma 3 (text)",
    .differs = "Gemma 2 with norms on q and k, five sliding layers to one, each kind with a rope "
               "of its own",
    .source = __FILE__,
    .base = &arch_gemma2,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .norm_weight_offset = 1,
                                              .norm_placement = NORM_BEFORE_AND_AFTER,
                                              .qk_norm = QK_NORM_HEAD,
                                              .scale_embedding = true,
                                              .sliding_rope = true },
};
