/* normalizer.h - the "normalizer" of tokenizer.json: text to text, before it is split.
 *
 * Immutable once loaded, safe on any thread. */
#ifndef INFERD_ENGINE_TEXT_NORMALIZER_H
#define INFERD_ENGINE_TEXT_NORMALIZER_H

#include "base/buf.h"
#include "base/status.h"
#include <jansson.h>
#include <stddef.h>

struct normalizer;

/* `spec` is the JSON value; null gives *out == NULL, which normalizes nothing. A component that is
 * not known is an error that names it. */
bool normalizer_load(const json_t *spec, struct normalizer **out, struct status *st);
/* Appends the normalized text, which is valid UTF-8 as `text` is. Fails only where a regular
 * expression gives up. */
bool normalizer_run(const struct normalizer *n, const char *text, size_t len, struct buf *out,
                    struct status *st);
void normalizer_free(struct normalizer *n);

#endif
