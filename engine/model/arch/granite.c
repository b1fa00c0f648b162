/* granite.c - Granite 3 dense: Llama with factors on embeddings, scores, block outputs and logits.
 */
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_granite;

static const struct config_key config[] = {
    { "embedding_multiplier", FIELD(embedding_scale), OPTIONAL, .fallback = 1, .min = 1e-6,
      .max = 1e6 },
    { "attention_multiplier", FIELD(attention_scale), OPTIONAL, .fallback = 1, .min = 1e-6,
      .max = 1e6 },
    { "residual_multiplier", FIELD(residual_scale), OPTIONAL, .fallback = 1, .min = 1e-6,
      .max = 1e6 },
    { "logits_scaling", FIELD(logits_scale), OPTIONAL, .fallback = 1, .min = 1e-6, .max = 1e6 },
    { 0 },
};

const struct model_arch arch_granite = {
    .architectures = { "GraniteForCausalLM" },
    .models = "Granite 3 (dense)",
    .differs = "factors on embeddings, scores, block outputs, logits",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
};
