/* weight_slot.h - the places a decoder has for weights, and the shape each takes.
 *
 * The one list that the tensor map, the memory plan, the loader and the parameter count walk. */
#ifndef INFERD_ENGINE_MODEL_WEIGHT_SLOT_H
#define INFERD_ENGINE_MODEL_WEIGHT_SLOT_H

#include "engine/model/decoder_desc.h"

enum weight_slot {
    W_NONE, /* ends a table of rules */
    W_EMBEDDING,
    W_POSITION_EMBEDDING,
    W_LM_HEAD,
    W_FINAL_NORM,
    W_INPUT_NORM, /* before the attention; this one and those below: once per layer */
    W_QKV,
    W_Q_A, /* from here to W_KV_B_V: of latent attention, in the place of W_QKV */
    W_Q_A_NORM,
    W_Q_B, /* this one from q's latent, or W_Q; both give all nope parts, then all rope parts */
    W_Q,
    W_KV_A, /* the latent, then the part of the key that rotates */
    W_KV_A_NORM,
    W_KV_B_K, /* one for each head: its nope part of q to the latent's space */
    W_KV_B_V, /* one for each head: from the latent's space to its value */
    W_Q_NORM,
    W_K_NORM,
    W_O,
    W_SINKS,
    W_ATTENTION_OUT_NORM,  /* on the attention's output */
    W_POST_ATTENTION_NORM, /* before the MLP */
    W_GATE_UP,             /* only up in a plain MLP */
    W_DOWN,
    W_ROUTER,         /* from here on: only in layers with experts */
    W_EXPERT_GATE_UP, /* one for each expert */
    W_EXPERT_DOWN,
    W_SCORE_BIAS,            /* of the router's choice */
    W_SHARED_EXPERT_GATE_UP, /* of the expert that all tokens run */
    W_SHARED_EXPERT_DOWN,
    W_SHARED_EXPERT_GATE, /* how much that one counts */
    W_MLP_OUT_NORM,       /* on the MLP's output */
    NUM_WEIGHT_SLOTS,
    W_IGNORED,      /* a tensor that the model does not need */
    W_IGNORED_LAYER /* all tensors of a layer behind the last: it predicts more than one token */
};

enum { WEIGHT_MAX_PARTS = 3 };

/* What stands in one slot. A norm is a vector of `cols`, and its bias another; sinks and the bias
 * of scores are vectors by themselves; a linear is [sum of part_rows, cols]. */
struct weight_shape {
    bool present;   /* false: this model has none, as a tied head */
    bool is_vector; /* held as float32 */
    bool has_bias;
    int32_t num_parts;
    int32_t part_rows[WEIGHT_MAX_PARTS];
    int32_t rows; /* sum of the above */
    int32_t cols;
    int32_t num_experts;             /* a layer has so many, one for each expert or head; else 1 */
    int32_t heads[WEIGHT_MAX_PARTS]; /* of q, k and v: into how many a part divides; else 0 */
    /* Where one matrix in a checkpoint holds those of all heads: the rows there of one head, and
     * the first of them that belong here. */
    int32_t stack_rows, stack_row_begin;
};

struct weight_shape weight_slot_shape(const struct decoder_desc *desc, enum weight_slot slot);
/* Whether this layer has what `slot`, which the model has, is for. Always true of the slots that
 * are not per layer. */
bool weight_slot_in_layer(const struct decoder_desc *desc, enum weight_slot slot, int32_t layer);
static inline bool weight_slot_is_per_layer(enum weight_slot slot)
{
    return slot >= W_INPUT_NORM;
}
/* What --quantization is for: the linears that take up most of a model. Embeddings and heads lose
 * the most by it, as the first and the last thing that a token passes, and routers choose experts.
 */
bool weight_slot_quantized_at_load(enum weight_slot slot);

#endif
