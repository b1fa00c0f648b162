/* mistral.c - Mistral 7B, Nemo, Small: Llama whose layers may all slide, without biases. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_mistral;

static const struct config_key config[] = {
    { "num_key_value_heads", FIELD(num_key_value_heads), NULLABLE, .fallback = 8, .min = 1,
      .max = LIMIT_NUM_HEADS },
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 131072,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "sliding_window", FIELD(sliding_window), NULLABLE, .fallback = 4096, .min = 1,
      .max = LIMIT_MODEL_LEN },
    { "attention_bias", FIXED, OPTIONAL, .fallback = false },
    { "mlp_bias", FIXED, OPTIONAL, .fallback = false },
    { 0 },
};

const struct model_arch arch_mistral = {
    .architectures = { "MistralForCausalLM" },
    .models = "Mistral 7B, Nemo, Small",
    .differs = "all layers slide where a window is set",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
};
