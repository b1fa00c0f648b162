/* gpt_oss.c - gpt-oss 20b and 120b: every other layer slides, heads have sinks, MLPs are experts
 * whose weights are stacked in one tensor; biases everywhere. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_gpt_oss;

/* The code does not look at the key; all files have "silu". */
static const struct config_name activations[] = { { "silu", ACT_SWIGLU_OAI }, { 0 } };

static const struct config_key config[] = {
    { "intermediate_size", FIELD(moe_intermediate_size), REQUIRED, .min = 1,
      .max = LIMIT_INTERMEDIATE_SIZE },
    { "num_key_value_heads", FIELD(num_key_value_heads), NULLABLE, .fallback = 8, .min = 1,
      .max = LIMIT_NUM_HEADS },
    { "head_dim", FIELD(head_dim), NULLABLE, .fallback = 64, .min = 1, .max = LIMIT_HEAD_DIM },
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 131072,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "rms_norm_eps", FIELD(rms_norm_eps), OPTIONAL, .fallback = 1e-5, .min = 0, .max = 1 },
    { "rope_theta", FIELD(default_rope_theta), OPTIONAL, .fallback = 150000, .min = 1,
      .max = 1e15 },
    { "attention_bias", FIELD(attention_bias), OPTIONAL, .fallback = true },
    { "attention_bias", FIELD(attention_o_bias), OPTIONAL, .fallback = true },
    { "mlp_bias", FIELD(mlp_bias), CONSTANT, .fallback = true },
    { "router_bias", FIELD(router_bias), CONSTANT, .fallback = true },
    { "sliding_window", FIELD(sliding_window), NULLABLE, .fallback = 128, .min = 1,
      .max = LIMIT_MODEL_LEN },
    { "sliding_window_pattern", FIELD(full_attention_interval), CONSTANT, .fallback = 2 },
    { "hidden_act", NAMED(hidden_act), OPTIONAL, .fallback = ACT_SWIGLU_OAI, .names = activations },
    { "swiglu_alpha", FIXED, OPTIONAL, .fallback = 1.702 },
    { "swiglu_limit", FIXED, OPTIONAL, .fallback = 7 },
    { "num_local_experts", FIELD(num_experts), REQUIRED, .min = 1, .max = MOE_MAX_EXPERTS },
    { "num_experts_per_tok", FIELD(num_experts_per_tok), OPTIONAL, .fallback = 4, .min = 1,
      .max = MOE_MAX_EXPERTS },
    { "scoring_func", NAMED(moe_scoring), CONSTANT, .fallback = MOE_SOFTMAX_TOPK },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.self_attn.sinks", W_SINKS, COLUMN_PARALLEL, .bare = true },
    { "model.layers.{}.mlp.router", W_ROUTER, REPLICATED, .part = 0 },
    { "model.layers.{}.mlp.experts.gate_up_proj", W_EXPERT_GATE_UP, COLUMN_PARALLEL, .num_parts = 2,
      .row_order = ROWS_INTERLEAVED, .transposed = true, .bare = true, .stacked = true },
    { "model.layers.{}.mlp.experts.down_proj", W_EXPERT_DOWN, ROW_PARALLEL, .transposed = true,
      .bare = true, .stacked = true },
    { 0 },
};

/* transformers has settings of the rope for a file without any; better to ask for them. */
static bool finish(struct decoder_desc *desc, const json_t *file, struct status *st)
{
    if (json_is_object(json_object_get(file, "rope_scaling")) ||
        json_is_object(json_object_get(file, "rope_parameters")))
        return true;
    return status_set(st, STATUS_INVALID,
                      "config.json: there is no object rope_scaling (or rope_parameters), which %s "
                      "needs",
                      desc->architecture);
}

const struct model_arch arch_gpt_oss = {
    .architectures = { "GptOssForCausalLM" },
    .models = "gpt-oss 20b, 120b, in MXFP4 or with float weights",
    .differs = "experts stacked in one tensor, biases, attention sinks, every other layer slides",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .attention_sinks = true, .moe = true },
    .finish = finish,
};
