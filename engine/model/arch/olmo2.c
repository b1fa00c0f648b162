/* olmo2.c - OLMo 2: Llama with norms behind the blocks instead of before them, and on all of q and
 * k. */
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_olmo2;

static const struct config_key config[] = {
    { "rms_norm_eps", FIELD(rms_norm_eps), OPTIONAL, .fallback = 1e-5, .min = 0, .max = 1 },
    { "mlp_bias", FIXED, OPTIONAL, .fallback = false },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.self_attn.q_norm", W_Q_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.self_attn.k_norm", W_K_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.post_attention_layernorm", W_ATTENTION_OUT_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.post_feedforward_layernorm", W_MLP_OUT_NORM, REPLICATED, .part = 0 },
    { 0 },
};

const struct model_arch arch_olmo2 = {
    .architectures = { "Olmo2ForCausalLM" },
    .models = "OLMo 2",
    .differs = "norms behind blocks; norms over all of q and of k",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
    .tensors = tensors,
    .traits =
        &(const struct decoder_traits){ .norm_placement = NORM_AFTER, .qk_norm = QK_NORM_ALL },
};
