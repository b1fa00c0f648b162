/* starcoder2.c - StarCoder 2: Llama's attention with biases, LayerNorms, an MLP without a gate. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_starcoder2;

static const struct config_key config[] = {
    { "num_key_value_heads", FIELD(num_key_value_heads), OPTIONAL, .fallback = 2, .min = 1,
      .max = LIMIT_NUM_HEADS },
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 4096,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "hidden_act", FIELD(hidden_act), OPTIONAL, .fallback = ACT_GELU_TANH },
    { "norm_epsilon", FIELD(rms_norm_eps), OPTIONAL, .fallback = 1e-5, .min = 0, .max = 1 },
    { "rms_norm_eps", IGNORED, OPTIONAL, .fallback = 0 },
    { "use_bias", FIELD(attention_bias), OPTIONAL, .fallback = true },
    { "use_bias", FIELD(attention_o_bias), OPTIONAL, .fallback = true },
    { "use_bias", FIELD(mlp_bias), OPTIONAL, .fallback = true },
    { "attention_bias", IGNORED, OPTIONAL, .fallback = 0 },
    { "mlp_bias", IGNORED, OPTIONAL, .fallback = 0 },
    { "tie_word_embeddings", FIELD(tie_word_embeddings), OPTIONAL, .fallback = true },
    { "sliding_window", FIELD(sliding_window), OPTIONAL, .fallback = 0, .min = 1,
      .max = LIMIT_MODEL_LEN },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.layers.{}.mlp.c_fc", W_GATE_UP, COLUMN_PARALLEL, .part = 0 },
    { "model.layers.{}.mlp.c_proj", W_DOWN, ROW_PARALLEL, .part = 0 },
    { 0 },
};

const struct model_arch arch_starcoder2 = {
    .architectures = { "Starcoder2ForCausalLM" },
    .models = "StarCoder 2",
    .differs = "LayerNorm, biases, no gate in the MLP",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .norm_kind = NORM_LAYER, .plain_mlp = true },
};
