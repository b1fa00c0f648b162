/* phi3.c - Phi-3, Phi-3.5 and Phi-4: Llama with q, k, v in one tensor, gate and up in another;
 * longrope in the long models, and heads that rotate in part in the mini ones. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_phi3;

static const struct config_key config[] = {
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 4096,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "rms_norm_eps", FIELD(rms_norm_eps), OPTIONAL, .fallback = 1e-5, .min = 0, .max = 1 },
    { "partial_rotary_factor", FIELD(partial_rotary_factor), OPTIONAL, .fallback = 1, .min = 1e-6,
      .max = 1 },
    { "sliding_window", FIELD(sliding_window), OPTIONAL, .fallback = 0, .min = 1,
      .max = LIMIT_MODEL_LEN },
    { "attention_bias", FIXED, OPTIONAL, .fallback = false },
    { "mlp_bias", FIXED, OPTIONAL, .fallback = false },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.self_attn.qkv_proj", W_QKV, COLUMN_PARALLEL, .num_parts = 3 },
    { "model.layers.{}.mlp.gate_up_proj", W_GATE_UP, COLUMN_PARALLEL, .num_parts = 2 },
    { 0 },
};

const struct model_arch arch_phi3 = {
    .architectures = { "Phi3ForCausalLM" },
    .models = "Phi-3, Phi-3.5-mini, Phi-4, Phi-4-mini",
    .differs = "fused q, k, v and gate, up; longrope; partial rotation",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .partial_rotary = true },
};
