/* tensor_map.h - which tensor of a checkpoint goes to which rows of which weight.
 *
 * Made from the architecture's rules, without reading a weight. Every tensor the model needs must
 * be there with the right shape and a dtype that is read, and every other tensor must be one that a
 * rule ignores: a leftover means that the model is not what its config.json says. */
#ifndef INFERD_ENGINE_MODEL_TENSOR_MAP_H
#define INFERD_ENGINE_MODEL_TENSOR_MAP_H

#include "engine/model/arch.h"
#include "engine/model/checkpoint.h"
#include "engine/model/quant_config.h"

/* One tensor has several entries where its rows go to places apart. */
struct tensor_map_entry {
    const struct checkpoint_tensor *tensor;
    const struct quant_source *quant; /* the rows are to be read from several tensors; or NULL */
    enum weight_slot slot;
    enum partition partition;
    bool is_bias;
    int32_t layer;     /* 0 where the slot is not per layer */
    int32_t expert;    /* 0 where the slot has one weight only */
    int32_t part;      /* of the slot's parts, which this is all or some of */
    int32_t row_begin; /* in the stacked linear (and in its bias) */
    int32_t rows, cols;
    /* The tensor is a stack of so many equal matrices (or vectors), and this one is meant. */
    int32_t stack_size, stack_index;
    int32_t src_row_begin, src_row_step; /* in there: the first row, and from one to the next */
    int32_t src_col_begin;               /* in there: the first of the `cols` columns */
    bool transposed; /* the matrix is [cols, all of its rows]; not said of vectors */
};

/* By rising slot, layer, expert; weights before biases; by rising rows. */
struct tensor_map {
    struct tensor_map_entry *entries;
    size_t count;
    struct arena sources; /* of the entries that are quantized */
};

/* `quant` is NULL where weights are not quantized; formats of its linears are added to it. */
bool tensor_map_make(const struct model_arch *arch, const struct decoder_desc *desc,
                     const struct checkpoint *c, struct quant_config *quant, struct tensor_map *out,
                     struct status *st);
/* The entry with the first rows of that part of a weight, or NULL. */
const struct tensor_map_entry *tensor_map_find(const struct tensor_map *map, enum weight_slot slot,
                                               int32_t layer, int32_t expert, int32_t part);
/* How the rows of its tensor are stored. */
const struct quant_format *tensor_map_entry_format(const struct tensor_map_entry *e);
void tensor_map_free(struct tensor_map *map);

#endif
