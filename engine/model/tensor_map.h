/* tensor_map.h - which tensor of a checkpoint goes to which rows of which weight.
 *
 * Made from the architecture's rules, without reading a weight. Every tensor the model needs must
 * be there with the right shape and a float dtype, and every other tensor must be one that a rule
 * ignores: a leftover means that the model is not what its config.json says. */
#ifndef INFERD_ENGINE_MODEL_TENSOR_MAP_H
#define INFERD_ENGINE_MODEL_TENSOR_MAP_H

#include "engine/model/arch.h"
#include "engine/model/checkpoint.h"

/* One tensor has several entries where its rows go to places apart. */
struct tensor_map_entry {
    const struct checkpoint_tensor *tensor;
    enum weight_slot slot;
    enum partition partition;
    bool is_bias;
    int32_t layer;     /* 0 where the slot is not per layer */
    int32_t expert;    /* 0 where the slot has one weight only */
    int32_t row_begin; /* in the stacked linear (and in its bias) */
    int32_t rows, cols;
    /* The tensor is a stack of so many equal matrices (or vectors), and this one is meant. */
    int32_t stack_size, stack_index;
    int32_t src_row_begin, src_row_step; /* in there: the first row, and from one to the next */
    bool transposed; /* the matrix is [cols, all of its rows]; not said of vectors */
};

struct tensor_map {
    struct tensor_map_entry *entries;
    size_t count;
};

bool tensor_map_make(const struct model_arch *arch, const struct decoder_desc *desc,
                     const struct checkpoint *c, struct tensor_map *out, struct status *st);
void tensor_map_free(struct tensor_map *map);

#endif
