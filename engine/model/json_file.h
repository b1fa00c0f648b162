/* json_file.h - reading a JSON file that nobody vouches for, and showing its values in messages.
 *
 * Bounded in size and depth; duplicate keys are refused, since readers disagree on which one
 * counts. Any thread. */
#ifndef INFERD_ENGINE_MODEL_JSON_FILE_H
#define INFERD_ENGINE_MODEL_JSON_FILE_H

#include "base/status.h"
#include <jansson.h>
#include <stddef.h>

/* The object in `text`; `name` is what messages call it. NULL on failure; json_decref it. */
json_t *json_text_parse(const char *text, size_t len, const char *name, struct status *st);
/* Likewise from dir/name. A file that does not exist gives NULL with STATUS_NOT_FOUND. */
json_t *json_file_read(const char *dir, const char *name, size_t max_bytes, struct status *st);

struct json_shown {
    char text[72];
};
/* The value as it would stand in a file, cut to fit: one line, ASCII, safe for a log. */
struct json_shown json_show(const json_t *value);

/* Whether `text` may stand in a message: 1 to max_bytes bytes, none of them a control character. */
bool json_name_is_plain(const char *text, size_t max_bytes);

#endif
