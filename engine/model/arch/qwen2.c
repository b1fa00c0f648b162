/* qwen2.c - Qwen2, Qwen2.5 and QwQ: Llama with biases on q, k and v, and layers that may slide. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_qwen2;

static const struct config_key config[] = {
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 32768,
      .min = 1, .max = LIMIT_MODEL_LEN },
    /* No keys of Qwen2Config: these are how its code is. */
    { "attention_bias", FIELD(attention_bias), CONSTANT, .fallback = true },
    { "mlp_bias", FIXED, OPTIONAL, .fallback = false },
    { "sliding_window", FIELD(sliding_window), NULLABLE, .fallback = 4096, .min = 1,
      .max = LIMIT_MODEL_LEN },
    { "use_sliding_window", FIELD(use_sliding_window), OPTIONAL, .fallback = false },
    { "max_window_layers", FIELD(first_sliding_layer), OPTIONAL, .fallback = 28, .min = 0,
      .max = INT32_MAX },
    { 0 },
};

const struct model_arch arch_qwen2 = {
    .architectures = { "Qwen2ForCausalLM" },
    .models = "Qwen2, Qwen2.5, QwQ",
    .differs = "biases on q, k, v; layers that may slide",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
};
