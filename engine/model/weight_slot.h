/* weight_slot.h - the places a decoder has for weights, and the shape each takes.
 *
 * The one list that the tensor map, the memory plan, the loader and the parameter count walk. */
#ifndef INFERD_ENGINE_MODEL_WEIGHT_SLOT_H
#define INFERD_ENGINE_MODEL_WEIGHT_SLOT_H

#include "engine/model/decoder_desc.h"

enum weight_slot {
    W_NONE, /* ends a table of rules */
    W_EMBEDDING,
    W_LM_HEAD,
    W_FINAL_NORM,
    W_INPUT_NORM, /* this one and those below: once per layer */
    W_QKV,
    W_O,
    W_POST_ATTENTION_NORM,
    W_GATE_UP,
    W_DOWN,
    NUM_WEIGHT_SLOTS,
    W_IGNORED /* a tensor that the model does not need */
};

enum { WEIGHT_MAX_PARTS = 3 };

/* What stands in one slot. A norm is a vector of `cols`; a linear is [sum of part_rows, cols]. */
struct weight_shape {
    bool present; /* false: this model has none, as a tied head */
    bool is_norm;
    bool has_bias;
    int32_t num_parts;
    int32_t part_rows[WEIGHT_MAX_PARTS];
    int32_t rows; /* sum of the above */
    int32_t cols;
};

struct weight_shape weight_slot_shape(const struct decoder_desc *desc, enum weight_slot slot);
static inline bool weight_slot_is_per_layer(enum weight_slot slot)
{
    return slot >= W_INPUT_NORM;
}

#endif
