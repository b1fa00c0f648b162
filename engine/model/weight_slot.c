/* weight_slot.c - the shape of every slot, from the description. */
#include "engine/model/weight_slot.h"

#include <assert.h>

static struct weight_shape norm_shape(int32_t size)
{
    return (struct weight_shape){ .present = true,
                                  .is_norm = true,
                                  .num_parts = 1,
                                  .part_rows = { 1 },
                                  .rows = 1,
                                  .cols = size };
}

static struct weight_shape linear_shape(int32_t rows, int32_t cols, bool has_bias)
{
    return (struct weight_shape){ .present = true,
                                  .has_bias = has_bias,
                                  .num_parts = 1,
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

struct weight_shape weight_slot_shape(const struct decoder_desc *desc, enum weight_slot slot)
{
    int32_t hidden = desc->hidden_size, inner = desc->intermediate_size;
    int32_t q_size = desc->num_attention_heads * desc->head_dim;
    int32_t kv_size = desc->num_key_value_heads * desc->head_dim;
    struct weight_shape s = { 0 };
    switch (slot) {
    case W_EMBEDDING:
        return linear_shape(desc->vocab_size, hidden, false);
    case W_LM_HEAD:
        if (!desc->tie_word_embeddings)
            s = linear_shape(desc->vocab_size, hidden, false);
        return s;
    case W_FINAL_NORM:
    case W_INPUT_NORM:
    case W_POST_ATTENTION_NORM:
        return norm_shape(hidden);
    case W_QKV:
        s = linear_shape(q_size, hidden, desc->attention_bias);
        add_part(&s, kv_size);
        add_part(&s, kv_size);
        return s;
    case W_O:
        return linear_shape(hidden, q_size, desc->attention_o_bias);
    case W_GATE_UP:
        s = linear_shape(inner, hidden, desc->mlp_bias);
        add_part(&s, inner);
        return s;
    case W_DOWN:
        return linear_shape(hidden, inner, desc->mlp_bias);
    case W_NONE:
    case W_IGNORED:
    case NUM_WEIGHT_SLOTS:
        break;
    }
    assert(!"not a slot");
    return s;
}
