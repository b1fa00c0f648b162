/* spm_model.h - reads what we need to know of a SentencePiece ModelProto beyond the library's own
 * interface, and checks what the library takes on trust. */
#ifndef INFERD_ENGINE_TEXT_SPM_MODEL_H
#define INFERD_ENGINE_TEXT_SPM_MODEL_H

#include "base/status.h"
#include <stddef.h>

enum { SPM_MAX_SURFACE = 64 };

struct spm_model_info {
    bool add_dummy_prefix;             /* a space is put before the text */
    bool remove_extra_whitespaces;     /* spaces are trimmed and runs of them collapsed */
    char unk_surface[SPM_MAX_SURFACE]; /* how the unknown piece is written when decoded */
};

/* Walks the serialized proto. Fails on a broken one, on a charsmap that points outside itself, and
 * on features whose decoding we do not offer. */
bool spm_model_check(const char *data, size_t len, struct spm_model_info *info, struct status *st);

#endif
