/* weight_slot.c - the shape of every slot, from the description. */
#include "engine/model/weight_slot.h"

#include <assert.h>

static struct weight_shape vector_shape(int32_t size, bool present)
{
    return (struct weight_shape){ .present = present,
                                  .is_vector = true,
                                  .num_parts = 1,
                                  .num_experts = 1,
                                  .part_rows = { 1 },
                                  .rows = 1,
                                  .cols = size };
}

static struct weight_shape norm_shape(const struct decoder_desc *desc, int32_t size, bool present)
{
    struct weight_shape s = vector_shape(size, present);
    s.has_bias = desc->traits.norm_kind == NORM_LAYER;
    return s;
}

static struct weight_shape linear_shape(int32_t rows, int32_t cols, bool has_bias)
{
    return (struct weight_shape){ .present = true,
                                  .has_bias = has_bias,
                                  .num_parts = 1,
                                  .num_experts = 1,
                                  .part_rows = { rows },
                                  .rows = rows,
                                  .cols = cols };
}

/* Another linear of the same input, stacked below. */
static void add_part(struct weight_shape *s, int32_t rows)
{
    assert(s->num_parts < WEIGHT_MAX_PARTS);
    s->part_rows[s->num_parts++] = rows;
    s->rows += rows;
}

/* Norms of q and k: over one head or over all of them. */
static struct weight_shape qk_norm_shape(const struct decoder_desc *desc, int32_t heads)
{
    enum qk_norm kind = desc->traits.qk_norm;
    int32_t all = heads * decoder_desc_num_ranks(desc); /* the other ranks' too */
    return norm_shape(desc, (kind == QK_NORM_ALL ? all : 1) * desc->head_dim, kind != QK_NORM_NONE);
}

static int32_t value_head_dim(const struct decoder_desc *desc)
{
    return desc->kv_lora_rank > 0 ? desc->v_head_dim : desc->head_dim;
}

static struct weight_shape qkv_shape(const struct decoder_desc *desc)
{
    int32_t heads = desc->num_attention_heads, kv_heads = desc->num_key_value_heads;
    struct weight_shape s =
        linear_shape(heads * desc->head_dim, desc->hidden_size, desc->attention_bias);
    add_part(&s, kv_heads * desc->head_dim);
    add_part(&s, kv_heads * desc->head_dim);
    s.heads[0] = heads;
    s.heads[1] = s.heads[2] = kv_heads;
    return s;
}

/* All heads' nope parts, then their rope parts. */
static struct weight_shape latent_q_shape(const struct decoder_desc *desc, int32_t cols)
{
    int32_t heads = desc->num_attention_heads;
    struct weight_shape s = linear_shape(heads * desc->qk_nope_head_dim, cols, false);
    add_part(&s, heads * desc->qk_rope_head_dim);
    s.heads[0] = s.heads[1] = heads;
    return s;
}

/* kv_b_proj holds, head by head, what makes k's nope part of the latent, and then v. */
static struct weight_shape kv_b_shape(const struct decoder_desc *desc, bool value)
{
    int32_t nope = desc->qk_nope_head_dim, latent = desc->kv_lora_rank;
    struct weight_shape s =
        value ? linear_shape(desc->v_head_dim, latent, false) : linear_shape(latent, nope, false);
    s.num_experts = desc->num_attention_heads;
    s.stack_rows = nope + desc->v_head_dim;
    s.stack_row_begin = value ? nope : 0;
    return s;
}

static struct weight_shape gate_up_shape(const struct decoder_desc *desc, int32_t inner)
{
    struct weight_shape s = linear_shape(inner, desc->hidden_size, desc->mlp_bias);
    if (!desc->traits.plain_mlp)
        add_part(&s, inner);
    return s;
}

static struct weight_shape present_if(bool present, struct weight_shape s)
{
    s.present = present;
    return s;
}

/* What stands in the place of W_QKV where keys and values are made from a latent. */
static struct weight_shape latent_shape(const struct decoder_desc *desc, enum weight_slot slot)
{
    int32_t hidden = desc->hidden_size, q_rank = desc->q_lora_rank, kv_rank = desc->kv_lora_rank;
    switch (slot) {
    case W_Q_A:
        return present_if(q_rank > 0, linear_shape(q_rank, hidden, desc->attention_bias));
    case W_Q_A_NORM:
        return norm_shape(desc, q_rank, q_rank > 0);
    case W_Q_B:
        return present_if(q_rank > 0, latent_q_shape(desc, q_rank));
    case W_Q:
        return present_if(kv_rank > 0 && q_rank == 0, latent_q_shape(desc, hidden));
    case W_KV_A:
        return present_if(kv_rank > 0, linear_shape(kv_rank + desc->qk_rope_head_dim, hidden,
                                                    desc->attention_bias));
    case W_KV_A_NORM:
        return norm_shape(desc, kv_rank, kv_rank > 0);
    default:
        return present_if(kv_rank > 0, kv_b_shape(desc, slot == W_KV_B_V));
    }
}

/* What experts add to a model without them. */
static struct weight_shape moe_shape(const struct decoder_desc *desc, enum weight_slot slot)
{
    int32_t hidden = desc->hidden_size, shared = desc->shared_expert_intermediate_size;
    bool has_experts = desc->num_experts > 0, has_shared = has_experts && shared > 0;
    struct weight_shape s;
    switch (slot) {
    case W_ROUTER:
        return present_if(has_experts, linear_shape(desc->num_experts, hidden, desc->router_bias));
    case W_SCORE_BIAS:
        return vector_shape(desc->num_experts, has_experts && desc->topk_method == TOPK_NOAUX_TC);
    case W_SHARED_EXPERT_GATE_UP:
        return present_if(has_shared, gate_up_shape(desc, shared));
    case W_SHARED_EXPERT_DOWN:
        return present_if(has_shared, linear_shape(hidden, shared, desc->mlp_bias));
    case W_SHARED_EXPERT_GATE:
        return present_if(has_shared && desc->traits.shared_expert_gate,
                          linear_shape(1, hidden, false));
    default:
        s = slot == W_EXPERT_GATE_UP
                ? gate_up_shape(desc, desc->moe_intermediate_size)
                : linear_shape(hidden, desc->moe_intermediate_size, desc->mlp_bias);
        s.num_experts = desc->num_experts;
        return present_if(has_experts, s);
    }
}

static bool any_dense_layer(const struct decoder_desc *desc)
{
    for (int32_t i = 0; i < desc->num_hidden_layers; i++)
        if (!desc->layers[i].moe)
            return true;
    return desc->num_experts == 0;
}

bool weight_slot_in_layer(const struct decoder_desc *desc, enum weight_slot slot, int32_t layer)
{
    if (slot == W_GATE_UP || slot == W_DOWN)
        return !desc->layers[layer].moe;
    return slot < W_ROUTER || slot > W_SHARED_EXPERT_GATE || desc->layers[layer].moe;
}

struct weight_shape weight_slot_shape(const struct decoder_desc *desc, enum weight_slot slot)
{
    int32_t hidden = desc->hidden_size;
    enum norm_placement norms = desc->traits.norm_placement;
    switch (slot) {
    case W_EMBEDDING:
        return linear_shape(decoder_desc_vocab_rows(desc), hidden, false);
    case W_POSITION_EMBEDDING:
        return present_if(desc->traits.learned_positions,
                          linear_shape(desc->max_position_embeddings, hidden, false));
    case W_LM_HEAD:
        return present_if(!desc->tie_word_embeddings,
                          linear_shape(decoder_desc_vocab_rows(desc), hidden, false));
    case W_FINAL_NORM:
        return norm_shape(desc, hidden, true);
    case W_INPUT_NORM:
    case W_POST_ATTENTION_NORM:
        return norm_shape(desc, hidden, norms != NORM_AFTER);
    case W_ATTENTION_OUT_NORM:
    case W_MLP_OUT_NORM:
        return norm_shape(desc, hidden, norms != NORM_BEFORE);
    case W_QKV:
        return present_if(desc->kv_lora_rank == 0, qkv_shape(desc));
    case W_Q_A:
    case W_Q_A_NORM:
    case W_Q_B:
    case W_Q:
    case W_KV_A:
    case W_KV_A_NORM:
    case W_KV_B_K:
    case W_KV_B_V:
        return latent_shape(desc, slot);
    case W_Q_NORM:
        return qk_norm_shape(desc, desc->num_attention_heads);
    case W_K_NORM:
        return qk_norm_shape(desc, desc->num_key_value_heads);
    case W_O:
        return linear_shape(hidden, desc->num_attention_heads * value_head_dim(desc),
                            desc->attention_o_bias);
    case W_SINKS:
        return vector_shape(desc->num_attention_heads, desc->traits.attention_sinks);
    case W_GATE_UP:
        return present_if(any_dense_layer(desc), gate_up_shape(desc, desc->intermediate_size));
    case W_DOWN:
        return present_if(any_dense_layer(desc),
                          linear_shape(hidden, desc->intermediate_size, desc->mlp_bias));
    case W_ROUTER:
    case W_EXPERT_GATE_UP:
    case W_EXPERT_DOWN:
    case W_SCORE_BIAS:
    case W_SHARED_EXPERT_GATE_UP:
    case W_SHARED_EXPERT_DOWN:
    case W_SHARED_EXPERT_GATE:
        return moe_shape(desc, slot);
    case W_NONE:
    case W_IGNORED:
    case W_IGNORED_LAYER:
    case NUM_WEIGHT_SLOTS:
        break;
    }
    assert(!"not a slot");
    return (struct weight_shape){ 0 };
}

bool weight_slot_quantized_at_load(enum weight_slot slot)
{
    switch (slot) {
    case W_QKV:
    case W_O:
    case W_GATE_UP:
    case W_DOWN:
    case W_EXPERT_GATE_UP:
    case W_EXPERT_DOWN:
    case W_SHARED_EXPERT_GATE_UP:
    case W_SHARED_EXPERT_DOWN:
        return true;
    default:
        return false;
    }
}
