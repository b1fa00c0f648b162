/* gpt_neox.c - GPT-NeoX and Pythia: attention and MLP beside each other, LayerNorms, heads that
 * rotate in part, and q, k, v in one tensor, head by head. */
#include "config/limits.h"
#include "engine/model/arch.h"

extern const struct model_arch arch_llama, arch_gpt_neox;

static const struct config_key config[] = {
    /* As many as there are heads, of the size that follows; no keys of GPTNeoXConfig. */
    { "num_key_value_heads", IGNORED, OPTIONAL, .fallback = 0 },
    { "head_dim", IGNORED, OPTIONAL, .fallback = 0 },
    { "hidden_act", FIELD(hidden_act), OPTIONAL, .fallback = ACT_GELU },
    { "layer_norm_eps", FIELD(rms_norm_eps), OPTIONAL, .fallback = 1e-5, .min = 0, .max = 1 },
    { "rms_norm_eps", IGNORED, OPTIONAL, .fallback = 0 },
    { "attention_bias", FIELD(attention_bias), OPTIONAL, .fallback = true },
    { "attention_bias", FIELD(attention_o_bias), OPTIONAL, .fallback = true },
    { "mlp_bias", FIELD(mlp_bias), CONSTANT, .fallback = true },
    { "use_parallel_residual", FIELD(parallel_residual), OPTIONAL, .fallback = true },
    { "rotary_pct", FIELD(partial_rotary_factor), OPTIONAL, .fallback = 0.25, .min = 1e-6,
      .max = 1 },
    { "partial_rotary_factor", IGNORED, OPTIONAL, .fallback = 0 },
    { "rotary_emb_base", FIELD(default_rope_theta), OPTIONAL, .fallback = 1e4, .min = 1.001,
      .max = 1e15 },
    { 0 },
};

static const struct tensor_rule tensors[] = {
    { "gpt_neox.embed_in", W_EMBEDDING, VOCAB_PARALLEL, .part = 0 },
    { "gpt_neox.layers.{}.input_layernorm", W_INPUT_NORM, REPLICATED, .part = 0 },
    { "gpt_neox.layers.{}.attention.query_key_value", W_QKV, COLUMN_PARALLEL, .num_parts = 3,
      .row_order = ROWS_BY_HEAD },
    { "gpt_neox.layers.{}.attention.dense", W_O, ROW_PARALLEL, .part = 0 },
    { "gpt_neox.layers.{}.post_attention_layernorm", W_POST_ATTENTION_NORM, REPLICATED, .part = 0 },
    { "gpt_neox.layers.{}.mlp.dense_h_to_4h", W_GATE_UP, COLUMN_PARALLEL, .part = 0 },
    { "gpt_neox.layers.{}.mlp.dense_4h_to_h", W_DOWN, ROW_PARALLEL, .part = 0 },
    { "gpt_neox.final_layer_norm", W_FINAL_NORM, REPLICATED, .part = 0 },
    { "embed_out", W_LM_HEAD, VOCAB_PARALLEL, .part = 0 },
    /* Written by early releases: the causal mask and what follows from config.json. */
    { "gpt_neox.layers.{}.attention.bias", W_IGNORED, REPLICATED, .part = 0 },
    { "gpt_neox.layers.{}.attention.masked_bias", W_IGNORED, REPLICATED, .part = 0 },
    { "gpt_neox.layers.{}.attention.rotary_emb.inv_freq", W_IGNORED, REPLICATED, .part = 0 },
    { 0 },
};

const struct model_arch arch_gpt_neox = {
    .architectures = { "GPTNeoXForCausalLM" },
    .models = "GPT-NeoX, Pythia",
    .differs = "attention and MLP side by side, LayerNorm, partial rotation",
    .source = __FILE__,
    .base = &arch_llama,
    .config = config,
    .tensors = tensors,
    .traits = &(const struct decoder_traits){ .norm_kind = NORM_LAYER,
                                              .plain_mlp = true,
                                              .partial_rotary = true },
};
