/* rope_desc.h - rotary position embedding: what config.json says of it, and its frequencies.
 *
 * Types: default (Su et al., 2021), linear (position interpolation, Chen et al., 2023), dynamic
 * (a base that grows with the length, by NTK theory), yarn (Peng et al., 2023), longrope (Ding et
 * al., 2024), llama3 (frequencies scaled by wavelength, as published with Llama 3.1). Read from
 * `rope_parameters` as transformers 5 writes it, or from `rope_scaling` and `rope_theta` as earlier
 * releases do. */
#ifndef INFERD_ENGINE_MODEL_ROPE_DESC_H
#define INFERD_ENGINE_MODEL_ROPE_DESC_H

#include "base/status.h"
#include "engine/model/decoder_desc.h"

#include <jansson.h>

/* Needs the heads, the scale of scores, the traits and max_position_embeddings in `desc`; fills in
 * desc->rope, and desc->sliding_rope where the traits ask for it; and where they say so yarn
 * changes the scale. */
bool rope_desc_read(const json_t *config, struct decoder_desc *desc, struct status *st);
/* inv_freq[rotary_dim / 2], in double until the last rounding. */
void rope_desc_inv_freq(const struct rope_desc *rope, float *inv_freq);

#endif
