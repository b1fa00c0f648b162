/* jinja_value.c - undefined values, truth, equality and order. */
#include "engine/text/jinja_value.h"
#include "engine/text/jinja_call.h"
#include "engine/text/jinja_repr.h"

#include <math.h>
#include <string.h>

struct jinja_value jinja_text(struct jinja_env *e, const char *literal)
{
    return jinja_string(jinja_str_literal(e, literal));
}

static struct jinja_value undefined(struct jinja_env *e, const struct jinja_string *hint,
                                    struct jinja_value obj, struct jinja_value name)
{
    struct jinja_undefined *u = jinja_alloc(e, sizeof *u);
    *u = (struct jinja_undefined){ hint, obj, name };
    return (struct jinja_value){ .kind = JINJA_UNDEFINED, .as.undefined = u };
}

struct jinja_value jinja_undefined_name(struct jinja_env *e, const struct jinja_string *name)
{
    return undefined(e, NULL, jinja_missing(), jinja_string(name));
}

struct jinja_value jinja_undefined_hint(struct jinja_env *e, const char *hint)
{
    return undefined(e, jinja_str(e, hint, strlen(hint)), jinja_missing(), jinja_missing());
}

struct jinja_value jinja_undefined_in(struct jinja_env *e, struct jinja_value obj,
                                      struct jinja_value name)
{
    return undefined(e, NULL, obj, name);
}

/* How Jinja names the object a lookup failed on. */
static const char *object_name(struct jinja_value v)
{
    switch (v.kind) {
    case JINJA_NAMESPACE:
        return "jinja2.utils.Namespace";
    case JINJA_CYCLER:
        return "jinja2.utils.Cycler";
    case JINJA_JOINER:
        return "jinja2.utils.Joiner";
    case JINJA_LOOP:
        return "jinja2.runtime.LoopContext";
    case JINJA_MACRO:
        return "jinja2.runtime.Macro";
    case JINJA_STRING:
        return v.as.string->markup ? "markupsafe.Markup" : "str";
    case JINJA_TUPLE:
        return v.as.list->grouped ? "jinja2.filters._GroupTuple" : "tuple";
    default:
        return jinja_type_name(v);
    }
}

_Noreturn void jinja_fail_undefined(struct jinja_env *e, struct jinja_value v)
{
    const struct jinja_undefined *u = v.as.undefined;
    if (u->hint)
        jinja_fail(e, "%.*s", (int)(u->hint->len > 2000 ? 2000 : u->hint->len), u->hint->data);
    const struct jinja_string *name = jinja_repr(e, u->name);
    int n = (int)(name->len > 300 ? 300 : name->len);
    if (u->obj.kind == JINJA_MISSING)
        jinja_fail(e, "%.*s is undefined", n, name->data);
    bool none = u->obj.kind == JINJA_NONE;
    const char *type = none ? "None" : object_name(u->obj), *suffix = none ? "" : " object";
    if (u->name.kind == JINJA_STRING)
        jinja_fail(e, "'%s%s' has no attribute %.*s", type, suffix, n, name->data);
    jinja_fail(e, "%s%s has no element %.*s", type, suffix, n, name->data);
}

const char *jinja_type_name(struct jinja_value v)
{
    static const char *const names[] = {
        [JINJA_MISSING] = "object", [JINJA_UNDEFINED] = "Undefined",
        [JINJA_NONE] = "NoneType",  [JINJA_BOOL] = "bool",
        [JINJA_INT] = "int",        [JINJA_FLOAT] = "float",
        [JINJA_LIST] = "list",      [JINJA_DICT] = "dict",
        [JINJA_RANGE] = "range",    [JINJA_NAMESPACE] = "Namespace",
        [JINJA_MACRO] = "Macro",    [JINJA_LOOP] = "LoopContext",
        [JINJA_CYCLER] = "Cycler",  [JINJA_JOINER] = "Joiner",
    };
    static const char *const views[] = { "dict_keys", "dict_values", "dict_items" };
    switch (v.kind) {
    case JINJA_STRING:
        return v.as.string->markup ? "Markup" : "str";
    case JINJA_TUPLE:
        return v.as.list->grouped ? "_GroupTuple" : "tuple";
    case JINJA_VIEW:
        return views[v.as.view->of];
    case JINJA_ITERATOR:
        return v.as.iterator->type_name;
    case JINJA_FUNCTION:
        return v.as.function->self.kind == JINJA_MISSING ? "function"
                                                         : "builtin_function_or_method";
    default:
        return names[v.kind];
    }
}

int64_t jinja_integer(struct jinja_value v)
{
    return v.kind == JINJA_BOOL ? v.as.boolean : v.as.integer;
}

double jinja_real(struct jinja_value v)
{
    return v.kind == JINJA_FLOAT ? v.as.real : (double)jinja_integer(v);
}

int64_t jinja_length(struct jinja_value v)
{
    switch (v.kind) {
    case JINJA_UNDEFINED:
        return 0;
    case JINJA_STRING:
        return (int64_t)v.as.string->chars;
    case JINJA_LIST:
    case JINJA_TUPLE:
        return (int64_t)v.as.list->len;
    case JINJA_DICT:
        return (int64_t)v.as.dict->len;
    case JINJA_VIEW:
        return (int64_t)v.as.view->dict->len;
    case JINJA_RANGE:
        return v.as.range->len;
    default:
        return -1;
    }
}

bool jinja_truth(struct jinja_value v)
{
    switch (v.kind) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v.as.boolean;
    case JINJA_INT:
        return v.as.integer != 0;
    case JINJA_FLOAT:
        return v.as.real != 0;
    default:
        return jinja_length(v) != 0;
    }
}

/* Exact, where converting the integer would round. */
static int order_int_float(int64_t i, double d)
{
    if (isnan(d))
        return 2;
    if (d >= 9223372036854775808.0)
        return -1;
    if (d < -9223372036854775808.0)
        return 1;
    int64_t whole = (int64_t)d;
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = d - (double)whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

static int order_numbers(struct jinja_value a, struct jinja_value b)
{
    if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT) {
        int64_t x = jinja_integer(a), y = jinja_integer(b);
        return x < y ? -1 : x > y;
    }
    if (a.kind != JINJA_FLOAT)
        return order_int_float(jinja_integer(a), b.as.real);
    if (b.kind != JINJA_FLOAT) {
        int order = order_int_float(jinja_integer(b), a.as.real);
        return order == 2 ? 2 : -order;
    }
    if (isnan(a.as.real) || isnan(b.as.real))
        return 2;
    return a.as.real < b.as.real ? -1 : a.as.real > b.as.real;
}

/* Python's `is`, as far as it can be seen. */
static bool same_object(struct jinja_value a, struct jinja_value b)
{
    return a.kind == b.kind && a.kind >= JINJA_LIST && a.as.list == b.as.list;
}

static bool equal_lists(struct jinja_env *e, const struct jinja_list *a, const struct jinja_list *b)
{
    if (a->len != b->len)
        return false;
    for (size_t i = 0; i < a->len; i++)
        if (!jinja_equal(e, a->items[i], b->items[i]))
            return false;
    return true;
}

static bool equal_dicts(struct jinja_env *e, const struct jinja_dict *a, const struct jinja_dict *b)
{
    if (a->len != b->len)
        return false;
    for (size_t i = 0; i < a->len; i++) {
        const struct jinja_value *other = jinja_dict_get(e, b, a->entries[i].key);
        if (!other || !jinja_equal(e, a->entries[i].value, *other))
            return false;
    }
    return true;
}

static bool equal_ranges(const struct jinja_range *a, const struct jinja_range *b)
{
    return a->len == b->len && (a->len == 0 || a->start == b->start) &&
           (a->len <= 1 || a->step == b->step);
}

static bool equal_views(struct jinja_env *e, const struct jinja_view *a, const struct jinja_view *b)
{
    if (a->of != b->of || a->of == JINJA_VALUES || a->dict->len != b->dict->len)
        return false;
    if (a->of == JINJA_ITEMS)
        return equal_dicts(e, a->dict, b->dict);
    for (size_t i = 0; i < a->dict->len; i++)
        if (!jinja_dict_get(e, b->dict, a->dict->entries[i].key))
            return false;
    return true;
}

bool jinja_equal(struct jinja_env *e, struct jinja_value a, struct jinja_value b)
{
    jinja_charge(e, 1);
    if (jinja_is_number(a) && jinja_is_number(b))
        return order_numbers(a, b) == 0;
    if (a.kind != b.kind)
        return false;
    if (same_object(a, b))
        return true;
    jinja_enter(e);
    bool equal = false;
    switch (a.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        equal = true;
        break;
    case JINJA_STRING:
        if (a.as.string->len == b.as.string->len)
            jinja_charge_bytes(e, a.as.string->len);
        equal = jinja_str_equal(a.as.string, b.as.string);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        equal = equal_lists(e, a.as.list, b.as.list);
        break;
    case JINJA_DICT:
        equal = equal_dicts(e, a.as.dict, b.as.dict);
        break;
    case JINJA_RANGE:
        equal = equal_ranges(a.as.range, b.as.range);
        break;
    case JINJA_VIEW:
        equal = equal_views(e, a.as.view, b.as.view);
        break;
    default:
        break;
    }
    jinja_leave(e);
    return equal;
}

static int order_lists(struct jinja_env *e, const struct jinja_list *a, const struct jinja_list *b,
                       const char *op)
{
    size_t n = a->len < b->len ? a->len : b->len;
    for (size_t i = 0; i < n; i++)
        if (!jinja_equal(e, a->items[i], b->items[i]))
            return jinja_order(e, a->items[i], b->items[i], op);
    return a->len < b->len ? -1 : a->len > b->len;
}

int jinja_order(struct jinja_env *e, struct jinja_value a, struct jinja_value b, const char *op)
{
    jinja_charge(e, 1);
    if (a.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(e, a);
    if (b.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(e, b);
    if (jinja_is_number(a) && jinja_is_number(b))
        return order_numbers(a, b);
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING) {
        size_t n = a.as.string->len < b.as.string->len ? a.as.string->len : b.as.string->len;
        jinja_charge_bytes(e, n);
        return jinja_str_compare(a.as.string, b.as.string);
    }
    if (a.kind != b.kind || (a.kind != JINJA_LIST && a.kind != JINJA_TUPLE))
        jinja_fail(e, "'%s' not supported between instances of '%s' and '%s'", op,
                   jinja_type_name(a), jinja_type_name(b));
    jinja_enter(e);
    int order = order_lists(e, a.as.list, b.as.list, op);
    jinja_leave(e);
    return order;
}
