/* option.c - rows from options.def, and the checks that every value passes whatever its source. */
#include "config/option.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct option option_table[] = {
#define OPTION_GROUP(title) { .kind = OPTION_KIND_GROUP, .name = title },
#define ROW(kind_, field, value_, help_)                                                           \
    .kind = kind_, .name = #field, .value = value_, .help = help_,                                 \
    .offset = offsetof(struct config, field)
#define OPTION_STRING(field, d, value_, help_)                                                     \
    { ROW(OPTION_KIND_STRING, field, value_, help_), .def.text = d },
#define OPTION_CHOICE(field, d, choices, help_)                                                    \
    { ROW(OPTION_KIND_CHOICE, field, choices, help_), .def.text = d },
#define OPTION_INT(field, d, lo, hi, value_, help_)                                                \
    { ROW(OPTION_KIND_INT, field, value_, help_), .def.integer = d, .min.integer = lo,             \
      .max.integer = hi },
#define OPTION_FLOAT(field, d, lo, hi, value_, help_)                                              \
    { ROW(OPTION_KIND_FLOAT, field, value_, help_), .def.number = d, .min.number = lo,             \
      .max.number = hi },
#define OPTION_BOOL(field, d, help_) { ROW(OPTION_KIND_BOOL, field, NULL, help_), .def.flag = d },
#include "config/options.def"
#undef OPTION_GROUP
#undef OPTION_STRING
#undef OPTION_CHOICE
#undef OPTION_INT
#undef OPTION_FLOAT
#undef OPTION_BOOL
#undef ROW
};
const int32_t option_count = (int32_t)(sizeof(option_table) / sizeof(option_table[0]));

/* The two spellings of a name differ in these two characters only. */
static char fold(char c)
{
    return c == '-' ? '_' : c;
}

const struct option *option_find(const char *name, size_t len)
{
    for (int32_t i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (o->kind == OPTION_KIND_GROUP || strlen(o->name) != len)
            continue;
        size_t k = 0;
        while (k < len && fold(name[k]) == o->name[k])
            k++;
        if (k == len)
            return o;
    }
    return NULL;
}

enum { MAX_NAME = 48 };

/* Levenshtein distance, one row at a time. */
static size_t edit_distance(const char *a, size_t a_len, const char *b)
{
    size_t b_len = strlen(b), row[MAX_NAME + 1];
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (fold(a[i - 1]) != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_len];
}

const struct option *option_nearest(const char *name, size_t len)
{
    const struct option *nearest = NULL;
    size_t nearest_distance = 0;
    if (len == 0 || len > MAX_NAME)
        return NULL;
    for (int32_t i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (o->kind == OPTION_KIND_GROUP || strlen(o->name) > MAX_NAME)
            continue;
        size_t distance = edit_distance(name, len, o->name);
        if (nearest == NULL || distance < nearest_distance) {
            nearest = o;
            nearest_distance = distance;
        }
    }
    /* Past a third of the word the suggestion would be a guess. */
    return nearest_distance <= (len / 3 > 2 ? len / 3 : 2) ? nearest : NULL;
}

void option_flag(const struct option *o, char out[64])
{
    snprintf(out, 64, "--%s", o->name);
    for (char *p = out; *p != '\0'; p++)
        if (*p == '_')
            *p = '-';
}

union option_value option_get(const struct option *o, const struct config *c)
{
    const char *field = (const char *)c + o->offset;
    union option_value v = { 0 };
    switch (o->kind) {
    case OPTION_KIND_STRING:
    case OPTION_KIND_CHOICE:
        memcpy(&v.text, field, sizeof(v.text));
        break;
    case OPTION_KIND_INT:
        memcpy(&v.integer, field, sizeof(v.integer));
        break;
    case OPTION_KIND_FLOAT:
        memcpy(&v.number, field, sizeof(v.number));
        break;
    case OPTION_KIND_BOOL:
        memcpy(&v.flag, field, sizeof(v.flag));
        break;
    case OPTION_KIND_GROUP:
        break;
    }
    return v;
}

void option_put(const struct option *o, struct config *c, union option_value v)
{
    char *field = (char *)c + o->offset;
    switch (o->kind) {
    case OPTION_KIND_STRING:
    case OPTION_KIND_CHOICE:
        memcpy(field, &v.text, sizeof(v.text));
        break;
    case OPTION_KIND_INT:
        memcpy(field, &v.integer, sizeof(v.integer));
        break;
    case OPTION_KIND_FLOAT:
        memcpy(field, &v.number, sizeof(v.number));
        break;
    case OPTION_KIND_BOOL:
        memcpy(field, &v.flag, sizeof(v.flag));
        break;
    case OPTION_KIND_GROUP:
        break;
    }
}

bool option_is_default(const struct option *o, const struct config *c)
{
    union option_value v = option_get(o, c);
    switch (o->kind) {
    case OPTION_KIND_STRING:
    case OPTION_KIND_CHOICE:
        if (v.text == NULL || o->def.text == NULL)
            return v.text == o->def.text;
        return strcmp(v.text, o->def.text) == 0;
    case OPTION_KIND_INT:
        return v.integer == o->def.integer;
    case OPTION_KIND_FLOAT:
        return v.number == o->def.number;
    case OPTION_KIND_BOOL:
        return v.flag == o->def.flag;
    case OPTION_KIND_GROUP:
        break;
    }
    return true;
}

bool option_is_secret(const struct option *o)
{
    return strcmp(o->name, "api_key") == 0 || strcmp(o->name, "hf_token") == 0;
}

bool option_is_list(const struct option *o)
{
    return o->kind == OPTION_KIND_STRING && strstr(o->value, "[,") != NULL;
}

bool option_is_json(const struct option *o)
{
    return o->kind == OPTION_KIND_STRING && strcmp(o->value, "JSON") == 0;
}

bool option_parse_int(const char *text, int64_t *out)
{
    static const struct {
        char suffix;
        int64_t factor;
    } suffixes[] = { { 'k', 1000 },    { 'K', INT64_C(1) << 10 }, { 'm', 1000000 },
                     { 'M', 1 << 20 }, { 'g', 1000000000 },       { 'G', 1 << 30 } };
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    char *end;
    /* strtoll would also take leading blanks, which only ever come from a slip of quoting. */
    if (digits[0] < '0' || digits[0] > '9')
        return false;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0)
        return false;
    int64_t factor = 1;
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        if (*end == suffixes[i].suffix) {
            factor = suffixes[i].factor;
            end++;
            break;
        }
    }
    return *end == '\0' && !__builtin_mul_overflow(value, factor, out);
}

static bool parse_float(const char *text, double *out)
{
    char first = text[text[0] == '-' || text[0] == '+'];
    char *end;
    if (!((first >= '0' && first <= '9') || first == '.'))
        return false;
    errno = 0;
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out);
}

static bool parse_bool(const char *text, bool *out)
{
    static const char *const words[][2] = {
        { "false", "true" }, { "0", "1" }, { "no", "yes" }, { "off", "on" }
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        for (int k = 0; k < 2; k++) {
            if (strcmp(text, words[i][k]) == 0) {
                *out = k == 1;
                return true;
            }
        }
    }
    return false;
}

/* The one form of every complaint: option, value, what is allowed, where the value came from. */
static bool refuse(const struct option *o, struct option_text t, struct status *st)
{
    char flag[64], allowed[256];
    const char *shown = option_is_secret(o) ? "(hidden)" : t.text;
    option_flag(o, flag);
    switch (o->kind) {
    case OPTION_KIND_INT:
        snprintf(allowed, sizeof(allowed), "an integer from %" PRId64 " to %" PRId64,
                 o->min.integer, o->max.integer);
        break;
    case OPTION_KIND_FLOAT:
        snprintf(allowed, sizeof(allowed), "a number from %g to %g", o->min.number, o->max.number);
        break;
    case OPTION_KIND_BOOL:
        snprintf(allowed, sizeof(allowed), "true or false");
        break;
    case OPTION_KIND_CHOICE:
        snprintf(allowed, sizeof(allowed), "one of %s", o->value);
        break;
    default:
        snprintf(allowed, sizeof(allowed), "a text (%s), not empty", o->value);
        break;
    }
    status_set(st, STATUS_INVALID, "%s: '%.100s' is not valid, it must be %s (from %s)", flag,
               shown, allowed, t.origin);
    return status_detail(st, o->name, NULL);
}

static bool choice_has(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *p = choices; len > 0;) {
        const char *bar = strchr(p, '|');
        size_t n = bar != NULL ? (size_t)(bar - p) : strlen(p);
        if (n == len && memcmp(p, text, n) == 0)
            return true;
        if (bar == NULL)
            break;
        p = bar + 1;
    }
    return false;
}

bool option_is_switch(const struct option *o)
{
    return o->kind == OPTION_KIND_BOOL ||
           (o->kind == OPTION_KIND_CHOICE && choice_has(o->value, "true"));
}

bool option_has_word(const struct option *o, const char *text)
{
    return choice_has(o->kind == OPTION_KIND_CHOICE ? o->value : "true|false", text);
}

bool option_set_text(const struct option *o, struct config *c, struct option_text t,
                     struct status *st)
{
    union option_value v = { 0 };
    switch (o->kind) {
    case OPTION_KIND_STRING:
        if (t.text[0] == '\0')
            return refuse(o, t, st);
        v.text = arena_strdup(&c->strings, t.text);
        break;
    case OPTION_KIND_CHOICE:
        if (!choice_has(o->value, t.text))
            return refuse(o, t, st);
        v.text = arena_strdup(&c->strings, t.text);
        break;
    case OPTION_KIND_INT:
        if (!option_parse_int(t.text, &v.integer) || v.integer < o->min.integer ||
            v.integer > o->max.integer)
            return refuse(o, t, st);
        break;
    case OPTION_KIND_FLOAT:
        if (!parse_float(t.text, &v.number) || v.number < o->min.number || v.number > o->max.number)
            return refuse(o, t, st);
        break;
    case OPTION_KIND_BOOL:
        if (!parse_bool(t.text, &v.flag))
            return refuse(o, t, st);
        break;
    case OPTION_KIND_GROUP:
        break;
    }
    option_put(o, c, v);
    return true;
}

/* ["a", "b"] for an option that takes "a,b" on the command line. */
static bool join_list(const struct option *o, const json_t *list, struct buf *out)
{
    const json_t *entry;
    size_t i;
    if (!option_is_list(o) || json_array_size(list) == 0)
        return false;
    json_array_foreach(list, i, entry)
    {
        if (i > 0)
            buf_append_char(out, ',');
        if (json_is_integer(entry))
            buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(entry));
        else if (json_is_string(entry) && json_string_length(entry) > 0 &&
                 strchr(json_string_value(entry), ',') == NULL)
            buf_append_str(out, json_string_value(entry));
        else
            return false;
    }
    return true;
}

static bool dump_object(const json_t *value, struct buf *out)
{
    char *text = json_dumps(value, JSON_COMPACT);
    if (text)
        buf_append_str(out, text);
    free(text);
    return text != NULL;
}

bool option_set_json(const struct option *o, struct config *c, const json_t *value,
                     const char *origin, struct status *st)
{
    /* A value of the right type goes through the same text as on the command line; one of the wrong
     * type is shown as it stands in the file. */
    bool fits = false;
    struct buf text;
    buf_init(&text, 0);
    switch (json_typeof(value)) {
    case JSON_STRING:
        buf_append_str(&text, json_string_value(value));
        fits = o->kind != OPTION_KIND_BOOL;
        break;
    case JSON_INTEGER:
        buf_printf(&text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        fits = o->kind == OPTION_KIND_INT || o->kind == OPTION_KIND_FLOAT || option_is_list(o);
        break;
    case JSON_REAL:
        buf_printf(&text, "%.17g", json_real_value(value));
        fits = o->kind == OPTION_KIND_FLOAT;
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        buf_append_str(&text, json_is_true(value) ? "true" : "false");
        fits = option_is_switch(o);
        break;
    case JSON_ARRAY:
        fits = join_list(o, value, &text);
        if (!fits) {
            buf_clear(&text);
            buf_append_str(&text, "[...]");
        }
        break;
    case JSON_OBJECT:
        fits = option_is_json(o) && dump_object(value, &text);
        if (!fits)
            buf_append_str(&text, "{...}");
        break;
    case JSON_NULL:
        buf_append_str(&text, "null");
        break;
    }
    struct option_text t = { .text = buf_str(&text), .origin = origin };
    bool ok = fits ? option_set_text(o, c, t, st) : refuse(o, t, st);
    buf_free(&text);
    return ok;
}
