/* smollm3.c - SmolLM3: Llama in which some layers do not rotate. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_smollm3;

static const struct config_key config[] = {
    { "num_key_value_heads", FIELD(num_key_value_heads), NULLABLE, .fallback = 4, .min = 1,
      .max = LIMIT_NUM_HEADS },
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 32768,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "tie_word_embeddings", FIELD(tie_word_embeddings), OPTIONAL, .fallback = true },
    { "rope_theta", FIELD(default_rope_theta), OPTIONAL, .fallback = 2e6, .min = 1, .max = 1e15 },
    /* Where there is no list no_rope_layers. */
    { "no_rope_layer_interval", FIELD(no_rope_layer_interval), OPTIONAL, .fallback = 4, .min = 1,
      .max = INT32_MAX },
    { "sliding_window", FIELD(sliding_window), OPTIONAL, .fallback = 0, .min = 1,
      .max = LIMIT_MODEL_LEN },
    { "use_sliding_window", FIELD(use_sliding_window), OPTIONAL, .fallback = false },
    { 0 },
};

const struct model_arch arch_smollm3 = {
    .architectures = { "SmolLM3ForCausalLM" },
    .models = "SmolLM3",
    .differs = "layers that do not rotate",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
    .traits = &(const struct decoder_traits){ .sliding_without_rope = true },
};
