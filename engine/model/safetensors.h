/* safetensors.h - the reader of .safetensors checkpoints, single or sharded, trusting nothing.
 *
 * A file is a 64-bit little-endian length, a JSON header of that length, then the tensors' bytes,
 * which must follow one another without gap or overlap up to the end of the file. A sharded
 * checkpoint adds model.safetensors.index.json, which says what file each tensor is in; both must
 * agree exactly. Errors name the file and the tensor. */
#ifndef INFERD_ENGINE_MODEL_SAFETENSORS_H
#define INFERD_ENGINE_MODEL_SAFETENSORS_H

#include "engine/model/checkpoint.h"

/* Opens model.safetensors, or else what model.safetensors.index.json lists. */
bool safetensors_open(const char *dir, struct checkpoint **out, struct status *st);

/* Adds the tensors of one file to `c`. */
bool safetensors_read_header(struct checkpoint *c, const struct checkpoint_file *file,
                             struct status *st);

#endif
