/* gguf_names.c - a GGUF's tensors under the names of Hugging Face's checkpoints. */
#include "engine/model/gguf_arch.h"
#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct gguf_name common_names[] = {
    { "token_embd", "model.embed_tokens", GGUF_SAME },
    { "output_norm", "model.norm", GGUF_SAME },
    { "output", "lm_head", GGUF_SAME },
    { "blk.{}.attn_norm", "model.layers.{}.input_layernorm", GGUF_SAME },
    { "blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", GGUF_SAME },
    { "blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", GGUF_SAME },
    { "blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", GGUF_SAME },
    { "blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", GGUF_SAME },
    { "blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", GGUF_SAME },
    { "blk.{}.attn_output", "model.layers.{}.self_attn.o_proj", GGUF_SAME },
    { "blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm", GGUF_SAME },
    { "blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj", GGUF_SAME },
    { "blk.{}.ffn_up", "model.layers.{}.mlp.up_proj", GGUF_SAME },
    { "blk.{}.ffn_down", "model.layers.{}.mlp.down_proj", GGUF_SAME },
    { "blk.{}.ffn_gate_inp", "model.layers.{}.mlp.gate", GGUF_SAME },
    { "blk.{}.ffn_gate_exps", "model.layers.{}.mlp.experts.{}.gate_proj", GGUF_STACKED },
    { "blk.{}.ffn_up_exps", "model.layers.{}.mlp.experts.{}.up_proj", GGUF_STACKED },
    { "blk.{}.ffn_down_exps", "model.layers.{}.mlp.experts.{}.down_proj", GGUF_STACKED },
    { "blk.{}.ffn_gate_shexp", "model.layers.{}.mlp.shared_expert.gate_proj", GGUF_SAME },
    { "blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_expert.up_proj", GGUF_SAME },
    { "blk.{}.ffn_down_shexp", "model.layers.{}.mlp.shared_expert.down_proj", GGUF_SAME },
    { "blk.{}.ffn_gate_inp_shexp", "model.layers.{}.mlp.shared_expert_gate", GGUF_ROW },
    { "rope_freqs", NULL, GGUF_DROPPED },
    { "rope_factors_long", NULL, GGUF_DROPPED },
    { "rope_factors_short", NULL, GGUF_DROPPED },
    { 0 },
};

/* What stood in the place of the {}. */
struct numbers {
    int32_t layer, expert;
};

/* A number without sign or leading zeros, below a million; no model has so many layers or experts.
 */
static const char *read_number(const char *at, int32_t *out)
{
    size_t digits = strspn(at, "0123456789");
    if (digits == 0 || digits > 6 || (digits > 1 && at[0] == '0'))
        return NULL;
    *out = (int32_t)strtol(at, NULL, 10);
    return at + digits;
}

/* Whether `name` begins as the pattern says; *rest is what follows. */
static bool match(const char *pattern, const char *name, struct numbers *n, const char **rest)
{
    int32_t *number = &n->layer;
    while (*pattern) {
        if (pattern[0] == '{' && pattern[1] == '}') {
            name = read_number(name, number);
            if (!name)
                return false;
            number = &n->expert;
            pattern += 2;
        } else if (*pattern++ != *name++) {
            return false;
        }
    }
    *rest = name;
    return strcmp(name, ".weight") == 0 || strcmp(name, ".bias") == 0;
}

static const struct gguf_name *find_row(const struct gguf_arch *arch, const char *name,
                                        struct numbers *n, const char **rest)
{
    const struct gguf_name *const tables[] = { arch->names, common_names };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        for (const struct gguf_name *row = tables[i]; row && row->name; row++)
            if (match(row->name, name, n, rest))
                return row;
    return NULL;
}

/* The row's other name with the numbers in it, in the checkpoint's arena. */
static const char *expand(struct arena *names, const char *pattern, const struct numbers *n,
                          const char *suffix)
{
    const char *first = strstr(pattern, "{}"), *second = first ? strstr(first + 2, "{}") : NULL;
    if (!first)
        return arena_printf(names, "%s%s", pattern, suffix);
    if (!second)
        return arena_printf(names, "%.*s%d%s%s", (int)(first - pattern), pattern, n->layer,
                            first + 2, suffix);
    return arena_printf(names, "%.*s%d%.*s%d%s%s", (int)(first - pattern), pattern, n->layer,
                        (int)(second - first) - 2, first + 2, n->expert, second + 2, suffix);
}

/* Each expert's share of a stacked tensor as a tensor of its own. */
static bool unstack(struct checkpoint *c, const struct gguf_name *row,
                    const struct checkpoint_tensor *stacked, struct numbers n, const char *suffix,
                    struct status *st)
{
    if (stacked->num_dims < 2 || stacked->shape[0] > MOE_MAX_EXPERTS)
        return status_set(st, STATUS_INVALID,
                          "%s: tensor '%s' has shape %s, expected one with up to %d experts",
                          stacked->file, stacked->name,
                          shape_show(stacked->shape, stacked->num_dims).text, MOE_MAX_EXPERTS);
    const int64_t experts = stacked->shape[0];
    for (n.expert = 0; n.expert < experts; n.expert++) {
        struct checkpoint_tensor *t = checkpoint_add(c);
        *t = *stacked;
        t->name = expand(&c->names, row->config, &n, suffix);
        t->num_dims--;
        memmove(t->shape, t->shape + 1, (size_t)t->num_dims * sizeof t->shape[0]);
        t->size_bytes = stacked->size_bytes / (size_t)experts;
        t->data = stacked->data + (size_t)n.expert * t->size_bytes;
    }
    return true;
}

static bool rename_one(struct checkpoint *c, const struct gguf_arch *arch,
                       const struct checkpoint_tensor *tensor, struct status *st)
{
    struct numbers n = { 0, 0 };
    const char *suffix;
    const struct gguf_name *row = find_row(arch, tensor->name, &n, &suffix);
    if (row && row->form == GGUF_DROPPED)
        return true;
    if (row && n.layer >= LIMIT_NUM_LAYERS)
        return status_set(st, STATUS_INVALID, "%s: tensor '%s': at most %d layers are possible",
                          tensor->file, tensor->name, LIMIT_NUM_LAYERS);
    if (row && row->form == GGUF_STACKED)
        return unstack(c, row, tensor, n, suffix, st);
    struct checkpoint_tensor *t = checkpoint_add(c);
    *t = *tensor;
    if (row)
        t->name = expand(&c->names, row->config, &n, suffix);
    if (row && row->form == GGUF_ROW && t->num_dims == 1) {
        t->shape[1] = t->shape[0];
        t->shape[0] = 1;
        t->num_dims = 2;
    }
    return true;
}

bool gguf_rename_tensors(struct gguf *g, const struct gguf_arch *arch, struct status *st)
{
    struct checkpoint *c = g->checkpoint;
    struct checkpoint_tensor *old = c->tensors;
    size_t count = c->num_tensors;
    bool ok = true;
    c->tensors = NULL;
    c->num_tensors = c->tensor_capacity = 0;
    for (size_t i = 0; i < count && ok; i++)
        ok = rename_one(c, arch, &old[i], st);
    free(old);
    return ok && checkpoint_seal(c, st);
}
