/* gguf_arch.c - the table of families. */
#include "engine/model/gguf_arch.h"
#include "base/buf.h"
#include "engine/model/json_file.h"

#include <string.h>

/* --- rows ------------------------------------------------------------------------------------ */

static const struct gguf_name mixtral_names[] = {
    { "blk.{}.ffn_gate_inp", "model.layers.{}.block_sparse_moe.gate", GGUF_SAME },
    { "blk.{}.ffn_gate_exps", "model.layers.{}.block_sparse_moe.experts.{}.w1", GGUF_STACKED },
    { "blk.{}.ffn_down_exps", "model.layers.{}.block_sparse_moe.experts.{}.w2", GGUF_STACKED },
    { "blk.{}.ffn_up_exps", "model.layers.{}.block_sparse_moe.experts.{}.w3", GGUF_STACKED },
    /* as files before 2024-04 have them */
    { "blk.{}.ffn_gate.{}", "model.layers.{}.block_sparse_moe.experts.{}.w1", GGUF_SAME },
    { "blk.{}.ffn_down.{}", "model.layers.{}.block_sparse_moe.experts.{}.w2", GGUF_SAME },
    { "blk.{}.ffn_up.{}", "model.layers.{}.block_sparse_moe.experts.{}.w3", GGUF_SAME },
    { 0 },
};

static const struct gguf_name gemma_names[] = {
    { "blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", GGUF_SAME },
    { "blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm", GGUF_SAME },
    { "blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm", GGUF_SAME },
    { 0 },
};

static const struct gguf_name phi3_names[] = {
    { "blk.{}.attn_qkv", "model.layers.{}.self_attn.qkv_proj", GGUF_SAME },
    { "blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj", GGUF_SAME },
    { 0 },
};

static const struct gguf_key mixtral_keys[] = {
    { "expert_count", "num_local_experts", GGUF_KEY_INT, true },
    { "expert_used_count", "num_experts_per_tok", GGUF_KEY_INT, true },
    { 0 },
};

static const struct gguf_key moe_keys[] = {
    { "expert_count", "num_experts", GGUF_KEY_INT, true },
    { "expert_used_count", "num_experts_per_tok", GGUF_KEY_INT, true },
    { "expert_feed_forward_length", "moe_intermediate_size", GGUF_KEY_INT, true },
    { "expert_shared_feed_forward_length", "shared_expert_intermediate_size", GGUF_KEY_INT, false },
    { 0 },
};

static const struct gguf_key gemma_keys[] = {
    { "attn_logit_softcapping", "attn_logit_softcapping", GGUF_KEY_FLOAT, false },
    { "final_logit_softcapping", "final_logit_softcapping", GGUF_KEY_FLOAT, false },
    { "rope.freq_base_swa", "rope_local_base_freq", GGUF_KEY_FLOAT, false },
    { 0 },
};

/* The first that fits. Which files are permuted, and what their keys leave out, is in llama.cpp's
 * conversion scripts and its code for each family. */
static const struct gguf_arch archs[] = {
    { .name = "llama",
      .if_key = "expert_count",
      .architecture = "MixtralForCausalLM",
      .keys = mixtral_keys,
      .names = mixtral_names,
      .interleaved = true },
    { .name = "llama",
      .if_key = "attention.sliding_window",
      .architecture = "MistralForCausalLM",
      .interleaved = true },
    { .name = "llama", .architecture = "LlamaForCausalLM", .interleaved = true },
    { .name = "qwen2", .architecture = "Qwen2ForCausalLM" },
    { .name = "qwen2moe",
      .architecture = "Qwen2MoeForCausalLM",
      .keys = moe_keys,
      .constants = "{\"norm_topk_prob\": false}" },
    { .name = "qwen3", .architecture = "Qwen3ForCausalLM" },
    { .name = "qwen3moe",
      .architecture = "Qwen3MoeForCausalLM",
      .keys = moe_keys,
      .constants = "{\"norm_topk_prob\": true}" },
    { .name = "gemma2",
      .architecture = "Gemma2ForCausalLM",
      .keys = gemma_keys,
      .names = gemma_names,
      .whole_norms = true,
      .sliding_pattern = 2,
      .default_sliding_window = 4096,
      .wide_scale_layers = 46 },
    { .name = "gemma3",
      .architecture = "Gemma3ForCausalLM",
      .keys = gemma_keys,
      .names = gemma_names,
      .whole_norms = true,
      .sliding_pattern = 6,
      .wide_scale_layers = 62 },
    { .name = "phi3", .architecture = "Phi3ForCausalLM", .names = phi3_names },
};
enum { NUM_ARCHS = sizeof archs / sizeof archs[0] };

/* --- lookup ---------------------------------------------------------------------------------- */

static bool applies(const struct gguf *g, const struct gguf_arch *arch)
{
    char key[LIMIT_GGUF_KEY_BYTES];
    struct status ignored; /* a value that is no number fails later, where it is read */
    int64_t value = 0;
    if (!arch->if_key)
        return true;
    snprintf(key, sizeof key, "%s.%s", arch->name, arch->if_key);
    return gguf_get_int(&g->metadata, key, INT64_MIN, INT64_MAX, &value, &ignored) && value > 0;
}

static void list_archs(struct buf *out)
{
    for (int i = 0; i < NUM_ARCHS; i++)
        if (i == 0 || strcmp(archs[i].name, archs[i - 1].name) != 0)
            buf_printf(out, "%s%s", out->len ? ", " : "", archs[i].name);
}

const struct gguf_arch *gguf_arch_find(const struct gguf *g, struct status *st)
{
    const char *name = NULL;
    size_t len = 0;
    if (!gguf_get_string(&g->metadata, "general.architecture", &name, &len, st))
        return NULL;
    if (!name) {
        status_set(st, STATUS_INVALID, "%s: key 'general.architecture' is missing",
                   g->metadata.file);
        return NULL;
    }
    for (int i = 0; i < NUM_ARCHS; i++)
        if (strlen(archs[i].name) == len && memcmp(archs[i].name, name, len) == 0 &&
            applies(g, &archs[i]))
            return &archs[i];
    struct buf known;
    buf_init(&known, 300);
    list_archs(&known);
    json_t *shown = json_stringn(name, len);
    status_set(st, STATUS_UNSUPPORTED,
               "%s: architecture %s (key general.architecture) is not supported; known: %s",
               g->metadata.file, json_show(shown).text, buf_str(&known));
    json_decref(shown);
    buf_free(&known);
    return NULL;
}

void gguf_arch_apply(const struct gguf_arch *arch, struct decoder_desc *desc)
{
    desc->rope.interleaved = desc->sliding_rope.interleaved = arch->interleaved;
    if (arch->whole_norms)
        desc->traits.norm_weight_offset = 0;
}
