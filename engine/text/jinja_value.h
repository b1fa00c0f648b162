/* jinja_value.h - the values a template computes with, and how Python compares and orders them.
 *
 * A value is passed by value; what it points to lives in the render's arena (constants: in the
 * template's) and is immutable, except namespaces, iterators, loops, cyclers and joiners. */
#ifndef INFERD_ENGINE_TEXT_JINJA_VALUE_H
#define INFERD_ENGINE_TEXT_JINJA_VALUE_H

#include "engine/text/jinja_string.h"

enum jinja_kind {
    JINJA_MISSING, /* no value at all: an argument not given */
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_VIEW, /* dict.keys(), values() or items() */
    JINJA_RANGE,
    JINJA_ITERATOR, /* can be walked once */
    JINJA_NAMESPACE,
    JINJA_MACRO,
    JINJA_FUNCTION, /* a global, or a bound method */
    JINJA_LOOP,
    JINJA_CYCLER,
    JINJA_JOINER
};

struct jinja_value {
    enum jinja_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        const struct jinja_string *string;
        const struct jinja_undefined *undefined;
        struct jinja_list *list; /* LIST and TUPLE */
        struct jinja_dict *dict; /* DICT and NAMESPACE */
        const struct jinja_view *view;
        const struct jinja_range *range;
        struct jinja_iterator *iterator;
        struct jinja_macro *macro;
        const struct jinja_function *function;
        struct jinja_loop *loop;
        struct jinja_cycler *cycler;
        struct jinja_joiner *joiner;
    } as;
};

/* Why it is undefined, told when it is used: `hint`, else "obj has no attribute name", else
 * "name is undefined". */
struct jinja_undefined {
    const struct jinja_string *hint;
    struct jinja_value obj; /* MISSING: a name was looked up */
    struct jinja_value name;
};

struct jinja_list {
    struct jinja_value *items;
    size_t len;
    struct jinja_backing *backing;
    bool grouped; /* a tuple of `groupby`, with .grouper and .list */
};

struct jinja_entry {
    struct jinja_value key, value;
    uint64_t hash;
};

struct jinja_dict {
    struct jinja_entry *entries; /* in order of insertion */
    size_t len, cap;
    uint32_t *index; /* entry number + 1, 0: free; NULL while small */
    size_t index_cap;
};

enum jinja_view_of { JINJA_KEYS, JINJA_VALUES, JINJA_ITEMS };

struct jinja_view {
    enum jinja_view_of of;
    struct jinja_dict *dict;
};

struct jinja_range {
    int64_t start, stop, step;
    int64_t len;
};

struct jinja_lazy;

struct jinja_iterator {
    const char *type_name; /* "generator" and the like */
    struct jinja_list *list;
    size_t at;
    struct jinja_lazy *lazy; /* what makes `list` when the first item is asked for, or NULL */
};

struct jinja_cycler {
    struct jinja_list *items;
    size_t at;
};

struct jinja_joiner {
    const struct jinja_string *separator;
    bool used;
};

/* A walk over anything iterable. */
struct jinja_cursor {
    struct jinja_value over;
    size_t at;
};

static inline struct jinja_value jinja_missing(void)
{
    return (struct jinja_value){ .kind = JINJA_MISSING };
}
static inline struct jinja_value jinja_none(void)
{
    return (struct jinja_value){ .kind = JINJA_NONE };
}
static inline struct jinja_value jinja_bool(bool b)
{
    return (struct jinja_value){ .kind = JINJA_BOOL, .as.boolean = b };
}
static inline struct jinja_value jinja_int(int64_t i)
{
    return (struct jinja_value){ .kind = JINJA_INT, .as.integer = i };
}
static inline struct jinja_value jinja_float(double d)
{
    return (struct jinja_value){ .kind = JINJA_FLOAT, .as.real = d };
}
static inline struct jinja_value jinja_string(const struct jinja_string *s)
{
    return (struct jinja_value){ .kind = JINJA_STRING, .as.string = s };
}
static inline struct jinja_value jinja_list_value(struct jinja_list *l)
{
    return (struct jinja_value){ .kind = JINJA_LIST, .as.list = l };
}
static inline struct jinja_value jinja_tuple_value(struct jinja_list *l)
{
    return (struct jinja_value){ .kind = JINJA_TUPLE, .as.list = l };
}
static inline struct jinja_value jinja_dict_value(struct jinja_dict *d)
{
    return (struct jinja_value){ .kind = JINJA_DICT, .as.dict = d };
}
static inline bool jinja_is_number(struct jinja_value v)
{
    return v.kind == JINJA_INT || v.kind == JINJA_BOOL || v.kind == JINJA_FLOAT;
}
static inline bool jinja_is_integral(struct jinja_value v)
{
    return v.kind == JINJA_INT || v.kind == JINJA_BOOL;
}

struct jinja_value jinja_text(struct jinja_env *e, const char *literal);
struct jinja_value jinja_undefined_name(struct jinja_env *e, const struct jinja_string *name);
struct jinja_value jinja_undefined_hint(struct jinja_env *e, const char *hint);
struct jinja_value jinja_undefined_in(struct jinja_env *e, struct jinja_value obj,
                                      struct jinja_value name);
/* Leaves with the message that tells why `v`, which is undefined, is so. */
_Noreturn void jinja_fail_undefined(struct jinja_env *e, struct jinja_value v);
/* The name Python gives the type of `v`. */
const char *jinja_type_name(struct jinja_value v);

int64_t jinja_integer(struct jinja_value v); /* of an INT or BOOL */
double jinja_real(struct jinja_value v);     /* of a number */
bool jinja_truth(struct jinja_value v);
/* len(v), or -1 where Python has none. */
int64_t jinja_length(struct jinja_value v);

bool jinja_equal(struct jinja_env *e, struct jinja_value a, struct jinja_value b);
/* -1, 0, 1; 2 where neither holds (NaN). `op` names the operator in the error for types that
 * cannot be ordered. */
int jinja_order(struct jinja_env *e, struct jinja_value a, struct jinja_value b, const char *op);

struct jinja_list *jinja_list_new(struct jinja_env *e, size_t cap);
void jinja_list_push(struct jinja_env *e, struct jinja_list *l, struct jinja_value v);
struct jinja_list *jinja_list_concat(struct jinja_env *e, const struct jinja_list *a,
                                     const struct jinja_list *b);
struct jinja_value jinja_pair(struct jinja_env *e, struct jinja_value a, struct jinja_value b);

struct jinja_dict *jinja_dict_new(struct jinja_env *e, size_t cap);
/* Adds or replaces; fails where the key cannot be hashed. */
void jinja_dict_set(struct jinja_env *e, struct jinja_dict *d, struct jinja_value key,
                    struct jinja_value value);
/* NULL where there is no such key; fails where it cannot be hashed. */
const struct jinja_value *jinja_dict_get(struct jinja_env *e, const struct jinja_dict *d,
                                         struct jinja_value key);
const struct jinja_value *jinja_dict_get_text(struct jinja_env *e, const struct jinja_dict *d,
                                              const struct jinja_string *key);
bool jinja_hashable(struct jinja_value v);

struct jinja_value jinja_iterator_over(struct jinja_env *e, struct jinja_list *l,
                                       const char *type_name);
/* Starts a walk; fails with Python's message where `v` is not iterable. */
struct jinja_cursor jinja_iterate(struct jinja_env *e, struct jinja_value v);
bool jinja_is_iterable(struct jinja_value v);
bool jinja_next(struct jinja_env *e, struct jinja_cursor *c, struct jinja_value *out);
/* All items as a fresh list (a LIST or TUPLE is not copied). */
struct jinja_list *jinja_items_of(struct jinja_env *e, struct jinja_value v);

#endif
