/* input_scales.h - the static scales of activations in 8 bits: a module's input_scale, one float.
 */
#ifndef INFERD_ENGINE_MODEL_INPUT_SCALES_H
#define INFERD_ENGINE_MODEL_INPUT_SCALES_H

#include "engine/model/weights.h"

/* Into each link whose scheme has static scales: the greatest of its parts, as vLLM does. False, by
 * name, where one is missing or is not a positive number. */
bool input_scales_read(const struct model *m, struct weights *w, struct status *st);

#endif
