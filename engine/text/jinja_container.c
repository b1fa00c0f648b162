/* jinja_container.c - lists, dicts, and walks over what is iterable. */
#include "engine/text/jinja_call.h"
#include "base/hash.h"
#include "base/rng.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

enum { SMALL_DICT = 8 }; /* up to here keys are compared one by one */

struct jinja_list *jinja_list_new(struct jinja_env *e, size_t cap)
{
    struct jinja_list *l = jinja_alloc(e, sizeof *l);
    struct jinja_backing *backing = jinja_alloc(e, sizeof *backing);
    if (cap) {
        l->items = jinja_array(e, cap, sizeof l->items[0]);
        backing->cap = cap * sizeof l->items[0];
    }
    backing->data = (char *)l->items;
    l->backing = backing;
    return l;
}

/* Room for `more` items behind the last: in place where this list owns the end of its backing. */
static void list_reserve(struct jinja_env *e, struct jinja_list *l, size_t more)
{
    size_t used = l->len * sizeof l->items[0], need = more * sizeof l->items[0];
    struct jinja_backing *b = l->backing;
    bool owns_end =
        b && l->items && (char *)l->items == b->data && used == b->used && b->cap - used >= need;
    if (owns_end)
        return;
    size_t cap = (l->len + more) * 2;
    if (cap < 4)
        cap = 4;
    jinja_charge(e, 1 + l->len / 4);
    struct jinja_value *items = jinja_array(e, cap, sizeof items[0]);
    if (l->len)
        memcpy(items, l->items, used);
    b = jinja_alloc(e, sizeof *b);
    *b = (struct jinja_backing){ (char *)items, used, cap * sizeof items[0] };
    l->items = items;
    l->backing = b;
}

void jinja_list_push(struct jinja_env *e, struct jinja_list *l, struct jinja_value v)
{
    list_reserve(e, l, 1);
    l->items[l->len++] = v;
    l->backing->used += sizeof v;
}

struct jinja_list *jinja_list_concat(struct jinja_env *e, const struct jinja_list *a,
                                     const struct jinja_list *b)
{
    jinja_charge(e, 1 + b->len / 4);
    struct jinja_list *sum = jinja_alloc(e, sizeof *sum);
    sum->items = a->items;
    sum->len = a->len;
    sum->backing = a->backing;
    if (b->len == 0) {
        sum->backing = NULL; /* two lists must not both think they own the end */
        return sum;
    }
    list_reserve(e, sum, b->len);
    memcpy(sum->items + sum->len, b->items, b->len * sizeof b->items[0]);
    sum->len += b->len;
    sum->backing->used += b->len * sizeof b->items[0];
    return sum;
}

struct jinja_value jinja_pair(struct jinja_env *e, struct jinja_value a, struct jinja_value b)
{
    struct jinja_list *l = jinja_list_new(e, 2);
    jinja_list_push(e, l, a);
    jinja_list_push(e, l, b);
    return jinja_tuple_value(l);
}

static struct hash_key process_key;

static void make_process_key(void)
{
    rng_system(&process_key, sizeof process_key);
}

/* Keyed, so that a request cannot be made of keys that collide. */
static uint64_t hash_bytes(const void *data, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_process_key);
    return hash_sip128(process_key, data, len).low;
}

bool jinja_hashable(struct jinja_value v)
{
    if (v.kind == JINJA_TUPLE) {
        for (size_t i = 0; i < v.as.list->len; i++)
            if (!jinja_hashable(v.as.list->items[i]))
                return false;
    }
    return v.kind != JINJA_LIST && v.kind != JINJA_DICT && v.kind != JINJA_VIEW;
}

static uint64_t hash_value(struct jinja_env *e, struct jinja_value v)
{
    int64_t number;
    uint64_t hash = 0;
    switch (v.kind) {
    case JINJA_STRING:
        jinja_charge_bytes(e, v.as.string->len);
        return hash_bytes(v.as.string->data, v.as.string->len);
    case JINJA_BOOL:
    case JINJA_INT:
        number = jinja_integer(v);
        return hash_bytes(&number, sizeof number);
    case JINJA_FLOAT: /* equal numbers hash alike, whatever their type */
        if (fabs(v.as.real) < 9e18 && v.as.real == (double)(int64_t)v.as.real) {
            number = (int64_t)v.as.real;
            return hash_bytes(&number, sizeof number);
        }
        return hash_bytes(&v.as.real, sizeof v.as.real);
    case JINJA_TUPLE:
        jinja_enter(e);
        for (size_t i = 0; i < v.as.list->len; i++)
            hash = hash * 31 + hash_value(e, v.as.list->items[i]);
        jinja_leave(e);
        return hash;
    case JINJA_LIST:
    case JINJA_DICT:
    case JINJA_VIEW:
        jinja_fail(e, "unhashable type: '%s'", jinja_type_name(v));
    case JINJA_NONE:
    case JINJA_UNDEFINED:
        return v.kind;
    default:
        return hash_bytes(&v.as.list, sizeof v.as.list);
    }
}

struct jinja_dict *jinja_dict_new(struct jinja_env *e, size_t cap)
{
    struct jinja_dict *d = jinja_alloc(e, sizeof *d);
    if (cap) {
        d->entries = jinja_array(e, cap, sizeof d->entries[0]);
        d->cap = cap;
    }
    return d;
}

static void index_put(struct jinja_dict *d, size_t entry)
{
    size_t mask = d->index_cap - 1, at = (size_t)d->entries[entry].hash & mask;
    while (d->index[at])
        at = (at + 1) & mask;
    d->index[at] = (uint32_t)entry + 1;
}

static void index_grow(struct jinja_env *e, struct jinja_dict *d)
{
    size_t cap = 32;
    while (cap < d->len * 4)
        cap *= 2;
    d->index = jinja_array(e, cap, sizeof d->index[0]);
    d->index_cap = cap;
    for (size_t i = 0; i < d->len; i++) {
        d->entries[i].hash = hash_value(e, d->entries[i].key);
        index_put(d, i);
    }
}

/* The entry number of `key`, or -1. */
static int64_t dict_find(struct jinja_env *e, const struct jinja_dict *d, struct jinja_value key)
{
    if (!d->index) {
        if (!jinja_hashable(key))
            jinja_fail(e, "unhashable type: '%s'", jinja_type_name(key));
        for (size_t i = 0; i < d->len; i++)
            if (jinja_equal(e, d->entries[i].key, key))
                return (int64_t)i;
        return -1;
    }
    uint64_t hash = hash_value(e, key);
    size_t mask = d->index_cap - 1;
    for (size_t at = (size_t)hash & mask; d->index[at]; at = (at + 1) & mask) {
        const struct jinja_entry *entry = &d->entries[d->index[at] - 1];
        if (entry->hash == hash && jinja_equal(e, entry->key, key))
            return d->index[at] - 1;
        jinja_charge(e, 1);
    }
    return -1;
}

void jinja_dict_set(struct jinja_env *e, struct jinja_dict *d, struct jinja_value key,
                    struct jinja_value value)
{
    int64_t at = dict_find(e, d, key);
    if (at >= 0) {
        d->entries[at].value = value;
        return;
    }
    if (d->len == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct jinja_entry *entries = jinja_array(e, cap, sizeof entries[0]);
        if (d->len)
            memcpy(entries, d->entries, d->len * sizeof entries[0]);
        d->entries = entries;
        d->cap = cap;
    }
    d->entries[d->len] = (struct jinja_entry){ .key = key, .value = value };
    d->len++;
    if (d->len <= SMALL_DICT)
        return;
    if (d->len * 2 > d->index_cap) {
        index_grow(e, d);
    } else {
        d->entries[d->len - 1].hash = hash_value(e, key);
        index_put(d, d->len - 1);
    }
}

const struct jinja_value *jinja_dict_get(struct jinja_env *e, const struct jinja_dict *d,
                                         struct jinja_value key)
{
    int64_t at = dict_find(e, d, key);
    return at < 0 ? NULL : &d->entries[at].value;
}

const struct jinja_value *jinja_dict_get_text(struct jinja_env *e, const struct jinja_dict *d,
                                              const struct jinja_string *key)
{
    return jinja_dict_get(e, d, jinja_string(key));
}

struct jinja_value jinja_iterator_over(struct jinja_env *e, struct jinja_list *l,
                                       const char *type_name)
{
    struct jinja_iterator *it = jinja_alloc(e, sizeof *it);
    it->list = l;
    it->type_name = type_name;
    return (struct jinja_value){ .kind = JINJA_ITERATOR, .as.iterator = it };
}

bool jinja_is_iterable(struct jinja_value v)
{
    switch (v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_STRING:
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
    case JINJA_VIEW:
    case JINJA_RANGE:
    case JINJA_ITERATOR:
        return true;
    default:
        return false;
    }
}

struct jinja_cursor jinja_iterate(struct jinja_env *e, struct jinja_value v)
{
    if (!jinja_is_iterable(v))
        jinja_fail(e, "'%s' object is not iterable", jinja_type_name(v));
    return (struct jinja_cursor){ .over = v };
}

static bool next_entry(struct jinja_env *e, const struct jinja_dict *d, enum jinja_view_of of,
                       size_t at, struct jinja_value *out)
{
    if (at >= d->len)
        return false;
    const struct jinja_entry *entry = &d->entries[at];
    *out = of == JINJA_KEYS     ? entry->key
           : of == JINJA_VALUES ? entry->value
                                : jinja_pair(e, entry->key, entry->value);
    return true;
}

static bool next_char(struct jinja_env *e, struct jinja_cursor *c, struct jinja_value *out)
{
    const struct jinja_string *s = c->over.as.string;
    if (c->at >= s->len)
        return false;
    size_t n;
    jinja_str_char(s, c->at, &n);
    *out = jinja_string(jinja_str_mark(e, jinja_str_bytes(e, s, c->at, c->at + n), false));
    c->at += n;
    return true;
}

bool jinja_next(struct jinja_env *e, struct jinja_cursor *c, struct jinja_value *out)
{
    jinja_charge(e, 1);
    struct jinja_value v = c->over;
    switch (v.kind) {
    case JINJA_STRING:
        return next_char(e, c, out);
    case JINJA_LIST:
    case JINJA_TUPLE:
        if (c->at >= v.as.list->len)
            return false;
        *out = v.as.list->items[c->at++];
        return true;
    case JINJA_DICT:
        return next_entry(e, v.as.dict, JINJA_KEYS, c->at++, out);
    case JINJA_VIEW:
        return next_entry(e, v.as.view->dict, v.as.view->of, c->at++, out);
    case JINJA_RANGE:
        if ((int64_t)c->at >= v.as.range->len)
            return false;
        *out = jinja_int(v.as.range->start + (int64_t)c->at++ * v.as.range->step);
        return true;
    case JINJA_ITERATOR:
        if (v.as.iterator->lazy)
            jinja_force(v.as.iterator);
        if (v.as.iterator->at >= v.as.iterator->list->len)
            return false;
        *out = v.as.iterator->list->items[v.as.iterator->at++];
        return true;
    default:
        return false;
    }
}

struct jinja_list *jinja_items_of(struct jinja_env *e, struct jinja_value v)
{
    if (v.kind == JINJA_LIST || v.kind == JINJA_TUPLE)
        return v.as.list;
    struct jinja_list *l = jinja_list_new(e, 0);
    struct jinja_cursor c = jinja_iterate(e, v);
    struct jinja_value item;
    while (jinja_next(e, &c, &item))
        jinja_list_push(e, l, item);
    return l;
}
