/* jinja_ops.c - the operators, as Python defines them for its own types. */
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"

#include <math.h>
#include <string.h>

static const char *const symbols[] = { "+", "-", "*", "/", "//", "%", "** or pow()" };

struct jinja_value jinja_checked_int(struct jinja_interp *in, bool overflow, int64_t value)
{
    if (overflow)
        jinja_fail(&in->env, "the result does not fit a 64-bit integer");
    return jinja_int(value);
}

static _Noreturn void fail_types(struct jinja_interp *in, enum jinja_op op, struct jinja_value a,
                                 struct jinja_value b)
{
    jinja_fail(&in->env, "unsupported operand type(s) for %s: '%s' and '%s'", symbols[op],
               jinja_type_name(a), jinja_type_name(b));
}

static const struct jinja_string *escaped(struct jinja_interp *in, const struct jinja_string *s)
{
    return s->markup ? s : jinja_escape(in, jinja_string(s));
}

static struct jinja_value add(struct jinja_interp *in, struct jinja_value a, struct jinja_value b)
{
    struct jinja_env *e = &in->env;
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING) {
        const struct jinja_string *x = a.as.string, *y = b.as.string;
        if (x->markup == y->markup)
            return jinja_string(jinja_str_mark(e, jinja_str_concat(e, x, y), x->markup));
        const struct jinja_string *sum = jinja_str_concat(e, escaped(in, x), escaped(in, y));
        return jinja_string(jinja_str_mark(e, sum, true));
    }
    if (a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE)) {
        struct jinja_value sum = a;
        sum.as.list = jinja_list_concat(e, a.as.list, b.as.list);
        return sum;
    }
    if (a.kind == JINJA_STRING && !a.as.string->markup)
        jinja_fail(e, "can only concatenate str (not \"%s\") to str", jinja_type_name(b));
    if (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE)
        jinja_fail(e, "can only concatenate %s (not \"%s\") to %s", jinja_type_name(a),
                   jinja_type_name(b), jinja_type_name(a));
    fail_types(in, JINJA_OP_ADD, a, b);
}

static struct jinja_value repeat(struct jinja_interp *in, struct jinja_value seq, int64_t times)
{
    struct jinja_env *e = &in->env;
    size_t n = times > 0 ? (size_t)times : 0;
    if (seq.kind == JINJA_STRING) {
        const struct jinja_string *s = seq.as.string;
        if (s->len && n > e->max_bytes / s->len)
            jinja_array(e, n, s->len); /* fails with the limit's message */
        struct jinja_sb sb;
        jinja_sb_init(&sb, e);
        if (s->len == 1)
            jinja_sb_fill(&sb, (unsigned char)s->data[0], n);
        for (size_t i = 0; s->len > 1 && i < n; i++)
            jinja_sb_str(&sb, s);
        return jinja_string(jinja_str_mark(e, jinja_sb_take(&sb), s->markup));
    }
    const struct jinja_list *l = seq.as.list;
    if (l->len && n > e->max_bytes / l->len)
        jinja_array(e, n, l->len * sizeof l->items[0]);
    struct jinja_list *product = jinja_list_new(e, l->len * n);
    for (size_t i = 0; l->len && i < n; i++) {
        jinja_charge(e, 1 + l->len / 4);
        for (size_t k = 0; k < l->len; k++)
            jinja_list_push(e, product, l->items[k]);
    }
    seq.as.list = product;
    return seq;
}

static bool is_sequence(struct jinja_value v)
{
    return v.kind == JINJA_STRING || v.kind == JINJA_LIST || v.kind == JINJA_TUPLE;
}

static struct jinja_value multiply(struct jinja_interp *in, struct jinja_value a,
                                   struct jinja_value b)
{
    if (is_sequence(a) && jinja_is_integral(b))
        return repeat(in, a, jinja_integer(b));
    if (is_sequence(b) && jinja_is_integral(a))
        return repeat(in, b, jinja_integer(a));
    if (is_sequence(a) || is_sequence(b))
        jinja_fail(&in->env, "can't multiply sequence by non-int of type '%s'",
                   jinja_type_name(is_sequence(a) ? b : a));
    fail_types(in, JINJA_OP_MUL, a, b);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static struct jinja_value int_power(struct jinja_interp *in, int64_t base, int64_t exponent)
{
    if (exponent < 0) {
        if (base == 0)
            jinja_fail(&in->env, "0.0 cannot be raised to a negative power");
        return jinja_float(pow((double)base, (double)exponent));
    }
    int64_t result = 1;
    bool overflow = false, square_overflow = false;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1)
            overflow |= square_overflow || __builtin_mul_overflow(result, base, &result);
        square_overflow |= __builtin_mul_overflow(base, base, &base);
    }
    return jinja_checked_int(in, overflow, result);
}

static struct jinja_value int_op(struct jinja_interp *in, enum jinja_op op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool overflow;
    switch (op) {
    case JINJA_OP_ADD:
        overflow = __builtin_add_overflow(a, b, &r);
        return jinja_checked_int(in, overflow, r);
    case JINJA_OP_SUB:
        overflow = __builtin_sub_overflow(a, b, &r);
        return jinja_checked_int(in, overflow, r);
    case JINJA_OP_MUL:
        overflow = __builtin_mul_overflow(a, b, &r);
        return jinja_checked_int(in, overflow, r);
    case JINJA_OP_POW:
        return int_power(in, a, b);
    default:
        break;
    }
    if (b == 0)
        jinja_fail(&in->env, op == JINJA_OP_DIV   ? "division by zero"
                             : op == JINJA_OP_MOD ? "integer modulo by zero"
                                                  : "integer division or modulo by zero");
    if (op == JINJA_OP_DIV)
        return jinja_float((double)a / (double)b);
    if (b == -1) { /* the one divisor whose quotient can leave 64 bits */
        overflow = __builtin_sub_overflow((int64_t)0, a, &r) && op != JINJA_OP_MOD;
        return jinja_checked_int(in, overflow, op == JINJA_OP_MOD ? 0 : r);
    }
    int64_t q = floor_div(a, b);
    return jinja_int(op == JINJA_OP_MOD ? a - q * b : q);
}

static double float_mod(double a, double b)
{
    double r = fmod(a, b);
    if (r != 0)
        return (r < 0) != (b < 0) ? r + b : r;
    return copysign(0.0, b);
}

static struct jinja_value float_op(struct jinja_interp *in, enum jinja_op op, double a, double b)
{
    struct jinja_env *e = &in->env;
    double r, mod;
    switch (op) {
    case JINJA_OP_ADD:
        return jinja_float(a + b);
    case JINJA_OP_SUB:
        return jinja_float(a - b);
    case JINJA_OP_MUL:
        return jinja_float(a * b);
    case JINJA_OP_DIV:
        if (b == 0)
            jinja_fail(e, "float division by zero");
        return jinja_float(a / b);
    case JINJA_OP_FLOORDIV:
        if (b == 0)
            jinja_fail(e, "float floor division by zero");
        mod = fmod(a, b);
        r = (a - mod) / b;
        if (mod != 0 && (b < 0) != (mod < 0))
            r -= 1;
        if (r == 0)
            return jinja_float(copysign(0.0, a / b));
        return jinja_float(r - floor(r) > 0.5 ? floor(r) + 1 : floor(r));
    case JINJA_OP_MOD:
        if (b == 0)
            jinja_fail(e, "float modulo");
        return jinja_float(float_mod(a, b));
    default:
        if (a == 0 && b < 0)
            jinja_fail(e, "0.0 cannot be raised to a negative power");
        if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
            jinja_fail(e, "the power is a complex number, which templates do not have");
        r = pow(a, b);
        if (isinf(r) && isfinite(a) && isfinite(b))
            jinja_fail(e, "(34, 'Numerical result out of range')");
        return jinja_float(r);
    }
}

struct jinja_value jinja_binary(struct jinja_interp *in, enum jinja_op op, struct jinja_value a,
                                struct jinja_value b)
{
    if (op == JINJA_OP_MOD && a.kind == JINJA_STRING)
        return jinja_percent_format(in, a.as.string, b);
    if (a.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, a);
    if (b.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, b);
    if (jinja_is_integral(a) && jinja_is_integral(b))
        return int_op(in, op, jinja_integer(a), jinja_integer(b));
    if (jinja_is_number(a) && jinja_is_number(b))
        return float_op(in, op, jinja_real(a), jinja_real(b));
    if (op == JINJA_OP_ADD)
        return add(in, a, b);
    if (op == JINJA_OP_MUL)
        return multiply(in, a, b);
    fail_types(in, op, a, b);
}

struct jinja_value jinja_negate(struct jinja_interp *in, struct jinja_value v)
{
    int64_t r;
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, v);
    if (v.kind == JINJA_FLOAT)
        return jinja_float(-v.as.real);
    if (!jinja_is_integral(v))
        jinja_fail(&in->env, "bad operand type for unary -: '%s'", jinja_type_name(v));
    bool overflow = __builtin_sub_overflow((int64_t)0, jinja_integer(v), &r);
    return jinja_checked_int(in, overflow, r);
}

static bool range_contains(const struct jinja_range *r, struct jinja_value item)
{
    int64_t i;
    if (jinja_is_integral(item))
        i = jinja_integer(item);
    else if (item.kind == JINJA_FLOAT && fabs(item.as.real) < 9e18 &&
             item.as.real == (double)(int64_t)item.as.real)
        i = (int64_t)item.as.real;
    else
        return false;
    /* A range has at most 100,000 items within 64 bits, but the distance may overflow. */
    __int128 distance = (__int128)i - r->start;
    return distance % r->step == 0 && distance / r->step >= 0 && distance / r->step < r->len;
}

static bool pair_in_dict(struct jinja_env *e, const struct jinja_dict *d, struct jinja_value item)
{
    if (item.kind != JINJA_TUPLE || item.as.list->len != 2)
        return false;
    const struct jinja_value *v = jinja_dict_get(e, d, item.as.list->items[0]);
    return v && jinja_equal(e, *v, item.as.list->items[1]);
}

bool jinja_contains(struct jinja_interp *in, struct jinja_value item, struct jinja_value in_what)
{
    struct jinja_env *e = &in->env;
    struct jinja_value next;
    switch (in_what.kind) {
    case JINJA_STRING:
        if (item.kind != JINJA_STRING)
            jinja_fail(e, "'in <string>' requires string as left operand, not %s",
                       jinja_type_name(item));
        return jinja_str_find(e, in_what.as.string, item.as.string, 0, in_what.as.string->len) >= 0;
    case JINJA_DICT:
        return jinja_dict_get(e, in_what.as.dict, item) != NULL;
    case JINJA_RANGE:
        return range_contains(in_what.as.range, item);
    case JINJA_VIEW:
        if (in_what.as.view->of == JINJA_KEYS)
            return jinja_dict_get(e, in_what.as.view->dict, item) != NULL;
        if (in_what.as.view->of == JINJA_ITEMS)
            return pair_in_dict(e, in_what.as.view->dict, item);
        break;
    default:
        if (!jinja_is_iterable(in_what))
            jinja_fail(e, "argument of type '%s' is not iterable", jinja_type_name(in_what));
    }
    struct jinja_cursor c = jinja_iterate(e, in_what);
    while (jinja_next(e, &c, &next))
        if (jinja_equal(e, next, item))
            return true;
    return false;
}

bool jinja_compare(struct jinja_interp *in, enum jinja_op op, struct jinja_value a,
                   struct jinja_value b)
{
    struct jinja_env *e = &in->env;
    int order;
    switch (op) {
    case JINJA_OP_EQ:
        return jinja_equal(e, a, b);
    case JINJA_OP_NE:
        return !jinja_equal(e, a, b);
    case JINJA_OP_IN:
        return jinja_contains(in, a, b);
    case JINJA_OP_NOT_IN:
        return !jinja_contains(in, a, b);
    case JINJA_OP_LT:
        return jinja_order(e, a, b, "<") == -1;
    case JINJA_OP_GT:
        return jinja_order(e, a, b, ">") == 1;
    case JINJA_OP_LE:
        order = jinja_order(e, a, b, "<=");
        return order == -1 || order == 0;
    default:
        order = jinja_order(e, a, b, ">=");
        return order == 1 || order == 0;
    }
}
