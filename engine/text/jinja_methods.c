/* jinja_methods.c - attributes of Python's own types: which names exist, which are refused, and the
 * methods of lists, tuples, dicts and numbers. */
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_repr.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct jinja_value sequence_index(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_list *l = c->self.as.list;
    int64_t len = (int64_t)l->len;
    int64_t from = jinja_arg_int(in, c, 1, 0), to = jinja_arg_int(in, c, 2, len);
    from = from < 0 ? (from + len < 0 ? 0 : from + len) : from;
    to = to < 0 ? to + len : to > len ? len : to;
    for (int64_t i = from; i < to; i++)
        if (jinja_equal(&in->env, l->items[i], c->arg[0]))
            return jinja_int(i);
    if (c->self.kind == JINJA_TUPLE)
        jinja_fail(&in->env, "tuple.index(x): x not in tuple");
    const struct jinja_string *what = jinja_repr(&in->env, c->arg[0]);
    jinja_fail(&in->env, "%.*s is not in list", (int)(what->len > 200 ? 200 : what->len),
               what->data);
}

static struct jinja_value sequence_count(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_list *l = c->self.as.list;
    int64_t n = 0;
    for (size_t i = 0; i < l->len; i++)
        n += jinja_equal(&in->env, l->items[i], c->arg[0]);
    return jinja_int(n);
}

static struct jinja_value list_copy(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_list *copy = jinja_list_new(&in->env, 0);
    const struct jinja_list *l = c->self.as.list;
    for (size_t i = 0; i < l->len; i++)
        jinja_list_push(&in->env, copy, l->items[i]);
    return jinja_list_value(copy);
}

static struct jinja_value dict_get(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_value *v = jinja_dict_get(&in->env, c->self.as.dict, c->arg[0]);
    if (v)
        return *v;
    return c->arg[1].kind == JINJA_MISSING ? jinja_none() : c->arg[1];
}

static struct jinja_value view_of(struct jinja_interp *in, const struct jinja_call *c,
                                  enum jinja_view_of of)
{
    struct jinja_view *view = jinja_alloc(&in->env, sizeof *view);
    *view = (struct jinja_view){ of, c->self.as.dict };
    return (struct jinja_value){ .kind = JINJA_VIEW, .as.view = view };
}

static struct jinja_value dict_keys(struct jinja_interp *in, struct jinja_call *c)
{
    return view_of(in, c, JINJA_KEYS);
}

static struct jinja_value dict_values(struct jinja_interp *in, struct jinja_call *c)
{
    return view_of(in, c, JINJA_VALUES);
}

static struct jinja_value dict_items(struct jinja_interp *in, struct jinja_call *c)
{
    return view_of(in, c, JINJA_ITEMS);
}

static struct jinja_value dict_copy(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_dict *d = c->self.as.dict;
    struct jinja_dict *copy = jinja_dict_new(&in->env, d->len);
    for (size_t i = 0; i < d->len; i++)
        jinja_dict_set(&in->env, copy, d->entries[i].key, d->entries[i].value);
    return jinja_dict_value(copy);
}

static struct jinja_value dict_fromkeys(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_dict *d = jinja_dict_new(&in->env, 0);
    struct jinja_cursor cursor = jinja_iterate(&in->env, c->arg[0]);
    struct jinja_value key;
    while (jinja_next(&in->env, &cursor, &key))
        jinja_dict_set(&in->env, d, key,
                       c->arg[1].kind == JINJA_MISSING ? jinja_none() : c->arg[1]);
    return jinja_dict_value(d);
}

static struct jinja_value float_is_integer(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(isfinite(c->self.as.real) && floor(c->self.as.real) == c->self.as.real);
}

static struct jinja_value int_bit_length(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    int64_t i = jinja_integer(c->self), bits = 0;
    for (uint64_t size = i < 0 ? 0 - (uint64_t)i : (uint64_t)i; size; size >>= 1)
        bits++;
    return jinja_int(bits);
}

static struct jinja_value cycler_next(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    struct jinja_cycler *cycler = c->self.as.cycler;
    struct jinja_value v = cycler->items->items[cycler->at];
    cycler->at = (cycler->at + 1) % cycler->items->len;
    return v;
}

static struct jinja_value cycler_reset(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    c->self.as.cycler->at = 0;
    return jinja_none();
}

static const struct jinja_builtin list_methods[] = {
    { "index", "!value start stop", sequence_index },
    { "count", "!value", sequence_count },
    { "copy", "", list_copy },
    { NULL, NULL, NULL },
};

static const struct jinja_builtin tuple_methods[] = {
    { "index", "!value start stop", sequence_index },
    { "count", "!value", sequence_count },
    { NULL, NULL, NULL },
};

static const struct jinja_builtin dict_methods[] = {
    { "get", "!key default", dict_get },
    { "items", "", dict_items },
    { "keys", "", dict_keys },
    { "values", "", dict_values },
    { "copy", "", dict_copy },
    { "fromkeys", "!iterable value", dict_fromkeys },
    { NULL, NULL, NULL },
};

static const struct jinja_builtin int_methods[] = {
    { "bit_length", "", int_bit_length },
    { NULL, NULL, NULL },
};

static const struct jinja_builtin float_methods[] = {
    { "is_integer", "", float_is_integer },
    { NULL, NULL, NULL },
};

static const struct jinja_builtin cycler_methods[] = {
    { "next", "", cycler_next },
    { "reset", "", cycler_reset },
    { NULL, NULL, NULL },
};

/* Names that the immutable sandbox refuses, because they would change the object. */
static const char *const dict_mutators[] = {
    "clear", "pop", "popitem", "setdefault", "update", NULL
};
static const char *const list_mutators[] = { "append", "clear",  "pop",    "reverse", "insert",
                                             "sort",   "extend", "remove", NULL };
/* Attributes that every Python object has; all that begin with an underscore are refused. */
static const char *const object_internals[] = {
    "__class__",   "__delattr__", "__dir__",           "__doc__",          "__eq__",
    "__format__",  "__ge__",      "__getattribute__",  "__getstate__",     "__gt__",
    "__hash__",    "__init__",    "__init_subclass__", "__le__",           "__lt__",
    "__ne__",      "__new__",     "__reduce__",        "__reduce_ex__",    "__repr__",
    "__setattr__", "__sizeof__",  "__str__",           "__subclasshook__", NULL,
};

static bool is_listed(const char *const *names, const struct jinja_string *name)
{
    for (; names && *names; names++)
        if (jinja_str_is(name, *names))
            return true;
    return false;
}

static struct jinja_value refused(struct jinja_interp *in, struct jinja_value obj,
                                  const struct jinja_string *name)
{
    char text[160];
    snprintf(text, sizeof text, "access to attribute '%.*s' of '%s' object is unsafe.",
             (int)(name->len > 60 ? 60 : name->len), name->data, jinja_type_name(obj));
    return jinja_undefined_hint(&in->env, text);
}

/* Attributes that are values, not methods. */
static bool value_attribute(struct jinja_interp *in, struct jinja_value obj,
                            const struct jinja_string *name, struct jinja_value *out)
{
    const struct jinja_node *n;
    switch (obj.kind) {
    case JINJA_TUPLE:
        if (!obj.as.list->grouped)
            return false;
        if (jinja_str_is(name, "grouper") || jinja_str_is(name, "list")) {
            *out = obj.as.list->items[jinja_str_is(name, "list")];
            return true;
        }
        return false;
    case JINJA_INT:
    case JINJA_BOOL:
    case JINJA_FLOAT:
        if (!jinja_str_is(name, "real"))
            return false;
        *out = obj.kind == JINJA_BOOL ? jinja_int(obj.as.boolean) : obj;
        return true;
    case JINJA_CYCLER:
        if (!jinja_str_is(name, "current"))
            return false;
        *out = obj.as.cycler->items->items[obj.as.cycler->at];
        return true;
    case JINJA_MACRO:
        n = obj.as.macro->node;
        if (jinja_str_is(name, "name")) {
            *out = n->name ? jinja_string(n->name) : jinja_none();
        } else if (jinja_str_is(name, "arguments")) {
            struct jinja_list *l = jinja_list_new(&in->env, n->items.len);
            for (size_t i = 0; i < n->items.len; i++)
                jinja_list_push(&in->env, l, jinja_string(n->items.at[i]->name));
            *out = jinja_tuple_value(l);
        } else if (jinja_str_is(name, "caller")) {
            *out = jinja_bool(n->uses & JINJA_USES_CALLER);
        } else if (jinja_str_is(name, "catch_kwargs")) {
            *out = jinja_bool(n->uses & JINJA_USES_KWARGS);
        } else if (jinja_str_is(name, "catch_varargs")) {
            *out = jinja_bool(n->uses & JINJA_USES_VARARGS);
        } else {
            return false;
        }
        return true;
    default:
        return false;
    }
}

static const struct jinja_builtin *methods_of(struct jinja_value obj, const char *const **mutators)
{
    switch (obj.kind) {
    case JINJA_STRING:
        return jinja_str_methods;
    case JINJA_LIST:
        *mutators = list_mutators;
        return list_methods;
    case JINJA_TUPLE:
        return tuple_methods;
    case JINJA_DICT:
        *mutators = dict_mutators;
        return dict_methods;
    case JINJA_INT:
    case JINJA_BOOL:
        return int_methods;
    case JINJA_FLOAT:
        return float_methods;
    case JINJA_CYCLER:
        return cycler_methods;
    default:
        return NULL;
    }
}

bool jinja_method(struct jinja_interp *in, struct jinja_value obj, const struct jinja_string *name,
                  struct jinja_value *out)
{
    const char *const *mutators = NULL;
    const struct jinja_builtin *row = methods_of(obj, &mutators);
    for (; row && row->name; row++) {
        if (jinja_str_is(name, row->name)) {
            *out = jinja_function_value(&in->env, row, obj);
            return true;
        }
    }
    if (value_attribute(in, obj, name, out))
        return true;
    bool internal = name->len > 4 && name->data[0] == '_' && is_listed(object_internals, name);
    if (is_listed(mutators, name) || internal)
        *out = refused(in, obj, name);
    return is_listed(mutators, name) || internal;
}
