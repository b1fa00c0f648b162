/* jinja_access.c - attributes, subscripts and slices. `a.b` looks for an attribute first, then for
 * an item; `a['b']` the other way round. What is not there is undefined, not an error. */
#include "engine/text/jinja_interp.h"

#include <string.h>

/* An attribute in the sense of Python's getattr. */
static bool attribute(struct jinja_interp *in, struct jinja_value obj,
                      const struct jinja_string *name, struct jinja_value *out)
{
    const struct jinja_value *v;
    switch (obj.kind) {
    case JINJA_UNDEFINED:
        if (jinja_method(in, obj, name, out))
            return true;
        jinja_fail_undefined(&in->env, obj);
    case JINJA_NAMESPACE:
        v = jinja_dict_get_text(&in->env, obj.as.dict, name);
        if (v)
            *out = *v;
        return v != NULL;
    case JINJA_LOOP:
        return jinja_loop_attr(in, obj.as.loop, name, out);
    default:
        return jinja_method(in, obj, name, out);
    }
}

/* An index as Python takes it; false where it is out of range. */
static bool position(int64_t index, int64_t len, size_t *at)
{
    if (index < 0)
        index += len;
    *at = (size_t)index;
    return index >= 0 && index < len;
}

static bool item(struct jinja_interp *in, struct jinja_value obj, struct jinja_value key,
                 struct jinja_value *out)
{
    size_t at;
    const struct jinja_value *v;
    if (obj.kind == JINJA_DICT) {
        v = jinja_hashable(key) ? jinja_dict_get(&in->env, obj.as.dict, key) : NULL;
        if (v)
            *out = *v;
        return v != NULL;
    }
    if (!jinja_is_integral(key))
        return false;
    int64_t index = jinja_integer(key);
    switch (obj.kind) {
    case JINJA_LIST:
    case JINJA_TUPLE:
        if (!position(index, (int64_t)obj.as.list->len, &at))
            return false;
        *out = obj.as.list->items[at];
        return true;
    case JINJA_STRING:
        if (!position(index, (int64_t)obj.as.string->chars, &at))
            return false;
        *out = jinja_string(jinja_str_sub(&in->env, obj.as.string, at, at + 1));
        return true;
    case JINJA_RANGE:
        if (!position(index, obj.as.range->len, &at))
            return false;
        *out = jinja_int(obj.as.range->start + (int64_t)at * obj.as.range->step);
        return true;
    default:
        return false;
    }
}

struct jinja_value jinja_getattr(struct jinja_interp *in, struct jinja_value obj,
                                 const struct jinja_string *name)
{
    struct jinja_value v, key = jinja_string(name);
    if (attribute(in, obj, name, &v) || item(in, obj, key, &v))
        return v;
    return jinja_undefined_in(&in->env, obj, key);
}

struct jinja_value jinja_getitem(struct jinja_interp *in, struct jinja_value obj,
                                 struct jinja_value key)
{
    struct jinja_value v;
    if (obj.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, obj);
    if (item(in, obj, key, &v))
        return v;
    if (key.kind == JINJA_STRING && attribute(in, obj, key.as.string, &v))
        return v;
    return jinja_undefined_in(&in->env, obj, key);
}

struct span {
    int64_t start, step, len;
};

static int64_t clamp(int64_t i, int64_t low, int64_t high)
{
    return i < low ? low : i > high ? high : i;
}

static int64_t bound(struct jinja_interp *in, struct jinja_value v, int64_t missing)
{
    if (v.kind == JINJA_NONE || v.kind == JINJA_MISSING)
        return missing;
    if (!jinja_is_integral(v))
        jinja_fail(&in->env, "slice indices must be integers or None or have an __index__ method");
    return jinja_integer(v);
}

/* Python's slice.indices, and how many items come out. */
static struct span resolve(struct jinja_interp *in, const struct jinja_value bounds[3], int64_t len)
{
    int64_t step = bound(in, bounds[2], 1);
    if (step == 0)
        jinja_fail(&in->env, "slice step cannot be zero");
    if (step < -INT64_MAX)
        step = -INT64_MAX;
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? len - 1 : len;
    int64_t start = bound(in, bounds[0], step < 0 ? INT64_MAX : 0);
    int64_t stop = bound(in, bounds[1], step < 0 ? INT64_MIN : INT64_MAX);
    bool stop_given = bounds[1].kind != JINJA_NONE && bounds[1].kind != JINJA_MISSING;
    if (start < 0)
        start = start < -len ? low : start + len;
    if (stop < 0 && stop_given)
        stop = stop < -len ? low : stop + len;
    start = clamp(start, low, high);
    stop = clamp(stop, low, high);
    int64_t distance = step < 0 ? start - stop : stop - start, size = step < 0 ? -step : step;
    return (struct span){ start, step, distance <= 0 ? 0 : (distance - 1) / size + 1 };
}

static struct jinja_value slice_string(struct jinja_interp *in, const struct jinja_string *s,
                                       struct span span)
{
    struct jinja_env *e = &in->env;
    if (span.step == 1)
        return jinja_string(
            jinja_str_sub(e, s, (size_t)span.start, (size_t)(span.start + span.len)));
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    /* Walks the text once, from one taken character to the next, in either direction. */
    size_t at = jinja_str_offset(e, s, (size_t)(span.len ? span.start : 0)), n;
    for (int64_t i = 0; i < span.len; i++) {
        jinja_str_char(s, at, &n);
        jinja_sb_add(&sb, s->data + at, n);
        for (int64_t k = 0; i + 1 < span.len && k < (span.step < 0 ? -span.step : span.step); k++) {
            if (span.step > 0)
                jinja_str_char(s, at, &n);
            else
                jinja_str_char_before(s, at, &n);
            at = span.step > 0 ? at + n : at - n;
            jinja_charge(e, 1);
        }
    }
    return jinja_string(jinja_str_mark(e, jinja_sb_take(&sb), s->markup));
}

static struct jinja_value slice_list(struct jinja_interp *in, struct jinja_value obj,
                                     struct span span)
{
    const struct jinja_list *l = obj.as.list;
    jinja_charge(&in->env, 1 + (uint64_t)span.len / 4);
    if (span.step == 1) { /* nobody writes into a list: a part can share the whole */
        struct jinja_list *part = jinja_list_new(&in->env, 0);
        part->backing = NULL;
        part->items = l->items ? l->items + span.start : NULL;
        part->len = (size_t)span.len;
        obj.as.list = part;
        return obj;
    }
    struct jinja_list *part = jinja_list_new(&in->env, (size_t)span.len);
    for (int64_t i = 0; i < span.len; i++)
        jinja_list_push(&in->env, part, l->items[span.start + i * span.step]);
    obj.as.list = part;
    return obj;
}

struct jinja_value jinja_slice(struct jinja_interp *in, struct jinja_value obj,
                               const struct jinja_value bounds[3])
{
    struct jinja_range *r;
    struct span span;
    switch (obj.kind) {
    case JINJA_UNDEFINED:
        jinja_fail_undefined(&in->env, obj);
    case JINJA_STRING:
        return slice_string(in, obj.as.string, resolve(in, bounds, (int64_t)obj.as.string->chars));
    case JINJA_LIST:
    case JINJA_TUPLE:
        return slice_list(in, obj, resolve(in, bounds, (int64_t)obj.as.list->len));
    case JINJA_RANGE:
        span = resolve(in, bounds, obj.as.range->len);
        r = jinja_alloc(&in->env, sizeof *r);
        r->start = obj.as.range->start + span.start * obj.as.range->step;
        r->len = span.len;
        if (__builtin_mul_overflow(obj.as.range->step, span.step, &r->step) ||
            __builtin_mul_overflow(r->step, span.len, &r->stop) ||
            __builtin_add_overflow(r->stop, r->start, &r->stop))
            jinja_fail(&in->env, "the slice of this range does not fit 64-bit integers");
        return (struct jinja_value){ .kind = JINJA_RANGE, .as.range = r };
    case JINJA_DICT:
        jinja_fail(&in->env, "unhashable type: 'slice'");
    default:
        jinja_fail(&in->env, "'%s' object is not subscriptable", jinja_type_name(obj));
    }
}
