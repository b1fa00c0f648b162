/* deepseek_v3.c - DeepSeek-V3, R1, Moonlight and Kimi-K2: V2 with experts scored one by one, chosen
 * with a bias; layers that predict further tokens are left out. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_deepseek_v2, arch_deepseek_v3;

static const struct config_name scorings[] = { { "sigmoid", MOE_SIGMOID }, { 0 } };
static const struct config_name topk_methods[] = { { "noaux_tc", TOPK_NOAUX_TC }, { 0 } };

static const struct config_key config[] = {
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 4096,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "rope_interleave", FIELD(rope_interleave), OPTIONAL, .fallback = true },
    { "n_shared_experts", FIELD(n_shared_experts), OPTIONAL, .fallback = 1, .min = 0,
      .max = MOE_MAX_EXPERTS },
    { "first_k_dense_replace", FIELD(first_k_dense_replace), OPTIONAL, .fallback = 3, .min = 0,
      .max = INT32_MAX },
    { "scoring_func", NAMED(moe_scoring), OPTIONAL, .fallback = MOE_SIGMOID, .names = scorings },
    { "topk_method", NAMED(topk_method), OPTIONAL, .fallback = TOPK_NOAUX_TC,
      .names = topk_methods },
    { "n_group", FIELD(n_group), OPTIONAL, .fallback = 8, .min = 1, .max = MOE_MAX_EXPERTS },
    { "topk_group", FIELD(topk_group), OPTIONAL, .fallback = 4, .min = 1, .max = MOE_MAX_EXPERTS },
    { "norm_topk_prob", FIELD(norm_topk_prob), OPTIONAL, .fallback = true },
    { "routed_scaling_factor", FIELD(routed_scaling_factor), OPTIONAL, .fallback = 2.5, .min = 1e-6,
      .max = 1e6 },
    { "num_nextn_predict_layers", FIELD(num_nextn_predict_layers), OPTIONAL, .fallback = 1,
      .min = 0, .max = LIMIT_NUM_LAYERS },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.mlp.gate.e_score_correction_bias", W_SCORE_BIAS, REPLICATED, .bare = true },
    { "model.layers.{}", W_IGNORED_LAYER, REPLICATED, .part = 0 },
    { 0 },
};

const struct model_arch arch_deepseek_v3 = {
    .architectures = { "DeepseekV3ForCausalLM" },
    .models = "DeepSeek-V3, R1, Moonlight, Kimi-K2, with float weights",
    .differs = "V2 with a sigmoid for each expert and a bias on the choice",
    .source = __FILE__,
    .base = &arch_deepseek_v2,
    .config = config,
    .tensors = tensors,
};
