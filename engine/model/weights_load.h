/* weights_load.h - filling the linears of a laid-out struct weights. Private to weights.c. */
#ifndef INFERD_ENGINE_MODEL_WEIGHTS_LOAD_H
#define INFERD_ENGINE_MODEL_WEIGHTS_LOAD_H

#include "engine/model/weights.h"

struct weights_progress {
    void (*report)(void *arg, size_t done_bytes, size_t total_bytes); /* NULL: not wanted */
    void *arg;
};

/* The member for a slot; NULL when the slot holds the other kind. */
struct linear *weights_linear(struct weights *w, enum weight_slot slot, int32_t layer,
                              int32_t expert);
struct norm *weights_norm(struct weights *w, enum weight_slot slot, int32_t layer);

/* `count` elements of a tensor from `begin` on as float32, however the file aligned them. */
void weights_read_elements(float *dst, const struct checkpoint_tensor *t, size_t begin,
                           size_t count);
/* A dummy bias, the same on every run. */
float weights_dummy_bias(enum weight_slot slot, int32_t layer, int32_t row);
/* Packs every linear, from the checkpoint or with dummy values, on as many threads as there are
 * CPUs. Progress is reported from the calling thread. */
void weights_pack_all(const struct model *m, const struct device *d, struct weights *w,
                      const struct weights_progress *progress);

#endif
