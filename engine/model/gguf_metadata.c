/* gguf_metadata.c - a walk over the pairs, then lookups by binary search. */
#include "engine/model/gguf_metadata.h"
#include "base/alloc.h"
#include "base/utf8.h"
#include "config/limits.h"
#include "engine/model/json_file.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int32_t size_bytes; /* 0: as long as it says itself */
} types[NUM_GGUF_VALUE_TYPES] = {
    [GGUF_U8] = { "uint8", 1 },       [GGUF_I8] = { "int8", 1 },    [GGUF_U16] = { "uint16", 2 },
    [GGUF_I16] = { "int16", 2 },      [GGUF_U32] = { "uint32", 4 }, [GGUF_I32] = { "int32", 4 },
    [GGUF_F32] = { "float32", 4 },    [GGUF_BOOL] = { "bool", 1 },  [GGUF_STRING] = { "string", 0 },
    [GGUF_ARRAY] = { "an array", 0 }, [GGUF_U64] = { "uint64", 8 }, [GGUF_I64] = { "int64", 8 },
    [GGUF_F64] = { "float64", 8 },
};

/* Arrays of arrays are allowed by the format; no key that is read here has them. */
enum { MAX_ARRAY_DEPTH = 4 };

/* The least that a pair takes: a length, a type, a value of one byte. A count that lies is then
 * found out before memory is taken for it. */
enum { MIN_PAIR_BYTES = 8 };

/* --- bytes ----------------------------------------------------------------------------------- */

static uint64_t load(const unsigned char *at, int32_t bytes)
{
    uint64_t value = 0;
    for (int32_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static size_t left(const struct gguf_cursor *c)
{
    return (size_t)(c->end - c->at);
}

bool gguf_cursor_u32(struct gguf_cursor *c, uint32_t *out)
{
    if (left(c) < 4)
        return false;
    *out = (uint32_t)load(c->at, 4);
    c->at += 4;
    return true;
}

bool gguf_cursor_u64(struct gguf_cursor *c, uint64_t *out)
{
    if (left(c) < 8)
        return false;
    *out = load(c->at, 8);
    c->at += 8;
    return true;
}

bool gguf_cursor_string(struct gguf_cursor *c, const char **text, size_t *len)
{
    uint64_t claimed;
    struct gguf_cursor at = *c;
    if (!gguf_cursor_u64(&at, &claimed) || claimed > left(&at))
        return false;
    *text = (const char *)at.at;
    *len = (size_t)claimed;
    c->at = at.at + claimed;
    return true;
}

/* --- the walk -------------------------------------------------------------------------------- */

static bool cut_off(const char *what, struct status *st)
{
    return status_set(st, STATUS_INVALID, "%s reaches past the end of the file (is it cut off?)",
                      what);
}

static bool read_type(struct gguf_cursor *c, enum gguf_value_type *out, struct status *st)
{
    uint32_t type;
    if (!gguf_cursor_u32(c, &type))
        return cut_off("its type", st);
    if (type >= NUM_GGUF_VALUE_TYPES)
        return status_set(st, STATUS_INVALID, "unknown value type %u", type);
    *out = (enum gguf_value_type)type;
    return true;
}

static bool read_value(struct gguf_cursor *c, struct gguf_value *v, int depth, struct status *st);

/* The elements of an array, whose type and count are read. */
static bool skip_elements(struct gguf_cursor *c, const struct gguf_value *v, int depth,
                          struct status *st)
{
    uint64_t size = (uint64_t)types[v->element_type].size_bytes;
    if (size > 0) {
        if (v->count > left(c) / size)
            return cut_off("its array", st);
        c->at += v->count * size;
        return true;
    }
    /* Every element takes 8 bytes or more, so a count that lies ends with the file. */
    for (uint64_t i = 0; i < v->count; i++) {
        struct gguf_value element = { .type = v->element_type };
        if (!read_value(c, &element, depth + 1, st))
            return false;
    }
    return true;
}

static bool read_value(struct gguf_cursor *c, struct gguf_value *v, int depth, struct status *st)
{
    const char *text;
    size_t len;
    if (v->type == GGUF_STRING) {
        if (!gguf_cursor_string(c, &text, &len))
            return cut_off("its string", st);
        v->count = len;
        v->data =
            (struct gguf_cursor){ (const unsigned char *)text, (const unsigned char *)text + len };
        return true;
    }
    if (v->type != GGUF_ARRAY) {
        int32_t size = types[v->type].size_bytes;
        if (left(c) < (size_t)size)
            return cut_off("its value", st);
        v->count = 1;
        v->data = (struct gguf_cursor){ c->at, c->at + size };
        c->at += size;
        return true;
    }
    if (depth >= MAX_ARRAY_DEPTH)
        return status_set(st, STATUS_INVALID, "arrays are nested deeper than %d", MAX_ARRAY_DEPTH);
    if (!read_type(c, &v->element_type, st))
        return false;
    if (!gguf_cursor_u64(c, &v->count))
        return cut_off("its array", st);
    v->data.at = c->at;
    if (!skip_elements(c, v, depth, st))
        return false;
    v->data.end = c->at;
    return true;
}

static bool read_key(struct gguf_cursor *c, struct arena *names, const char **out,
                     struct status *st)
{
    const char *text;
    size_t len;
    if (!gguf_cursor_string(c, &text, &len))
        return cut_off("a key", st);
    if (len > LIMIT_GGUF_KEY_BYTES || memchr(text, '\0', len))
        return status_set(st, STATUS_INVALID, "a key is longer than %d bytes or holds a zero byte",
                          LIMIT_GGUF_KEY_BYTES);
    *out = arena_strndup(names, text, len);
    return json_name_is_plain(*out, LIMIT_GGUF_KEY_BYTES) ||
           status_set(st, STATUS_INVALID, "a key is empty or not printable");
}

static int by_key(const void *a, const void *b)
{
    const struct gguf_value *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static bool read_pairs(struct gguf_metadata *m, struct gguf_cursor *c, uint64_t count,
                       struct arena *names, struct status *st)
{
    for (uint64_t i = 0; i < count; i++) {
        struct gguf_value *v = &m->values[m->count];
        if (!read_key(c, names, &v->key, st))
            return false;
        m->count++;
        if (!read_type(c, &v->type, st) || !read_value(c, v, 0, st))
            return status_prefix(st, "key '%s': ", v->key);
    }
    if (m->count > 1)
        qsort(m->values, m->count, sizeof *m->values, by_key);
    for (size_t i = 1; i < m->count; i++)
        if (strcmp(m->values[i - 1].key, m->values[i].key) == 0)
            return status_set(st, STATUS_INVALID, "key '%s' stands there twice", m->values[i].key);
    return true;
}

bool gguf_metadata_read(struct gguf_metadata *m, struct gguf_cursor *c, uint64_t count,
                        struct arena *names, struct status *st)
{
    m->values = NULL;
    m->count = 0;
    if (count > LIMIT_GGUF_KEYS)
        return status_set(st, STATUS_INVALID, "%llu keys are claimed, at most %d are read",
                          (unsigned long long)count, LIMIT_GGUF_KEYS);
    if (count > left(c) / MIN_PAIR_BYTES)
        return cut_off("a key", st);
    m->values = xcalloc((size_t)count + 1, sizeof *m->values);
    if (read_pairs(m, c, count, names, st))
        return true;
    gguf_metadata_free(m);
    return false;
}

void gguf_metadata_free(struct gguf_metadata *m)
{
    free(m->values);
    m->values = NULL;
    m->count = 0;
}

/* --- getters --------------------------------------------------------------------------------- */

const struct gguf_value *gguf_find(const struct gguf_metadata *m, const char *key)
{
    struct gguf_value wanted = { .key = key };
    return m->count > 0 ? bsearch(&wanted, m->values, m->count, sizeof wanted, by_key) : NULL;
}

static bool is_int(enum gguf_value_type type)
{
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

static bool is_float(enum gguf_value_type type)
{
    return type == GGUF_F32 || type == GGUF_F64;
}

/* An unsigned value beyond int64_t becomes the greatest one, which no range takes. */
static int64_t int_at(const unsigned char *at, enum gguf_value_type type)
{
    uint64_t bits = load(at, types[type].size_bytes);
    switch (type) {
    case GGUF_I8:
        return (int8_t)bits;
    case GGUF_I16:
        return (int16_t)bits;
    case GGUF_I32:
        return (int32_t)bits;
    case GGUF_I64:
        return (int64_t)bits;
    default:
        return bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
    }
}

static double float_at(const unsigned char *at, enum gguf_value_type type)
{
    uint64_t bits = load(at, types[type].size_bytes);
    uint32_t low = (uint32_t)bits;
    float single;
    double value;
    if (is_int(type) || type == GGUF_BOOL)
        return (double)int_at(at, type);
    memcpy(&single, &low, sizeof single);
    memcpy(&value, &bits, sizeof value);
    return type == GGUF_F32 ? (double)single : value;
}

static bool wrong_type(const struct gguf_metadata *m, const struct gguf_value *v,
                       const char *expected, struct status *st)
{
    bool array = v->type == GGUF_ARRAY;
    return status_set(st, STATUS_INVALID, "%s: key '%s' is %s%s, expected %s", m->file, v->key,
                      types[v->type].name,
                      array ? (v->element_type == GGUF_STRING ? " of strings" : " of numbers") : "",
                      expected);
}

static bool check_range(const struct gguf_metadata *m, const struct gguf_value *v, int64_t value,
                        int64_t min, int64_t max, struct status *st)
{
    if (value >= min && value <= max)
        return true;
    return status_set(st, STATUS_INVALID,
                      "%s: key '%s' is %lld, expected a whole number from %lld to %lld", m->file,
                      v->key, (long long)value, (long long)min, (long long)max);
}

bool gguf_get_int(const struct gguf_metadata *m, const char *key, int64_t min, int64_t max,
                  int64_t *out, struct status *st)
{
    const struct gguf_value *v = gguf_find(m, key);
    if (!v)
        return true;
    if (!is_int(v->type))
        return wrong_type(m, v, "a whole number", st);
    int64_t value = int_at(v->data.at, v->type);
    if (!check_range(m, v, value, min, max, st))
        return false;
    *out = value;
    return true;
}

bool gguf_get_uniform_int(const struct gguf_metadata *m, const char *key, int64_t min, int64_t max,
                          int64_t *out, struct status *st)
{
    const struct gguf_value *v = gguf_find(m, key);
    if (!v || v->type != GGUF_ARRAY)
        return gguf_get_int(m, key, min, max, out, st);
    if (!is_int(v->element_type) || v->count == 0)
        return wrong_type(m, v, "a whole number, or one for each layer", st);
    int64_t first = gguf_array_int(v, 0);
    for (uint64_t i = 1; i < v->count; i++)
        if (gguf_array_int(v, i) != first)
            return status_set(st, STATUS_UNSUPPORTED,
                              "%s: key '%s' differs between layers (%lld and %lld), which is not "
                              "supported",
                              m->file, v->key, (long long)first, (long long)gguf_array_int(v, i));
    *out = first;
    return check_range(m, v, first, min, max, st);
}

bool gguf_get_float(const struct gguf_metadata *m, const char *key, double *out, struct status *st)
{
    const struct gguf_value *v = gguf_find(m, key);
    if (!v)
        return true;
    if (!is_int(v->type) && !is_float(v->type))
        return wrong_type(m, v, "a number", st);
    double value = float_at(v->data.at, v->type);
    if (!isfinite(value))
        return status_set(st, STATUS_INVALID, "%s: key '%s' is no finite number", m->file, v->key);
    *out = value;
    return true;
}

bool gguf_get_bool(const struct gguf_metadata *m, const char *key, bool *out, struct status *st)
{
    const struct gguf_value *v = gguf_find(m, key);
    if (!v)
        return true;
    if (v->type != GGUF_BOOL)
        return wrong_type(m, v, "a bool", st);
    if (v->data.at[0] > 1)
        return status_set(st, STATUS_INVALID, "%s: key '%s' is a bool of value %d", m->file, v->key,
                          v->data.at[0]);
    *out = v->data.at[0] == 1;
    return true;
}

bool gguf_get_string(const struct gguf_metadata *m, const char *key, const char **text, size_t *len,
                     struct status *st)
{
    const struct gguf_value *v = gguf_find(m, key);
    if (!v)
        return true;
    if (v->type != GGUF_STRING)
        return wrong_type(m, v, "a string", st);
    const char *bytes = (const char *)v->data.at;
    if (memchr(bytes, '\0', (size_t)v->count) || !utf8_valid(bytes, (size_t)v->count))
        return status_set(st, STATUS_INVALID, "%s: key '%s' is no UTF-8 text", m->file, v->key);
    *text = bytes;
    *len = (size_t)v->count;
    return true;
}

bool gguf_get_array(const struct gguf_metadata *m, const char *key, enum gguf_value_type kind,
                    const struct gguf_value **out, struct status *st)
{
    const struct gguf_value *v = gguf_find(m, key);
    *out = v;
    if (!v)
        return true;
    enum gguf_value_type type = v->element_type;
    bool fits = kind == GGUF_STRING
                    ? type == GGUF_STRING
                    : is_int(type) || type == GGUF_BOOL || (is_float(kind) && is_float(type));
    if (v->type == GGUF_ARRAY && fits)
        return true;
    return wrong_type(m, v,
                      kind == GGUF_STRING ? "an array of strings"
                      : is_float(kind)    ? "an array of numbers"
                                          : "an array of whole numbers",
                      st);
}

int64_t gguf_array_int(const struct gguf_value *array, uint64_t i)
{
    assert(array->type == GGUF_ARRAY && i < array->count);
    return int_at(array->data.at + i * (uint64_t)types[array->element_type].size_bytes,
                  array->element_type);
}

double gguf_array_float(const struct gguf_value *array, uint64_t i)
{
    assert(array->type == GGUF_ARRAY && i < array->count);
    return float_at(array->data.at + i * (uint64_t)types[array->element_type].size_bytes,
                    array->element_type);
}

void gguf_array_next_string(struct gguf_cursor *c, const char **text, size_t *len)
{
    bool whole = gguf_cursor_string(c, text, len);
    assert(whole); /* walked when the file was read */
    if (!whole)
        *len = 0;
}
