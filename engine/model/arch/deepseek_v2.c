/* deepseek_v2.c - DeepSeek-V2, V2-Lite and Coder-V2: keys and values from one latent per token
 * (MLA), the first layers dense, the others with routed and shared experts. */
#include "config/limits.h"
#include "engine/model/arch.h"

#include <math.h>

extern const struct model_arch arch_llama, arch_deepseek_v2;

static const struct config_name scorings[] = { { "softmax", MOE_SOFTMAX }, { 0 } };
static const struct config_name topk_methods[] = {
    { "greedy", TOPK_GREEDY },
    { "group_limited_greedy", TOPK_GROUP_LIMITED_GREEDY },
    { 0 },
};

static const struct config_key config[] = {
    /* Said by the sizes below. */
    { "head_dim", IGNORED, OPTIONAL, .fallback = 0 },
    { "kv_lora_rank", FIELD(kv_lora_rank), REQUIRED, .min = 1, .max = LIMIT_HEAD_DIM },
    { "q_lora_rank", FIELD(q_lora_rank), NULLABLE, .fallback = 1536, .min = 1,
      .max = LIMIT_HIDDEN_SIZE },
    { "qk_nope_head_dim", FIELD(qk_nope_head_dim), REQUIRED, .min = 1, .max = LIMIT_HEAD_DIM },
    { "qk_rope_head_dim", FIELD(qk_rope_head_dim), REQUIRED, .min = 1, .max = LIMIT_HEAD_DIM },
    { "v_head_dim", FIELD(v_head_dim), REQUIRED, .min = 1, .max = LIMIT_HEAD_DIM },
    { "rope_interleave", FIELD(rope_interleave), CONSTANT, .fallback = true },
    /* The code gives these norms no eps, and so they have its default. */
    { "latent_norm_eps", FIELD(latent_norm_eps), CONSTANT, .fallback = 1e-6 },
    { "mlp_bias", FIXED, OPTIONAL, .fallback = false },
    { "n_routed_experts", FIELD(num_experts), REQUIRED, .min = 1, .max = MOE_MAX_EXPERTS },
    { "n_shared_experts", FIELD(n_shared_experts), NULLABLE, .fallback = 2, .min = 0,
      .max = MOE_MAX_EXPERTS },
    { "num_experts_per_tok", FIELD(num_experts_per_tok), REQUIRED, .min = 1,
      .max = MOE_MAX_EXPERTS },
    { "moe_intermediate_size", FIELD(moe_intermediate_size), REQUIRED, .min = 1,
      .max = LIMIT_INTERMEDIATE_SIZE },
    { "first_k_dense_replace", FIELD(first_k_dense_replace), OPTIONAL, .fallback = 0, .min = 0,
      .max = INT32_MAX },
    { "moe_layer_freq", FIELD(moe_layer_freq), OPTIONAL, .fallback = 1, .min = 1,
      .max = INT32_MAX },
    { "scoring_func", NAMED(moe_scoring), OPTIONAL, .fallback = MOE_SOFTMAX, .names = scorings },
    { "topk_method", NAMED(topk_method), OPTIONAL, .fallback = TOPK_GREEDY, .names = topk_methods },
    { "n_group", FIELD(n_group), NULLABLE, .fallback = 0, .min = 1, .max = MOE_MAX_EXPERTS },
    { "topk_group", FIELD(topk_group), NULLABLE, .fallback = 0, .min = 1, .max = MOE_MAX_EXPERTS },
    /* Not looked at by the code. */
    { "norm_topk_prob", FIXED, OPTIONAL, .fallback = false },
    { "routed_scaling_factor", FIELD(routed_scaling_factor), OPTIONAL, .fallback = 1, .min = 1e-6,
      .max = 1e6 },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.self_attn.q_proj", W_Q, COLUMN_PARALLEL, .num_parts = 2,
      .row_order = ROWS_BY_HEAD },
    { "model.layers.{}.self_attn.q_a_proj", W_Q_A, REPLICATED, .part = 0 },
    { "model.layers.{}.self_attn.q_a_layernorm", W_Q_A_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.self_attn.q_b_proj", W_Q_B, COLUMN_PARALLEL, .num_parts = 2,
      .row_order = ROWS_BY_HEAD },
    { "model.layers.{}.self_attn.kv_a_proj_with_mqa", W_KV_A, REPLICATED, .part = 0 },
    { "model.layers.{}.self_attn.kv_a_layernorm", W_KV_A_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.self_attn.kv_b_proj", W_KV_B_K, COLUMN_PARALLEL, .transposed = true,
      .stacked = true },
    { "model.layers.{}.self_attn.kv_b_proj", W_KV_B_V, COLUMN_PARALLEL, .stacked = true },
    { "model.layers.{}.mlp.gate", W_ROUTER, REPLICATED, .part = 0 },
    { "model.layers.{}.mlp.experts.{}.gate_proj", W_EXPERT_GATE_UP, COLUMN_PARALLEL, .part = 0 },
    { "model.layers.{}.mlp.experts.{}.up_proj", W_EXPERT_GATE_UP, COLUMN_PARALLEL, .part = 1 },
    { "model.layers.{}.mlp.experts.{}.down_proj", W_EXPERT_DOWN, ROW_PARALLEL, .part = 0 },
    { "model.layers.{}.mlp.shared_experts.gate_proj", W_SHARED_EXPERT_GATE_UP, COLUMN_PARALLEL,
      .part = 0 },
    { "model.layers.{}.mlp.shared_experts.up_proj", W_SHARED_EXPERT_GATE_UP, COLUMN_PARALLEL,
      .part = 1 },
    { "model.layers.{}.mlp.shared_experts.down_proj", W_SHARED_EXPERT_DOWN, ROW_PARALLEL,
      .part = 0 },
    { 0 },
};

/* All heads share one key, the latent with the part that rotates; scores are still scaled by the
 * size of the keys that it stands for. */
static bool finish(struct decoder_desc *desc, const json_t *file, struct status *st)
{
    int32_t kv_heads = desc->num_key_value_heads, heads = desc->num_attention_heads;
    int64_t shared = (int64_t)desc->n_shared_experts * desc->moe_intermediate_size;
    (void)file;
    if (kv_heads != 0 && kv_heads != heads)
        return status_set(st, STATUS_INVALID,
                          "config.json: num_key_value_heads is %d, expected num_attention_heads = "
                          "%d",
                          kv_heads, heads);
    desc->num_key_value_heads = 1;
    desc->head_dim = desc->kv_lora_rank + desc->qk_rope_head_dim;
    if (desc->head_dim > LIMIT_HEAD_DIM)
        return status_set(st, STATUS_UNSUPPORTED,
                          "config.json: kv_lora_rank %d and qk_rope_head_dim %d are more than %d "
                          "together",
                          desc->kv_lora_rank, desc->qk_rope_head_dim, LIMIT_HEAD_DIM);
    desc->attention_scale =
        (float)(1 / sqrt((double)desc->qk_nope_head_dim + desc->qk_rope_head_dim));
    if (shared > LIMIT_INTERMEDIATE_SIZE)
        return status_set(st, STATUS_UNSUPPORTED,
                          "config.json: n_shared_experts %d of moe_intermediate_size %d are more "
                          "than %d together",
                          desc->n_shared_experts, desc->moe_intermediate_size,
                          LIMIT_INTERMEDIATE_SIZE);
    desc->shared_expert_intermediate_size = (int32_t)shared;
    return true;
}

const struct model_arch arch_deepseek_v2 = {
    .architectures = { "DeepseekV2ForCausalLM" },
    .models = "DeepSeek-V2, V2-Lite, Coder-V2",
    .differs = "keys and values from one latent per token (MLA), routed and shared experts, "
               "routing by groups",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .yarn_scales_scores = true, .moe = true },
    .finish = finish,
};
