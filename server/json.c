/* json.c - bounds are checked before the parser allocates; everything else is typing. */
#include "server/json.h"
#include "base/utf8.h"
#include "config/limits.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A few bytes of text can cost a hundred bytes of tree ("[]," repeated), so the size of the tree is
 * estimated and refused before it is built. Inside strings nothing counts. */
static bool check_bounds(const char *text, size_t len, struct status *st)
{
    bool in_string = false;
    size_t depth = 0, cost = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            cost += LIMIT_JSON_CONTAINER_COST;
            if (++depth > LIMIT_JSON_DEPTH)
                return status_set(st, STATUS_INVALID,
                                  "the JSON body is nested deeper than %d levels",
                                  LIMIT_JSON_DEPTH),
                       status_detail(st, NULL, "json_too_deep");
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        } else if (c == ',') {
            cost++;
        }
        if (cost > LIMIT_JSON_COST)
            return status_set(st, STATUS_INVALID,
                              "the JSON body holds too many values; send several requests"),
                   status_detail(st, NULL, "json_too_large");
    }
    return true;
}

bool json_parse(const char *text, size_t len, json_t **out, struct status *st)
{
    json_error_t error;
    if (!check_bounds(text, len, st))
        return false;
    *out = json_loadb(text, len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (*out)
        return true;
    status_set(st, STATUS_INVALID, "the body is not valid JSON: %s (line %d, column %d)",
               error.text, error.line, error.column);
    return status_detail(st, NULL, "invalid_json");
}

struct json_node json_root(const json_t *value)
{
    return (struct json_node){ .value = value };
}

struct json_node json_member(const struct json_node *object, const char *key)
{
    const json_t *value = object->value ? json_object_get(object->value, key) : NULL;
    return (struct json_node){ .value = json_is_null(value) ? NULL : value,
                               .parent = object,
                               .key = key };
}

struct json_node json_element(const struct json_node *array, size_t index)
{
    const json_t *value = array->value ? json_array_get(array->value, index) : NULL;
    return (struct json_node){ .value = json_is_null(value) ? NULL : value,
                               .parent = array,
                               .index = index };
}

const char *json_type_name(const json_t *value)
{
    if (!value)
        return "null";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

/* Nodes know their parents, so the path is written from the root by recursion. */
static size_t write_path(const struct json_node *n, char *out, size_t size)
{
    size_t len = n->parent ? write_path(n->parent, out, size) : 0;
    if (!n->parent || len + 1 >= size)
        return len;
    int written = n->key ? snprintf(out + len, size - len, "%s%s", len ? "." : "", n->key)
                         : snprintf(out + len, size - len, "[%zu]", n->index);
    size_t end = len + (written > 0 ? (size_t)written : 0);
    return end < size ? end : size - 1;
}

bool json_invalid(const struct json_node *n, struct status *st, const char *reason,
                  const char *format, ...)
{
    char path[sizeof st->param] = "";
    char text[sizeof st->message];
    va_list args;
    write_path(n, path, sizeof path);
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (path[0])
        status_set(st, STATUS_INVALID, "'%s' %s", path, text);
    else
        status_set(st, STATUS_INVALID, "the body %s", text);
    return status_detail(st, path, reason);
}

static bool wrong_type(const struct json_node *n, const char *wanted, struct status *st)
{
    return json_invalid(n, st, "invalid_type", "must be %s, not %s", wanted,
                        json_type_name(n->value));
}

bool json_read_bool(const struct json_node *n, bool *out, struct status *st)
{
    if (!n->value)
        return true;
    if (!json_is_boolean(n->value))
        return wrong_type(n, "a boolean", st);
    *out = json_is_true(n->value);
    return true;
}

static bool check_int_range(const struct json_node *n, int64_t min, int64_t max, int64_t value,
                            struct status *st)
{
    if (value < min)
        return json_invalid(n, st, "integer_below_min_value", "must be at least %lld, not %lld",
                            (long long)min, (long long)value);
    if (value > max)
        return json_invalid(n, st, "integer_above_max_value", "must be at most %lld, not %lld",
                            (long long)max, (long long)value);
    return true;
}

bool json_read_int(const struct json_node *n, int64_t min, int64_t max, int64_t *out,
                   struct status *st)
{
    int64_t value;
    if (!n->value)
        return true;
    if (json_is_integer(n->value)) {
        value = json_integer_value(n->value);
    } else {
        double real = json_is_real(n->value) ? json_real_value(n->value) : 0.5;
        if (real != floor(real) || fabs(real) > 9e15)
            return wrong_type(n, "an integer", st);
        value = (int64_t)real;
    }
    if (!check_int_range(n, min, max, value, st))
        return false;
    *out = value;
    return true;
}

bool json_read_float(const struct json_node *n, const struct json_range *range, double *out,
                     struct status *st)
{
    if (!n->value)
        return true;
    if (!json_is_number(n->value))
        return wrong_type(n, "a number", st);
    double value = json_number_value(n->value);
    if (value < range->min || (range->min_open && value <= range->min))
        return json_invalid(n, st, "decimal_below_min_value", "must be %s %g, not %g",
                            range->min_open ? "greater than" : "at least", range->min, value);
    if (!(value <= range->max))
        return json_invalid(n, st, "decimal_above_max_value", "must be at most %g, not %g",
                            range->max, value);
    *out = value;
    return true;
}

bool json_read_string(const struct json_node *n, const char **text, size_t *len, struct status *st)
{
    if (!n->value)
        return true;
    if (!json_is_string(n->value))
        return wrong_type(n, "a string", st);
    size_t bytes = json_string_length(n->value);
    const char *value = json_string_value(n->value);
    if (!len && strlen(value) != bytes)
        return json_invalid(n, st, "invalid_value", "must not hold NUL characters");
    *text = value;
    if (len)
        *len = bytes;
    return true;
}

bool json_read_array(const struct json_node *n, size_t max_len, size_t *len, struct status *st)
{
    if (!n->value)
        return true;
    if (!json_is_array(n->value))
        return wrong_type(n, "an array", st);
    size_t size = json_array_size(n->value);
    if (size > max_len)
        return json_invalid(n, st, "array_above_max_length",
                            "must have at most %zu entries, not %zu", max_len, size);
    *len = size;
    return true;
}

bool json_check_object(const struct json_node *n, struct status *st)
{
    return !n->value || json_is_object(n->value) || wrong_type(n, "an object", st);
}

void json_writer_init(struct json_writer *w, struct buf *out)
{
    w->out = out;
    w->comma = false;
}

static void before_value(struct json_writer *w)
{
    if (w->comma)
        buf_append_char(w->out, ',');
    w->comma = true;
}

static void open_with(struct json_writer *w, char bracket)
{
    before_value(w);
    buf_append_char(w->out, bracket);
    w->comma = false;
}

static void close_with(struct json_writer *w, char bracket)
{
    buf_append_char(w->out, bracket);
    w->comma = true;
}

void json_open_object(struct json_writer *w)
{
    open_with(w, '{');
}

void json_close_object(struct json_writer *w)
{
    close_with(w, '}');
}

void json_open_array(struct json_writer *w)
{
    open_with(w, '[');
}

void json_close_array(struct json_writer *w)
{
    close_with(w, ']');
}

/* Appends the character at `text` escaped as JSON needs it; returns the bytes consumed. */
static size_t put_escaped(struct buf *out, const char *text, size_t len)
{
    static const char short_escapes[] = "\bb\ff\nn\rr\tt\"\"\\\\";
    unsigned char c = (unsigned char)text[0];
    if (c < 0x80) {
        for (const char *e = short_escapes; *e; e += 2) {
            if ((unsigned char)*e == c) {
                buf_append_char(out, '\\');
                buf_append_char(out, e[1]);
                return 1;
            }
        }
        buf_printf(out, "\\u%04x", c);
        return 1;
    }
    buf_append(out, "\xef\xbf\xbd", 3);
    return utf8_invalid_len(text, len);
}

/* Bytes at the start that need no escape: whole characters, nothing of "\\ or below U+0020. */
static size_t plain_prefix(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len) {
        unsigned char c = (unsigned char)text[i];
        uint32_t code_point;
        if (c < 0x20 || c == '"' || c == '\\')
            break;
        int bytes = c < 0x80 ? 1 : utf8_decode(text + i, len - i, &code_point);
        if (bytes <= 0)
            break;
        i += (size_t)bytes;
    }
    return i;
}

static void put_quoted(struct buf *out, const char *text, size_t len)
{
    buf_append_char(out, '"');
    while (len > 0) {
        size_t plain = plain_prefix(text, len);
        buf_append(out, text, plain);
        text += plain;
        len -= plain;
        if (len > 0) {
            size_t taken = put_escaped(out, text, len);
            text += taken;
            len -= taken;
        }
    }
    buf_append_char(out, '"');
}

void json_put_key_text(struct json_writer *w, const char *key, size_t len)
{
    before_value(w);
    put_quoted(w->out, key, len);
    buf_append_char(w->out, ':');
    w->comma = false;
}

void json_key(struct json_writer *w, const char *key)
{
    json_put_key_text(w, key, strlen(key));
}

void json_put_text(struct json_writer *w, const char *text, size_t len)
{
    if (!text) {
        json_put_null(w);
        return;
    }
    before_value(w);
    put_quoted(w->out, text, len);
}

void json_put_string(struct json_writer *w, const char *text)
{
    json_put_text(w, text, text ? strlen(text) : 0);
}

void json_put_int(struct json_writer *w, int64_t value)
{
    before_value(w);
    buf_printf(w->out, "%lld", (long long)value);
}

void json_put_float(struct json_writer *w, double value)
{
    char text[40];
    before_value(w);
    if (!(value >= -9999.0))
        value = -9999.0;
    else if (value > 1e300)
        value = 1e300;
    snprintf(text, sizeof text, "%.9g", value);
    buf_append_str(w->out, text);
    if (!strpbrk(text, ".e"))
        buf_append_str(w->out, ".0");
}

void json_put_bool(struct json_writer *w, bool value)
{
    before_value(w);
    buf_append_str(w->out, value ? "true" : "false");
}

void json_put_null(struct json_writer *w)
{
    before_value(w);
    buf_append_str(w->out, "null");
}

static int append_chunk(const char *data, size_t len, void *out)
{
    buf_append(out, data, len);
    return 0;
}

void json_put_value(struct json_writer *w, const json_t *value)
{
    before_value(w);
    if (json_dump_callback(value, append_chunk, w->out, JSON_COMPACT | JSON_ENCODE_ANY) != 0)
        buf_append_str(w->out, "null");
}
