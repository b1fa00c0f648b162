/* gguf_pre.h - how the tokenizers that `tokenizer.ggml.pre` names cut a text into words, one row
 * per kind. To add one: a row in gguf_pre.c. */
#ifndef INFERD_ENGINE_TEXT_GGUF_PRE_H
#define INFERD_ENGINE_TEXT_GGUF_PRE_H

#include "base/buf.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum { GGUF_PRE_MAX_PATTERNS = 6 };

struct gguf_pre {
    const char *names;                           /* with spaces between them */
    const char *patterns[GGUF_PRE_MAX_PATTERNS]; /* in the order they cut; NULL ends them */
    bool ignore_merges;                          /* a word that is a piece is not merged */
    bool add_bos;                                /* where the file does not say */
};

/* NULL where no row has the name. */
const struct gguf_pre *gguf_pre_find(const char *name, size_t len);
/* Appends all names, with spaces between them. */
void gguf_pre_names(struct buf *out);
/* The row as a "pre_tokenizer" of tokenizer.json, which is the caller's. */
json_t *gguf_pre_spec(const struct gguf_pre *pre);

#endif
