/* gguf_metadata.h - the typed keys at the head of a GGUF file, checked once and read in place.
 *
 * Layout (GGUF 2 and 3, little-endian): a string is a 64-bit length and its bytes; a pair is a key,
 * a 32-bit type and a value; an array is a 32-bit element type, a 64-bit count and the elements.
 * gguf_metadata_read walks every pair to its last byte; afterwards nothing that a getter touches
 * can lie outside of the file. Values stay where the file is mapped: they live as long as it does.
 *
 * A getter leaves *out as it is when the key is absent, and fails when the value is of another kind
 * or out of range; messages name the file and the key. Any thread. */
#ifndef INFERD_ENGINE_MODEL_GGUF_METADATA_H
#define INFERD_ENGINE_MODEL_GGUF_METADATA_H

#include "base/arena.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* As files number them. */
enum gguf_value_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    NUM_GGUF_VALUE_TYPES
};

/* Bytes of a file that were not read yet. */
struct gguf_cursor {
    const unsigned char *at, *end;
};

/* False when fewer bytes are left; the cursor then stays. */
bool gguf_cursor_u32(struct gguf_cursor *c, uint32_t *out);
bool gguf_cursor_u64(struct gguf_cursor *c, uint64_t *out);
/* A length and so many bytes; *text is not terminated. */
bool gguf_cursor_string(struct gguf_cursor *c, const char **text, size_t *len);

struct gguf_value {
    const char *key;
    enum gguf_value_type type, element_type; /* the second: of an array */
    uint64_t count;                          /* elements of an array; bytes of a string; else 1 */
    struct gguf_cursor data; /* from the first element, or the string's bytes, to its end */
};

struct gguf_metadata {
    const char *file;          /* for messages */
    struct gguf_value *values; /* by rising key, no key twice */
    size_t count;
};

/* Reads `count` pairs at `c`. Keys are copied to `names`. */
bool gguf_metadata_read(struct gguf_metadata *m, struct gguf_cursor *c, uint64_t count,
                        struct arena *names, struct status *st);
void gguf_metadata_free(struct gguf_metadata *m);

/* NULL when there is none of that key. */
const struct gguf_value *gguf_find(const struct gguf_metadata *m, const char *key);

/* Any integer type; a bool is none. */
bool gguf_get_int(const struct gguf_metadata *m, const char *key, int64_t min, int64_t max,
                  int64_t *out, struct status *st);
/* The same, or an array of them with one entry per layer, which must then be all the same. */
bool gguf_get_uniform_int(const struct gguf_metadata *m, const char *key, int64_t min, int64_t max,
                          int64_t *out, struct status *st);
/* A finite number of any type. */
bool gguf_get_float(const struct gguf_metadata *m, const char *key, double *out, struct status *st);
bool gguf_get_bool(const struct gguf_metadata *m, const char *key, bool *out, struct status *st);
/* UTF-8 without NUL; not terminated. */
bool gguf_get_string(const struct gguf_metadata *m, const char *key, const char **text, size_t *len,
                     struct status *st);

/* An array of strings, of integers (bools among them) or of floats (integers among them); *out is
 * NULL when the key is absent. */
bool gguf_get_array(const struct gguf_metadata *m, const char *key, enum gguf_value_type kind,
                    const struct gguf_value **out, struct status *st);
/* Element `i` of an array of numbers, i < count. */
int64_t gguf_array_int(const struct gguf_value *array, uint64_t i);
double gguf_array_float(const struct gguf_value *array, uint64_t i);
/* The next element of an array of strings, from a copy of its `data`. */
void gguf_array_next_string(struct gguf_cursor *c, const char **text, size_t *len);

#endif
