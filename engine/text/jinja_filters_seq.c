/* jinja_filters_seq.c - filters on sequences and mappings.
 *
 * Where Jinja gives a generator, all items are computed when the first is asked for; it can be
 * walked once and has no length. */
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_repr.h"

#include <string.h>

/* item.path, where path is "a.b.0" or any single key; NONE or MISSING: the item itself. */
static struct jinja_value by_path(struct jinja_interp *in, struct jinja_value item,
                                  struct jinja_value path, struct jinja_value fallback)
{
    struct jinja_env *e = &in->env;
    if (path.kind == JINJA_NONE || path.kind == JINJA_MISSING)
        return item;
    size_t at = 0, end;
    bool more = true;
    while (more) {
        struct jinja_value key = path;
        more = false;
        if (path.kind == JINJA_STRING) {
            const struct jinja_string *s = path.as.string;
            const char *dot = s->len > at ? memchr(s->data + at, '.', s->len - at) : NULL;
            end = dot ? (size_t)(dot - s->data) : s->len;
            key = jinja_string(jinja_str_bytes(e, s, at, end));
            int64_t index = 0;
            bool digits = end > at && end - at < 18;
            for (size_t i = at; i < end; i++) {
                digits = digits && s->data[i] >= '0' && s->data[i] <= '9';
                index = digits ? index * 10 + (s->data[i] - '0') : 0;
            }
            if (digits)
                key = jinja_int(index);
            more = dot != NULL;
            at = end + 1;
        }
        item = jinja_getitem(in, item, key);
        if (item.kind == JINJA_UNDEFINED && fallback.kind != JINJA_MISSING &&
            fallback.kind != JINJA_NONE)
            item = fallback;
    }
    return item;
}

static struct jinja_value fold_case(struct jinja_interp *in, struct jinja_value v,
                                    bool case_sensitive)
{
    if (v.kind == JINJA_STRING && !case_sensitive)
        return jinja_string(jinja_str_lower(&in->env, v.as.string));
    return v;
}

static struct jinja_list *keys_of(struct jinja_interp *in, const struct jinja_list *items,
                                  struct jinja_value path, struct jinja_value fallback,
                                  bool case_sensitive)
{
    struct jinja_list *keys = jinja_list_new(&in->env, items->len);
    for (size_t i = 0; i < items->len; i++)
        jinja_list_push(
            &in->env, keys,
            fold_case(in, by_path(in, items->items[i], path, fallback), case_sensitive));
    return keys;
}

struct jinja_value jinja_f_length(struct jinja_interp *in, struct jinja_call *c)
{
    if (c->self.kind == JINJA_LOOP)
        return jinja_int(jinja_loop_length(in, c->self.as.loop));
    int64_t n = jinja_length(c->self);
    if (n < 0)
        jinja_fail(&in->env, "object of type '%s' has no len()", jinja_type_name(c->self));
    return jinja_int(n);
}

struct jinja_value jinja_f_list(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_list *all = jinja_items_of(&in->env, c->self), *copy;
    if (c->self.kind != JINJA_LIST && c->self.kind != JINJA_TUPLE)
        return jinja_list_value(all);
    copy = jinja_list_new(&in->env, all->len);
    for (size_t i = 0; i < all->len; i++)
        jinja_list_push(&in->env, copy, all->items[i]);
    return jinja_list_value(copy);
}

struct jinja_value jinja_f_first(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_cursor cursor = jinja_iterate(&in->env, c->self);
    struct jinja_value v;
    if (jinja_next(&in->env, &cursor, &v))
        return v;
    return jinja_undefined_hint(&in->env, "No first item, sequence was empty.");
}

static void need_reversible(struct jinja_interp *in, struct jinja_value v)
{
    if (!jinja_is_iterable(v) || v.kind == JINJA_ITERATOR)
        jinja_fail(&in->env, "'%s' object is not reversible", jinja_type_name(v));
}

struct jinja_value jinja_f_last(struct jinja_interp *in, struct jinja_call *c)
{
    need_reversible(in, c->self);
    if (c->self.kind == JINJA_STRING && c->self.as.string->len)
        return jinja_getitem(in, c->self, jinja_int(-1));
    const struct jinja_list *l = jinja_items_of(&in->env, c->self);
    if (l->len)
        return l->items[l->len - 1];
    return jinja_undefined_hint(&in->env, "No last item, sequence was empty.");
}

struct jinja_value jinja_f_reverse(struct jinja_interp *in, struct jinja_call *c)
{
    if (c->self.kind == JINJA_STRING) {
        struct jinja_value bounds[3] = { jinja_none(), jinja_none(), jinja_int(-1) };
        return jinja_slice(in, c->self, bounds);
    }
    if (!jinja_is_iterable(c->self))
        jinja_fail(&in->env, "argument must be iterable");
    const struct jinja_list *l = jinja_items_of(&in->env, c->self);
    struct jinja_list *out = jinja_list_new(&in->env, l->len);
    for (size_t i = l->len; i-- > 0;)
        jinja_list_push(&in->env, out, l->items[i]);
    if (c->self.kind == JINJA_ITERATOR)
        return jinja_list_value(out);
    return jinja_iterator_over(&in->env, out,
                               c->self.kind == JINJA_LIST    ? "list_reverseiterator"
                               : c->self.kind == JINJA_TUPLE ? "reversed"
                                                             : "reverse iterator");
}

struct jinja_value jinja_f_join(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_list *l = jinja_items_of(&in->env, c->self);
    if (jinja_arg_given(c, 1))
        l = keys_of(in, l, c->arg[1], jinja_missing(), true);
    const struct jinja_string *by = c->arg[0].kind == JINJA_MISSING
                                        ? jinja_str_literal(&in->env, "")
                                        : jinja_to_str(&in->env, c->arg[0]);
    return jinja_join(in, jinja_str_mark(&in->env, by, false), l);
}

static struct jinja_list *items_items(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_list *l = jinja_list_new(&in->env, 0);
    if (c->self.kind != JINJA_DICT && c->self.kind != JINJA_UNDEFINED)
        jinja_fail(&in->env, "Can only get item pairs from a mapping.");
    for (size_t i = 0; c->self.kind == JINJA_DICT && i < c->self.as.dict->len; i++) {
        const struct jinja_entry *entry = &c->self.as.dict->entries[i];
        jinja_list_push(&in->env, l, jinja_pair(&in->env, entry->key, entry->value));
        jinja_charge(&in->env, 1);
    }
    return l;
}

struct jinja_value jinja_f_dictsort(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    bool case_sensitive = jinja_arg_bool(c, 0, false), reverse = jinja_arg_bool(c, 2, false);
    const struct jinja_string *by = jinja_arg_str(in, c, 1, "key");
    bool by_value = jinja_str_is(by, "value");
    if (!by_value && !jinja_str_is(by, "key"))
        jinja_fail(e, "You can only sort by either \"key\" or \"value\"");
    if (c->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(e, c->self);
    if (c->self.kind != JINJA_DICT)
        jinja_fail(e, "'%s' object has no attribute 'items'", jinja_type_name(c->self));
    const struct jinja_dict *d = c->self.as.dict;
    struct jinja_list *items = jinja_list_new(e, d->len), *keys = jinja_list_new(e, d->len);
    for (size_t i = 0; i < d->len; i++) {
        const struct jinja_entry *entry = &d->entries[i];
        jinja_list_push(e, items, jinja_pair(e, entry->key, entry->value));
        jinja_list_push(e, keys,
                        fold_case(in, by_value ? entry->value : entry->key, case_sensitive));
    }
    return jinja_list_value(jinja_sorted(e, items, keys, reverse));
}

/* The list of values to sort by: one for each name in a path like "age,name". */
static struct jinja_value multi_key(struct jinja_interp *in, struct jinja_value item,
                                    struct jinja_value path, bool case_sensitive)
{
    struct jinja_env *e = &in->env;
    struct jinja_list *key = jinja_list_new(e, 1);
    const struct jinja_string *s = path.kind == JINJA_STRING ? path.as.string : NULL;
    bool more = true;
    for (size_t at = 0; more;) {
        struct jinja_value part = path;
        more = false;
        if (s) {
            const char *comma = s->len > at ? memchr(s->data + at, ',', s->len - at) : NULL;
            size_t end = comma ? (size_t)(comma - s->data) : s->len;
            part = jinja_string(jinja_str_bytes(e, s, at, end));
            more = comma != NULL;
            at = end + 1;
        }
        struct jinja_value v = by_path(in, item, part, jinja_missing());
        jinja_list_push(e, key, fold_case(in, v, case_sensitive));
    }
    return jinja_list_value(key);
}

struct jinja_value jinja_f_sort(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_list *items = jinja_items_of(&in->env, c->self);
    struct jinja_list *keys = jinja_list_new(&in->env, items->len);
    for (size_t i = 0; i < items->len; i++)
        jinja_list_push(&in->env, keys,
                        multi_key(in, items->items[i], c->arg[2], jinja_arg_bool(c, 1, false)));
    return jinja_list_value(jinja_sorted(&in->env, items, keys, jinja_arg_bool(c, 0, false)));
}

static struct jinja_list *unique_items(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_list *items = jinja_items_of(e, c->self), *out = jinja_list_new(e, 0);
    struct jinja_list *keys =
        keys_of(in, items, c->arg[1], jinja_missing(), jinja_arg_bool(c, 0, false));
    struct jinja_dict *seen = jinja_dict_new(e, 0);
    for (size_t i = 0; i < items->len; i++) {
        size_t before = seen->len;
        jinja_dict_set(e, seen, keys->items[i], jinja_none());
        if (seen->len > before)
            jinja_list_push(e, out, items->items[i]);
    }
    return out;
}

struct jinja_value jinja_f_groupby(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    bool case_sensitive = jinja_arg_bool(c, 2, false);
    struct jinja_list *items = jinja_items_of(e, c->self), *groups = jinja_list_new(e, 0);
    struct jinja_list *keys = keys_of(in, items, c->arg[0], c->arg[1], case_sensitive);
    items = jinja_sorted(e, items, keys, false);
    keys = jinja_sorted(e, keys, keys, false);
    for (size_t i = 0; i < items->len;) {
        struct jinja_list *members = jinja_list_new(e, 0), *group;
        size_t first = i;
        for (; i < items->len && jinja_equal(e, keys->items[first], keys->items[i]); i++)
            jinja_list_push(e, members, items->items[i]);
        if (i == first) /* NaN differs even from itself: a group of one */
            jinja_list_push(e, members, items->items[i++]);
        group = jinja_list_new(e, 2);
        jinja_list_push(e, group, by_path(in, members->items[0], c->arg[0], c->arg[1]));
        jinja_list_push(e, group, jinja_list_value(members));
        group->grouped = true;
        jinja_list_push(e, groups, jinja_tuple_value(group));
    }
    return jinja_list_value(groups);
}

static struct jinja_value extreme(struct jinja_interp *in, struct jinja_call *c, int wanted)
{
    struct jinja_list *items = jinja_items_of(&in->env, c->self);
    if (items->len == 0)
        return jinja_undefined_hint(&in->env, "No aggregated item, sequence was empty.");
    struct jinja_list *keys =
        keys_of(in, items, c->arg[1], jinja_missing(), jinja_arg_bool(c, 0, false));
    size_t best = 0;
    for (size_t i = 1; i < items->len; i++)
        if (jinja_order(&in->env, keys->items[i], keys->items[best], wanted < 0 ? "<" : ">") ==
            wanted)
            best = i;
    return items->items[best];
}

struct jinja_value jinja_f_min(struct jinja_interp *in, struct jinja_call *c)
{
    return extreme(in, c, -1);
}

struct jinja_value jinja_f_max(struct jinja_interp *in, struct jinja_call *c)
{
    return extreme(in, c, 1);
}

struct jinja_value jinja_f_sum(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_list *items = jinja_items_of(&in->env, c->self);
    struct jinja_value sum = c->arg[1].kind == JINJA_MISSING ? jinja_int(0) : c->arg[1];
    if (sum.kind == JINJA_STRING)
        jinja_fail(&in->env, "sum() can't sum strings [use ''.join(seq) instead]");
    if (jinja_arg_given(c, 0))
        items = keys_of(in, items, c->arg[0], jinja_missing(), true);
    for (size_t i = 0; i < items->len; i++)
        sum = jinja_binary(in, JINJA_OP_ADD, sum, items->items[i]);
    return sum;
}

static struct jinja_list *batch_items(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_list *items = jinja_items_of(e, c->self), *out = jinja_list_new(e, 0);
    int64_t size = jinja_arg_int(in, c, 0, 1);
    struct jinja_list *batch = jinja_list_new(e, 0);
    for (size_t i = 0; i < items->len; i++) {
        if ((int64_t)batch->len == size) {
            jinja_list_push(e, out, jinja_list_value(batch));
            batch = jinja_list_new(e, 0);
        }
        jinja_list_push(e, batch, items->items[i]);
    }
    if (batch->len) {
        while (jinja_arg_given(c, 1) && (int64_t)batch->len < size) {
            jinja_list_push(e, batch, c->arg[1]);
            jinja_charge(e, 1);
        }
        jinja_list_push(e, out, jinja_list_value(batch));
    }
    return out;
}

static struct jinja_list *slice_items(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_list *items = jinja_items_of(e, c->self), *out = jinja_list_new(e, 0);
    int64_t slices = jinja_arg_int(in, c, 0, 1), len = (int64_t)items->len;
    if (slices == 0)
        jinja_fail(e, "integer division or modulo by zero");
    for (int64_t i = 0, at = 0; i < slices; i++) {
        int64_t size = len / slices + (i < len % slices);
        struct jinja_list *part = jinja_list_new(e, 0);
        for (int64_t k = 0; k < size; k++)
            jinja_list_push(e, part, items->items[at++]);
        if (jinja_arg_given(c, 1) && i >= len % slices)
            jinja_list_push(e, part, c->arg[1]);
        jinja_list_push(e, out, jinja_list_value(part));
        jinja_charge(e, 1);
    }
    return out;
}

static _Noreturn void fail_name(struct jinja_interp *in, const char *kind, struct jinja_value name)
{
    const struct jinja_string *text = jinja_repr(&in->env, name);
    jinja_fail(&in->env, "No %s named %.*s.", kind, (int)(text->len > 100 ? 100 : text->len),
               text->data);
}

static struct jinja_list *map_items(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_value attribute = jinja_missing(), fallback = jinja_missing(), item;
    struct jinja_args rest = *c->args;
    const struct jinja_builtin *filter = NULL;
    struct jinja_list *out = jinja_list_new(e, 0);
    if (!jinja_truth(c->self) && c->self.kind != JINJA_ITERATOR)
        return out;
    const struct jinja_string *other = NULL;
    for (size_t i = 0; c->args->num_pos == 0 && i < c->args->num_kw; i++) {
        if (jinja_str_is(c->args->kw[i].name, "attribute"))
            attribute = c->args->kw[i].value;
        else if (jinja_str_is(c->args->kw[i].name, "default"))
            fallback = c->args->kw[i].value;
        else if (!other)
            other = c->args->kw[i].name;
    }
    if (attribute.kind != JINJA_MISSING && other)
        jinja_fail(e, "Unexpected keyword argument '%.*s'", (int)(other->len & 127), other->data);
    if (attribute.kind == JINJA_MISSING) {
        if (c->args->num_pos == 0)
            jinja_fail(e, "map requires a filter argument");
        struct jinja_value name = c->args->pos[0];
        filter = name.kind == JINJA_STRING ? jinja_find_filter(name.as.string) : NULL;
        if (!filter)
            fail_name(in, "filter", name);
        rest.pos++;
        rest.num_pos--;
    }
    struct jinja_cursor cursor = jinja_iterate(e, c->self);
    while (jinja_next(e, &cursor, &item))
        jinja_list_push(e, out,
                        filter ? jinja_call_builtin(in, filter, item, &rest)
                               : by_path(in, item, attribute, fallback));
    return out;
}

/* Items whose test, or truth, is `wanted`; `of_attribute`: the first argument names what of the
 * item is judged. */
static struct jinja_list *choose(struct jinja_interp *in, struct jinja_call *c, bool wanted,
                                 bool of_attribute)
{
    struct jinja_env *e = &in->env;
    struct jinja_list *out = jinja_list_new(e, 0);
    struct jinja_value path = jinja_missing(), item;
    struct jinja_args rest = *c->args;
    const struct jinja_builtin *test = NULL;
    if (!jinja_truth(c->self) && c->self.kind != JINJA_ITERATOR)
        return out;
    if (of_attribute) {
        if (rest.num_pos == 0)
            jinja_fail(e, "Missing parameter for attribute name");
        path = *rest.pos++;
        rest.num_pos--;
    }
    if (rest.num_pos > 0) {
        test = rest.pos->kind == JINJA_STRING ? jinja_find_test(rest.pos->as.string) : NULL;
        if (!test)
            fail_name(in, "test", *rest.pos);
        rest.pos++;
        rest.num_pos--;
    }
    struct jinja_cursor cursor = jinja_iterate(e, c->self);
    while (jinja_next(e, &cursor, &item)) {
        struct jinja_value judged = by_path(in, item, path, jinja_missing());
        bool yes = test ? jinja_call_test(in, test, judged, &rest) : jinja_truth(judged);
        if (yes == wanted)
            jinja_list_push(e, out, item);
    }
    return out;
}

static struct jinja_list *select_items(struct jinja_interp *in, struct jinja_call *c)
{
    return choose(in, c, true, false);
}

static struct jinja_list *reject_items(struct jinja_interp *in, struct jinja_call *c)
{
    return choose(in, c, false, false);
}

static struct jinja_list *selectattr_items(struct jinja_interp *in, struct jinja_call *c)
{
    return choose(in, c, true, true);
}

static struct jinja_list *rejectattr_items(struct jinja_interp *in, struct jinja_call *c)
{
    return choose(in, c, false, true);
}

#define GENERATOR(name)                                                                            \
    struct jinja_value jinja_f_##name(struct jinja_interp *in, struct jinja_call *c)               \
    {                                                                                              \
        return jinja_generator(in, c, name##_items);                                               \
    }
GENERATOR(batch)
GENERATOR(items)
GENERATOR(map)
GENERATOR(reject)
GENERATOR(rejectattr)
GENERATOR(select)
GENERATOR(selectattr)
GENERATOR(slice)
GENERATOR(unique)
