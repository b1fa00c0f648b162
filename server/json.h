/* json.h - JSON from clients, read with errors that name the place; JSON to clients, always valid.
 *
 * Reading: a json_node is a value and where it stands, so that an error can say
 * "messages[2].content must be a string". Getters leave their output alone where the value is
 * absent or null, which both mean "the default". Writing: a json_writer appends to a buf and sets
 * the commas. One thread at a time. */
#ifndef INFERD_SERVER_JSON_H
#define INFERD_SERVER_JSON_H

#include "base/buf.h"
#include "base/status.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses a whole body. Depth and number of values are bounded (config/limits.h), NUL characters are
 * kept, and `st` names line and column. The caller releases *out with json_decref. */
bool json_parse(const char *text, size_t len, json_t **out, struct status *st);

/* --- reading --- */
struct json_node {
    const json_t *value; /* NULL: absent or null */
    const struct json_node *parent;
    const char *key; /* of a member; NULL for an element and for the root */
    size_t index;
};

struct json_node json_root(const json_t *value);
/* The parent must be an object and stay where it is while the member is in use. */
struct json_node json_member(const struct json_node *object, const char *key);
struct json_node json_element(const struct json_node *array, size_t index);

bool json_read_bool(const struct json_node *n, bool *out, struct status *st);
/* 16.0 counts as an integer, 16.5 and "16" do not. */
bool json_read_int(const struct json_node *n, int64_t min, int64_t max, int64_t *out,
                   struct status *st);
struct json_range {
    double min, max;
    bool min_open; /* the minimum itself is refused */
};
bool json_read_float(const struct json_node *n, const struct json_range *range, double *out,
                     struct status *st);
/* The text belongs to the JSON value and may hold NUL characters when `len` is asked for; with
 * `len` NULL such a text is refused. */
bool json_read_string(const struct json_node *n, const char **text, size_t *len, struct status *st);
/* Checks the type and the size; *len is left alone where the value is absent. */
bool json_read_array(const struct json_node *n, size_t max_len, size_t *len, struct status *st);
bool json_check_object(const struct json_node *n, struct status *st);
/* STATUS_INVALID with the path put before the message and into st->param; returns false. */
bool json_invalid(const struct json_node *n, struct status *st, const char *reason,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));
/* "an integer", "a string": for messages. */
const char *json_type_name(const json_t *value);

/* --- writing --- */
struct json_writer {
    struct buf *out;
    bool comma; /* one is due before the next value or key */
};

void json_writer_init(struct json_writer *w, struct buf *out);
void json_open_object(struct json_writer *w);
void json_close_object(struct json_writer *w);
void json_open_array(struct json_writer *w);
void json_close_array(struct json_writer *w);
void json_key(struct json_writer *w, const char *key);
void json_put_key_text(struct json_writer *w, const char *key, size_t len);
/* Any bytes: what is not UTF-8 leaves as U+FFFD. NULL text is written as null. */
void json_put_text(struct json_writer *w, const char *text, size_t len);
void json_put_string(struct json_writer *w, const char *text);
void json_put_int(struct json_writer *w, int64_t value);
/* Nine significant digits, which give a float back exactly; a value that JSON cannot hold is
 * clamped: minus infinity and NaN leave as -9999.0, as clients of vLLM expect. */
void json_put_float(struct json_writer *w, double value);
void json_put_bool(struct json_writer *w, bool value);
void json_put_null(struct json_writer *w);
void json_put_value(struct json_writer *w, const json_t *value);

#endif
