/* weights_load.h - filling the linears of a laid-out struct weights. Private to weights.c. */
#ifndef INFERD_ENGINE_MODEL_WEIGHTS_LOAD_H
#define INFERD_ENGINE_MODEL_WEIGHTS_LOAD_H

#include "engine/model/weights.h"

struct weights_progress {
    void (*report)(void *arg, size_t done_bytes, size_t total_bytes); /* NULL: not wanted */
    void *arg;
};

/* The member for a slot; NULL when the slot holds another kind. */
struct linear *weights_linear(struct weights *w, enum weight_slot slot, int32_t layer,
                              int32_t expert);
struct norm *weights_norm(struct weights *w, enum weight_slot slot, int32_t layer);
const float **weights_vector(struct weights *w, enum weight_slot slot, int32_t layer);

/* The entry's elements as float32, however the file aligned them: a vector, or a bias. */
void weights_read_vector(float *dst, const struct tensor_map_entry *e);
/* A dummy bias, the same on every run. */
float weights_dummy_bias(enum weight_slot slot, int32_t layer, int32_t row);
/* Packs every linear, from the checkpoint or with dummy values, on as many threads as there are
 * CPUs. Progress is reported from the calling thread. */
void weights_pack_all(const struct model *m, const struct device *d, struct weights *w,
                      const struct weights_progress *progress);

#endif
