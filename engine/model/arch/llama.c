/* llama.c - Llama 1 to 3.3 and what shares its form: the base of the other architectures.
 *
 * Keys and defaults are those of transformers' LlamaConfig; sizes have no defaults here, because a
 * config.json without them describes nothing. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama;

static const struct config_key config[] = {
    { "vocab_size", FIELD(vocab_size), REQUIRED, .min = 2, .max = LIMIT_VOCAB_SIZE },
    { "hidden_size", FIELD(hidden_size), REQUIRED, .min = 1, .max = LIMIT_HIDDEN_SIZE },
    { "intermediate_size", FIELD(intermediate_size), REQUIRED, .min = 1,
      .max = LIMIT_INTERMEDIATE_SIZE },
    { "num_hidden_layers", FIELD(num_hidden_layers), REQUIRED, .min = 1, .max = LIMIT_NUM_LAYERS },
    { "num_attention_heads", FIELD(num_attention_heads), REQUIRED, .min = 1,
      .max = LIMIT_NUM_HEADS },
    /* 0 until derived: as many as there are heads; hidden_size / num_attention_heads. */
    { "num_key_value_heads", FIELD(num_key_value_heads), OPTIONAL, .fallback = 0, .min = 1,
      .max = LIMIT_NUM_HEADS },
    { "head_dim", FIELD(head_dim), OPTIONAL, .fallback = 0, .min = 1, .max = LIMIT_HEAD_DIM },
    { "max_position_embeddings", FIELD(max_position_embeddings), OPTIONAL, .fallback = 2048,
      .min = 1, .max = LIMIT_MODEL_LEN },
    { "hidden_act", FIELD(hidden_act), OPTIONAL, .fallback = ACT_SILU },
    { "rms_norm_eps", FIELD(rms_norm_eps), OPTIONAL, .fallback = 1e-6, .min = 0, .max = 1 },
    { "tie_word_embeddings", FIELD(tie_word_embeddings), OPTIONAL, .fallback = false },
    { "attention_bias", FIELD(attention_bias), OPTIONAL, .fallback = false },
    { "attention_bias", FIELD(attention_o_bias), OPTIONAL, .fallback = false },
    { "mlp_bias", FIELD(mlp_bias), OPTIONAL, .fallback = false },
    { "partial_rotary_factor", FIXED, OPTIONAL, .fallback = 1 },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "model.embed_tokens", W_EMBEDDING, VOCAB_PARALLEL, .part = 0 },
    { "model.layers.{}.input_layernorm", W_INPUT_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.self_attn.q_proj", W_QKV, COLUMN_PARALLEL, .part = 0 },
    { "model.layers.{}.self_attn.k_proj", W_QKV, COLUMN_PARALLEL, .part = 1 },
    { "model.layers.{}.self_attn.v_proj", W_QKV, COLUMN_PARALLEL, .part = 2 },
    { "model.layers.{}.self_attn.o_proj", W_O, ROW_PARALLEL, .part = 0 },
    { "model.layers.{}.post_attention_layernorm", W_POST_ATTENTION_NORM, REPLICATED, .part = 0 },
    { "model.layers.{}.mlp.gate_proj", W_GATE_UP, COLUMN_PARALLEL, .part = 0 },
    { "model.layers.{}.mlp.up_proj", W_GATE_UP, COLUMN_PARALLEL, .part = 1 },
    { "model.layers.{}.mlp.down_proj", W_DOWN, ROW_PARALLEL, .part = 0 },
    { "model.norm", W_FINAL_NORM, REPLICATED, .part = 0 },
    { "lm_head", W_LM_HEAD, VOCAB_PARALLEL, .part = 0 },
    /* Written by early conversions; computed from config.json instead. */
    { "model.layers.{}.self_attn.rotary_emb.inv_freq", W_IGNORED, REPLICATED, .part = 0 },
    { 0 },
};

const struct model_arch arch_llama = {
    .architectures = { "LlamaForCausalLM" },
    .models = "Llama 1 to 3.3, SmolLM2, TinyLlama, Yi, dense DeepSeek-Coder",
    .source = __FILE__,
    .config = config,
    .tensors = tensors,
};
