/* qwen2_moe.c - Qwen1.5 and Qwen2 with experts (A2.7B, 57B-A14B): one expert that all tokens run,
 * as far as a gate lets it, and others that a router chooses. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_qwen2, arch_qwen2_moe;

static const struct config_key config[] = {
    { "qkv_bias", FIELD(attention_bias), OPTIONAL, .fallback = true },
    { "attention_bias", IGNORED, OPTIONAL, .fallback = 0 },
    /* transformers writes 0 where nothing slides. */
    { "sliding_window", FIELD(sliding_window), NULLABLE, .fallback = 4096, .min = 0,
      .max = LIMIT_MODEL_LEN },
    { "max_window_layers", IGNORED, OPTIONAL, .fallback = 0 },
    { "num_experts", FIELD(num_experts), REQUIRED, .min = 1, .max = MOE_MAX_EXPERTS },
    { "num_experts_per_tok", FIELD(num_experts_per_tok), OPTIONAL, .fallback = 4, .min = 1,
      .max = MOE_MAX_EXPERTS },
    { "moe_intermediate_size", FIELD(moe_intermediate_size), REQUIRED, .min = 1,
      .max = LIMIT_INTERMEDIATE_SIZE },
    { "shared_expert_intermediate_size", FIELD(shared_expert_intermediate_size), REQUIRED, .min = 1,
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
    { "model.layers.{}.mlp.shared_expert.gate_proj", W_SHARED_EXPERT_GATE_UP, COLUMN_PARALLEL,
      .part = 0 },
    { "model.layers.{}.mlp.shared_expert.up_proj", W_SHARED_EXPERT_GATE_UP, COLUMN_PARALLEL,
      .part = 1 },
    { "model.layers.{}.mlp.shared_expert.down_proj", W_SHARED_EXPERT_DOWN, ROW_PARALLEL,
      .part = 0 },
    { "model.layers.{}.mlp.shared_expert_gate", W_SHARED_EXPERT_GATE, REPLICATED, .part = 0 },
    { 0 },
};

/* Which layers slide has changed between versions of transformers, so it has to be written down. */
static bool finish(struct decoder_desc *desc, const json_t *file, struct status *st)
{
    const json_t *types = json_object_get(file, "layer_types");
    if (!desc->use_sliding_window || (types && !json_is_null(types)))
        return true;
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: use_sliding_window is true without layer_types; for %s it must "
                      "list which layers slide",
                      desc->architecture);
}

const struct model_arch arch_qwen2_moe = {
    .architectures = { "Qwen2MoeForCausalLM" },
    .models = "Qwen1.5-MoE, Qwen2-57B-A14B",
    .differs = "experts, one of them shared behind a gate",
    .source = __FILE__,
    .base = &arch_qwen2,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .moe = true, .shared_expert_gate = true },
    .finish = finish,
};
