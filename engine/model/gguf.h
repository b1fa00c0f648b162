/* gguf.h - the reader of GGUF files (versions 2 and 3), single or split, trusting nothing.
 *
 * A file is "GGUF", a 32-bit version, the counts of tensors and of keys, the keys
 * (gguf_metadata.h), the tensors' names, sizes, types and offsets, and the tensors' bytes from the
 * next multiple of the alignment on. All of it is little-endian. A split model is several such
 * files, NAME-00001-of-0000N.gguf and so on; the first one has the model's keys, each has split.no
 * and split.count. Sizes are written from the fastest dimension to the slowest, so they stand in a
 * checkpoint in the reverse order. Errors name the file, and the key or tensor.
 *
 * Format: ggml's docs/gguf.md. */
#ifndef INFERD_ENGINE_MODEL_GGUF_H
#define INFERD_ENGINE_MODEL_GGUF_H

#include "engine/model/checkpoint.h"
#include "engine/model/gguf_metadata.h"

enum { GGUF_MAX_DIMS = 4 };

struct gguf {
    struct checkpoint *checkpoint; /* the tensors under their names in the file */
    struct gguf_metadata metadata; /* of the (first) file */
};

/* Whether `path` is a file that is, or claims to be, a GGUF. */
bool gguf_is_file(const char *path);
/* The one GGUF model in directory `dir`: a file, or the first of a split. STATUS_NOT_FOUND without
 * one, STATUS_INVALID with several. *out is its path, to be freed. */
bool gguf_find_in(const char *dir, char **out, struct status *st);

/* Opens a file, or a split model by its first file. */
bool gguf_open(const char *path, struct gguf **out, struct status *st);
void gguf_close(struct gguf *g); /* NULL is fine */

/* Adds the tensors of one file to `c`, and reads its keys; they live as long as `file`. */
bool gguf_read_file(struct checkpoint *c, const struct checkpoint_file *file,
                    struct gguf_metadata *m, struct status *st);

#endif
