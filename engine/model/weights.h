/* weights.h - from a checkpoint's tensors to packed weights on one device.
 *
 * The plan and the load walk the same list, so that the bytes planned are the bytes taken. */
#ifndef INFERD_ENGINE_MODEL_WEIGHTS_H
#define INFERD_ENGINE_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "engine/model/model.h"

struct layer_weights {
    /* What weight_slot.h says of each; one that the model has not is all zeros. */
    struct norm input_norm, q_norm, k_norm, attention_out_norm, post_attention_norm, mlp_out_norm;
    struct linear qkv, o, gate_up, down;
    /* Of latent attention: q is W_Q or W_Q_B; the last two are [num_attention_heads]. */
    struct linear q_a, q, kv_a, *kv_b_k, *kv_b_v;
    struct norm q_a_norm, kv_a_norm;
    const float *sinks; /* [num_attention_heads] */
    /* Of a layer with experts, which moe.gate_up and moe.down point to. */
    struct moe moe;
    struct linear *expert_gate_up, *expert_down; /* [num_experts] */
    struct linear shared_gate_up, shared_down, shared_gate;
};

/* What weights take on a device. */
enum { MAX_WEIGHT_FORMATS = 16 }; /* more are counted with the last one */
struct weights_size {
    size_t bytes;        /* all of it, exactly */
    size_t decode_bytes; /* of linears that a decode step reads, whatever its batch size */
    /* Linears by how they are held, packed; norms, biases and alignment are the rest of `bytes`. */
    struct weights_format_size {
        const char *format; /* the model's or static */
        size_t bytes;
    } formats[MAX_WEIGHT_FORMATS];
    int32_t num_formats;
};

struct weights {
    struct linear embedding; /* [vocab_size, hidden_size]; also the head when tied */
    struct linear positions; /* [max_position_embeddings, hidden_size] where they are learned */
    struct linear lm_head;   /* unused when tied */
    struct norm final_norm;
    struct rope rope, sliding_rope; /* rotary_dim 0: not in use */
    struct layer_weights *layers;   /* [num_hidden_layers] */
    int32_t num_layers;
    const struct linear *head; /* &embedding or &lm_head */
    struct arena links;        /* further links of linears */
    struct weights_size size;
    struct buffer arena;                      /* the one block that everything above points into */
    bool arena_is_mapped;                     /* from the cache of packed weights */
    struct packed_cache_writer *cache_writer; /* NULL: none */
};

/* Exactly what weights_load will take on `d`. Reads no tensor. */
bool weights_plan(const struct model *m, struct device *d, struct weights_size *out,
                  struct status *st);

/* Reads, converts, packs; tensors in parallel. Missing or surplus tensors, wrong shapes or dtypes
 * fail by name. With load_format dummy: reproducible random weights, small enough to stay finite.
 */
bool weights_load(const struct model *m, struct device *d, struct comm *c,
                  void (*progress)(void *arg, size_t done_bytes, size_t total_bytes),
                  void *progress_arg, struct weights **out, struct status *st);
void weights_free(struct weights *w, struct device *d);

#endif
