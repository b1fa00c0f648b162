/* rope_desc.h - rotary position embedding: what config.json says of it, and its frequencies.
 *
 * Types: default (Su et al., 2021), linear (position interpolation, Chen et al., 2023), llama3
 * (frequencies scaled by wavelength, as published with Llama 3.1). Read from `rope_parameters` as
 * transformers 5 writes it, or from `rope_scaling` and `rope_theta` as earlier releases do. */
#ifndef INFERD_ENGINE_MODEL_ROPE_DESC_H
#define INFERD_ENGINE_MODEL_ROPE_DESC_H

#include "base/status.h"
#include "engine/model/decoder_desc.h"

#include <jansson.h>

/* Needs head_dim and max_position_embeddings in `desc`; fills in desc->rope. */
bool rope_desc_read(const json_t *config, struct decoder_desc *desc, struct status *st);
/* inv_freq[rotary_dim / 2], in double until the last rounding. */
void rope_desc_inv_freq(const struct rope_desc *rope, float *inv_freq);

#endif
