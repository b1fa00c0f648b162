/* sentencepiece_shim.h - the C door to libsentencepiece (C++). No exception crosses it.
 *
 * Immutable after spm_load and safe on any thread. */
#ifndef INFERD_ENGINE_TEXT_SENTENCEPIECE_SHIM_H
#define INFERD_ENGINE_TEXT_SENTENCEPIECE_SHIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"

struct spm;

enum spm_piece_kind { SPM_NORMAL, SPM_UNKNOWN, SPM_CONTROL, SPM_BYTE };

/* Reads a serialized ModelProto, whose content was checked by spm_model_check. */
bool spm_load(const char *data, size_t len, struct spm **out, struct status *st);
void spm_free(struct spm *s);
int32_t spm_num_pieces(const struct spm *s);
/* The piece (owned by the library, NUL-terminated) and its kind; id in 0 .. spm_num_pieces - 1. */
const char *spm_piece(const struct spm *s, int32_t id, size_t *len, enum spm_piece_kind *kind);
/* Hands the ids of `text` (valid UTF-8) to `emit`, one by one. */
bool spm_encode(const struct spm *s, const char *text, size_t len,
                void (*emit)(void *context, int32_t id), void *context, struct status *st);

#ifdef __cplusplus
}
#endif

#endif
