/* mixtral.c - Mixtral 8x7B and 8x22B: Mistral with experts in every layer. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_mistral, arch_mixtral;

static const struct config_key config[] = {
    { "intermediate_size", FIELD(moe_intermediate_size), REQUIRED, .min = 1,
      .max = LIMIT_INTERMEDIATE_SIZE },
    { "rms_norm_eps", FIELD(rms_norm_eps), OPTIONAL, .fallback = 1e-5, .min = 0, .max = 1 },
    { "rope_theta", FIELD(default_rope_theta), OPTIONAL, .fallback = 1e6, .min = 1, .max = 1e15 },
    { "sliding_window", FIELD(sliding_window), NULLABLE, .fallback = 0, .min = 1,
      .max = LIMIT_MODEL_LEN },
    { "num_local_experts", FIELD(num_experts), REQUIRED, .min = 1, .max = MOE_MAX_EXPERTS },
    { "num_experts_per_tok", FIELD(num_experts_per_tok), OPTIONAL, .fallback = 2, .min = 1,
      .max = MOE_MAX_EXPERTS },
    /* No key of MixtralConfig: this is how its code is. */
    { "norm_topk_prob", FIELD(norm_topk_prob), CONSTANT, .fallback = true },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.block_sparse_moe.gate", W_ROUTER, REPLICATED, .part = 0 },
    { "model.layers.{}.block_sparse_moe.experts.{}.w1", W_EXPERT_GATE_UP, COLUMN_PARALLEL,
      .part = 0 },
    { "model.layers.{}.block_sparse_moe.experts.{}.w3", W_EXPERT_GATE_UP, COLUMN_PARALLEL,
      .part = 1 },
    { "model.layers.{}.block_sparse_moe.experts.{}.w2", W_EXPERT_DOWN, ROW_PARALLEL, .part = 0 },
    { 0 },
};

const struct model_arch arch_mixtral = {
    .architectures = { "MixtralForCausalLM" },
    .models = "Mixtral 8x7B, 8x22B",
    .differs = "Mistral with experts",
    .source = __FILE__,
    .base = &arch_mistral,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .moe = true },
};
