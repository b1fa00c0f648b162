/* json_field.h - typed reads from the objects of tokenizer.json. The first wrong field sets the
 * status, with the object's type in the message; later reads keep it. */
#ifndef INFERD_ENGINE_TEXT_JSON_FIELD_H
#define INFERD_ENGINE_TEXT_JSON_FIELD_H

#include "base/status.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* The "type" of a component, or "" where it has none. */
const char *json_field_type(const json_t *object);
/* Missing and null give `missing`. */
bool json_field_bool(const json_t *object, const char *name, bool missing, struct status *st);
int64_t json_field_int(const json_t *object, const char *name, int64_t missing, struct status *st);
/* The text (owned by the JSON value) and its length; NULL where it is missing or null. */
const char *json_field_text(const json_t *object, const char *name, size_t *len, struct status *st);
/* The same for a field that must be there. */
const char *json_field_need(const json_t *object, const char *name, size_t *len, struct status *st);
/* A text of exactly one character. */
uint32_t json_field_char(const json_t *object, const char *name, struct status *st);
/* {"String": s} or {"Regex": s}. */
const char *json_field_pattern(const json_t *object, size_t *len, bool *is_regex,
                               struct status *st);
/* Fails with the sentence every unknown component gets. */
bool json_field_unknown(const char *what, const json_t *spec, struct status *st);

#endif
