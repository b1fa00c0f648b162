/* qwen3.c - Qwen3: Qwen2 with norms on the heads of q and k in place of biases. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_qwen2, arch_qwen3;

static const struct config_key config[] = {
    { "head_dim", FIELD(head_dim), NULLABLE, .fallback = 128, .min = 1, .max = LIMIT_HEAD_DIM },
    { "attention_bias", FIELD(attention_bias), OPTIONAL, .fallback = false },
    { "attention_bias", FIELD(attention_o_bias), OPTIONAL, .fallback = false },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.self_attn.q_norm", W_Q_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.self_attn.k_norm", W_K_NORM, REPLICATED, .part = 0 },
    { 0 },
};

const struct model_arch arch_qwen3 = {
    .architectures = { "Qwen3ForCausalLM" },
    .models = "Qwen3",
    .differs = "norms on the heads of q and k",
    .source = __FILE__,
    .base = &arch_qwen2,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .qk_norm = QK_NORM_HEAD },
};
