/* qwen3_moe.c - Qwen3 with experts (30B-A3B, 235B-A22B, Coder): all of its layers slide or none. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_qwen3, arch_qwen3_moe;

static const struct config_key config[] = {
    { "head_dim", FIELD(head_dim), OPTIONAL, .fallback = 0, .min = 1, .max = LIMIT_HEAD_DIM },
    /* In files, but not in the code. */
    { "max_window_layers", IGNORED, OPTIONAL, .fallback = 0 },
    { "num_experts", FIELD(num_experts), OPTIONAL, .fallback = 0, .min = 1,
      .max = MOE_MAX_EXPERTS },
    { "num_local_experts", FIELD(num_local_experts), OPTIONAL, .fallback = 0, .min = 1,
      .max = MOE_MAX_EXPERTS },
    { "num_experts_per_tok", FIELD(num_experts_per_tok), OPTIONAL, .fallback = 8, .min = 1,
      .max = MOE_MAX_EXPERTS },
    { "moe_intermediate_size", FIELD(moe_intermediate_size), REQUIRED, .min = 1,
      .max = LIMIT_INTERMEDIATE_SIZE },
    { "norm_topk_prob", FIELD(norm_topk_prob), OPTIONAL, .fallback = false },
    { "decoder_sparse_step", FIELD(decoder_sparse_step), OPTIONAL, .fallback = 1, .min = 1,
      .max = INT32_MAX },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.mlp.gate", W_ROUTER, REPLICATED, .part = 0 },
    { "model.layers.{}.mlp.experts.{}.gate_proj", W_EXPERT_GATE_UP, COLUMN_PARALLEL, .part = 0 },
    { "model.layers.{}.mlp.experts.{}.up_proj", W_EXPERT_GATE_UP, COLUMN_PARALLEL, .part = 1 },
    { "model.layers.{}.mlp.experts.{}.down_proj", W_EXPERT_DOWN, ROW_PARALLEL, .part = 0 },
    { 0 },
};

const struct model_arch arch_qwen3_moe = {
    .architectures = { "Qwen3MoeForCausalLM" },
    .models = "Qwen3-30B-A3B, 235B-A22B",
    .differs = "Qwen3 with experts",
    .source = __FILE__,
    .base = &arch_qwen3,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .qk_norm = QK_NORM_HEAD, .moe = true },
};
