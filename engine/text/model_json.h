/* model_json.h - the JSON of model files, whose objects may have keys with NUL characters in them:
 * vocabularies hold every byte. jansson refuses such keys, so they are brought in with another
 * character in its place, one that the text does not have. */
#ifndef INFERD_ENGINE_TEXT_MODEL_JSON_H
#define INFERD_ENGINE_TEXT_MODEL_JSON_H

#include "base/buf.h"
#include "base/status.h"
#include <jansson.h>
#include <stddef.h>

struct model_json {
    json_t *root; /* an object; release with json_decref */
    char nul[4];  /* what stands for NUL in keys, [nul_len]; 0: no key has any */
    size_t nul_len;
};

/* Integers beyond 64 bits become reals. `st` has the line at fault. */
bool model_json_parse(const char *text, size_t len, struct model_json *out, struct status *st);
/* A key as it was written, and its length; `room` holds it where it differs. */
const char *model_json_key(const struct model_json *j, const char *key, size_t *len,
                           struct buf *room);

#endif
