/* json_field.c - see json_field.h. */
#include "engine/text/json_field.h"
#include "base/utf8.h"

#include <string.h>

const char *json_field_type(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

static void wrong(const json_t *object, const char *name, const char *expected, struct status *st)
{
    if (st->code == STATUS_OK)
        status_set(st, STATUS_INVALID, "\"%s\" of %s is not %s", name,
                   *json_field_type(object) ? json_field_type(object) : "an object", expected);
}

bool json_field_bool(const json_t *object, const char *name, bool missing, struct status *st)
{
    const json_t *v = json_object_get(object, name);
    if (!v || json_is_null(v))
        return missing;
    if (!json_is_boolean(v))
        wrong(object, name, "true or false", st);
    return json_is_true(v);
}

int64_t json_field_int(const json_t *object, const char *name, int64_t missing, struct status *st)
{
    const json_t *v = json_object_get(object, name);
    if (!v || json_is_null(v))
        return missing;
    if (!json_is_integer(v))
        wrong(object, name, "an integer", st);
    return json_integer_value(v);
}

const char *json_field_text(const json_t *object, const char *name, size_t *len, struct status *st)
{
    const json_t *v = json_object_get(object, name);
    *len = 0;
    if (!v || json_is_null(v))
        return NULL;
    if (!json_is_string(v)) {
        wrong(object, name, "a string", st);
        return NULL;
    }
    *len = json_string_length(v);
    return json_string_value(v);
}

const char *json_field_need(const json_t *object, const char *name, size_t *len, struct status *st)
{
    const char *text = json_field_text(object, name, len, st);
    if (!text)
        wrong(object, name, "a string", st);
    return text ? text : "";
}

uint32_t json_field_char(const json_t *object, const char *name, struct status *st)
{
    size_t len;
    const char *text = json_field_need(object, name, &len, st);
    uint32_t c = 0;
    if (len == 0 || utf8_decode(text, len, &c) != (int)len)
        wrong(object, name, "one character", st);
    return c;
}

const char *json_field_pattern(const json_t *object, size_t *len, bool *is_regex, struct status *st)
{
    const json_t *pattern = json_object_get(object, "pattern");
    const json_t *v = json_object_get(pattern, "String");
    *is_regex = !v;
    if (!v)
        v = json_object_get(pattern, "Regex");
    if (!json_is_string(v)) {
        wrong(object, "pattern", "a String or a Regex", st);
        *len = 0;
        return "";
    }
    *len = json_string_length(v);
    return json_string_value(v);
}

bool json_field_unknown(const char *what, const json_t *spec, struct status *st)
{
    const char *type = json_field_type(spec);
    return status_set(st, STATUS_UNSUPPORTED, "the %s \"%.60s\" is not supported", what,
                      *type ? type : "without a type");
}
