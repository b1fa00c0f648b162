/* gemma2.c - Gemma 2: norms before and after each block, stored as weight - 1; softcaps on scores
 * and logits; embeddings times sqrt(hidden_size); every other layer slides. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_gemma2;

static const struct config_key config[] = {
    { "head_dim", FIELD(head_dim), OPTIONAL, .fallback = 256, .min = 1, .max = LIMIT_HEAD_DIM },
    { "num_key_value_heads", FIELD(num_key_value_heads), OPTIONAL, .fallback = 4, .min = 1,
      .max = LIMIT_NUM_HEADS },
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 8192,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "hidden_activation", FIELD(hidden_act), OPTIONAL, .fallback = ACT_GELU_TANH },
    { "hidden_act", IGNORED, OPTIONAL, .fallback = 0 },
    { "tie_word_embeddings", FIELD(tie_word_embeddings), OPTIONAL, .fallback = true },
    { "mlp_bias", FIXED, OPTIONAL, .fallback = false },
    { "query_pre_attn_scalar", FIELD(query_pre_attn_scalar), OPTIONAL, .fallback = 256, .min = 1e-6,
      .max = 1e9 },
    { "attn_logit_softcapping", FIELD(attn_logit_softcap), NULLABLE, .fallback = 50, .min = 1e-6,
      .max = 1e9 },
    { "final_logit_softcapping", FIELD(final_logit_softcap), NULLABLE, .fallback = 30, .min = 1e-6,
      .max = 1e9 },
    { "sliding_window", FIELD(sliding_window), NULLABLE, .fallback = 4096, .min = 1,
      .max = LIMIT_MODEL_LEN },
    { "sliding_window_pattern", FIELD(full_attention_interval), CONSTANT, .fallback = 2 },
    { "use_bidirectional_attention", FIXED, OPTIONAL, .fallback = false },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.post_attention_layernorm", W_ATTENTION_OUT_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.pre_feedforward_layernorm", W_POST_ATTENTION_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.post_feedforward_layernorm", W_MLP_OUT_NORM, REPLICATED, .part = 0 },
    { 0 },
};

const struct model_arch arch_gemma2 = {
    .architectures = { "Gemma2ForCausalLM" },
    .models = "Gemma 2",
    .differs =
        "norms on both sides of blocks, soft caps, scaled embeddings, every other layer slides",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .norm_weight_offset = 1,
                                              .norm_placement = NORM_BEFORE_AND_AFTER,
                                              .scale_embedding = true },
};
