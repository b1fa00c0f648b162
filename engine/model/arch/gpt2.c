/* gpt2.c - GPT-2: learned positions, LayerNorms, an MLP without a gate, and linears stored as
 * [in_features, out_features] (transformers' Conv1D). */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_gpt2;

static const struct config_key config[] = {
    { "vocab_size", FIELD(vocab_size), REQUIRED, .min = 2, .max = LIMIT_VOCAB_SIZE },
    { "n_embd", FIELD(hidden_size), REQUIRED, .min = 1, .max = LIMIT_HIDDEN_SIZE },
    { "n_layer", FIELD(num_hidden_layers), REQUIRED, .min = 1, .max = LIMIT_NUM_LAYERS },
    { "n_head", FIELD(num_attention_heads), REQUIRED, .min = 1, .max = LIMIT_NUM_HEADS },
    { "n_positions", FIELD(max_position_embeddings), OPTIONAL, .fallback = 1024, .min = 1,
      .max = LIMIT_VOCAB_SIZE },
    /* 0 until finish(): four times hidden_size. */
    { "n_inner", FIELD(intermediate_size), OPTIONAL, .fallback = 0, .min = 1,
      .max = LIMIT_INTERMEDIATE_SIZE },
    { "activation_function", FIELD(hidden_act), OPTIONAL, .fallback = ACT_GELU_TANH },
    { "layer_norm_epsilon", FIELD(rms_norm_eps), OPTIONAL, .fallback = 1e-5, .min = 0, .max = 1 },
    { "tie_word_embeddings", FIELD(tie_word_embeddings), OPTIONAL, .fallback = true },
    { "attention_bias", FIELD(attention_bias), CONSTANT, .fallback = true },
    { "attention_bias", FIELD(attention_o_bias), CONSTANT, .fallback = true },
    { "mlp_bias", FIELD(mlp_bias), CONSTANT, .fallback = true },
    { "scale_attn_weights", FIXED, OPTIONAL, .fallback = true },
    { "scale_attn_by_inverse_layer_idx", FIXED, OPTIONAL, .fallback = false },
    { "add_cross_attention", FIXED, OPTIONAL, .fallback = false },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "transformer.wte", W_EMBEDDING, VOCAB_PARALLEL, .part = 0 },
    { "transformer.wpe", W_POSITION_EMBEDDING, REPLICATED, .part = 0 },
    { "transformer.h.{}.ln_1", W_INPUT_NORM, REPLICATED, .part = 0 },
    { "transformer.h.{}.attn.c_attn", W_QKV, COLUMN_PARALLEL, .num_parts = 3, .transposed = true },
    { "transformer.h.{}.attn.c_proj", W_O, ROW_PARALLEL, .transposed = true },
    { "transformer.h.{}.ln_2", W_POST_ATTENTION_NORM, REPLICATED, .part = 0 },
    { "transformer.h.{}.mlp.c_fc", W_GATE_UP, COLUMN_PARALLEL, .transposed = true },
    { "transformer.h.{}.mlp.c_proj", W_DOWN, ROW_PARALLEL, .transposed = true },
    { "transformer.ln_f", W_FINAL_NORM, REPLICATED, .part = 0 },
    { "lm_head", W_LM_HEAD, VOCAB_PARALLEL, .part = 0 },
    /* The causal mask, which early releases wrote. */
    { "transformer.h.{}.attn.bias", W_IGNORED, REPLICATED, .part = 0 },
    { "transformer.h.{}.attn.masked_bias", W_IGNORED, REPLICATED, .part = 0 },
    { 0 },
};

static bool finish(struct decoder_desc *desc, const json_t *json, struct status *st)
{
    (void)json;
    (void)st;
    if (desc->intermediate_size == 0)
        desc->intermediate_size = 4 * desc->hidden_size;
    return true;
}

const struct model_arch arch_gpt2 = {
    .architectures = { "GPT2LMHeadModel" },
    .models = "GPT-2, DistilGPT-2",
    .differs = "learned positions, LayerNorm, transposed weights",
    .source = __FILE__,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .norm_kind = NORM_LAYER,
                                              .plain_mlp = true,
                                              .learned_positions = true },
    .optional_prefix = "transformer.",
    .finish = finish,
};
