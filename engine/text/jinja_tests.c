/* jinja_tests.c - what may stand behind `is`. */
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"

#include <string.h>

static struct jinja_value t_defined(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind != JINJA_UNDEFINED);
}

static struct jinja_value t_undefined(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_UNDEFINED);
}

static struct jinja_value t_none(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_NONE);
}

static struct jinja_value t_boolean(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_BOOL);
}

static struct jinja_value t_true(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_BOOL && c->self.as.boolean);
}

static struct jinja_value t_false(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_BOOL && !c->self.as.boolean);
}

static struct jinja_value t_integer(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_INT);
}

static struct jinja_value t_float(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_FLOAT);
}

static struct jinja_value t_number(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(jinja_is_number(c->self));
}

static struct jinja_value t_string(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_STRING);
}

static struct jinja_value t_mapping(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_DICT);
}

/* What has a length and can be subscripted; an undefined value passes for one in Jinja. */
static struct jinja_value t_sequence(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    switch (c->self.kind) {
    case JINJA_UNDEFINED:
    case JINJA_STRING:
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
    case JINJA_RANGE:
        return jinja_bool(true);
    default:
        return jinja_bool(false);
    }
}

static struct jinja_value t_iterable(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(jinja_is_iterable(c->self) || c->self.kind == JINJA_LOOP);
}

static struct jinja_value t_callable(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    switch (c->self.kind) {
    case JINJA_UNDEFINED:
    case JINJA_MACRO:
    case JINJA_FUNCTION:
    case JINJA_LOOP:
    case JINJA_JOINER:
        return jinja_bool(true);
    default:
        return jinja_bool(false);
    }
}

static struct jinja_value t_escaped(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_STRING && c->self.as.string->markup);
}

static struct jinja_value t_sameas(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_value a = c->self, b = c->arg[0];
    if (a.kind != b.kind)
        return jinja_bool(false);
    switch (a.kind) {
    case JINJA_NONE:
        return jinja_bool(true);
    case JINJA_BOOL:
    case JINJA_INT:
        return jinja_bool(jinja_integer(a) == jinja_integer(b));
    case JINJA_FLOAT:
        return jinja_bool(a.as.real == b.as.real);
    case JINJA_STRING: /* equal texts are mostly the same object in Python, too */
        return jinja_bool(jinja_equal(&in->env, a, b));
    default:
        return jinja_bool(a.as.list == b.as.list);
    }
}

static struct jinja_value remainder_of(struct jinja_interp *in, struct jinja_value a,
                                       struct jinja_value b)
{
    return jinja_binary(in, JINJA_OP_MOD, a, b);
}

static struct jinja_value t_odd(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_value r = remainder_of(in, c->self, jinja_int(2));
    return jinja_bool(jinja_equal(&in->env, r, jinja_int(1)));
}

static struct jinja_value t_even(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_value r = remainder_of(in, c->self, jinja_int(2));
    return jinja_bool(jinja_equal(&in->env, r, jinja_int(0)));
}

static struct jinja_value t_divisibleby(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_value r = remainder_of(in, c->self, c->arg[0]);
    return jinja_bool(jinja_equal(&in->env, r, jinja_int(0)));
}

static struct jinja_value t_lower(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_bool(jinja_str_is_lower(jinja_to_str(&in->env, c->self)));
}

static struct jinja_value t_upper(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_bool(jinja_str_is_upper(jinja_to_str(&in->env, c->self)));
}

static struct jinja_value t_filter(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_STRING && jinja_find_filter(c->self.as.string));
}

static struct jinja_value t_test(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(c->self.kind == JINJA_STRING && jinja_find_test(c->self.as.string));
}

static struct jinja_value t_in(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_bool(jinja_contains(in, c->self, c->arg[0]));
}

#define COMPARISON(name, op)                                                                       \
    static struct jinja_value name(struct jinja_interp *in, struct jinja_call *c)                  \
    {                                                                                              \
        return jinja_bool(jinja_compare(in, op, c->self, c->arg[0]));                              \
    }
COMPARISON(t_eq, JINJA_OP_EQ)
COMPARISON(t_ne, JINJA_OP_NE)
COMPARISON(t_lt, JINJA_OP_LT)
COMPARISON(t_le, JINJA_OP_LE)
COMPARISON(t_gt, JINJA_OP_GT)
COMPARISON(t_ge, JINJA_OP_GE)

static const struct jinja_builtin tests[] = {
    { "defined", "", t_defined },
    { "undefined", "", t_undefined },
    { "none", "", t_none },
    { "boolean", "", t_boolean },
    { "true", "", t_true },
    { "false", "", t_false },
    { "integer", "", t_integer },
    { "float", "", t_float },
    { "number", "", t_number },
    { "string", "", t_string },
    { "mapping", "", t_mapping },
    { "sequence", "", t_sequence },
    { "iterable", "", t_iterable },
    { "callable", "", t_callable },
    { "escaped", "", t_escaped },
    { "sameas", "!other", t_sameas },
    { "odd", "", t_odd },
    { "even", "", t_even },
    { "divisibleby", "!num", t_divisibleby },
    { "lower", "", t_lower },
    { "upper", "", t_upper },
    { "filter", "", t_filter },
    { "test", "", t_test },
    { "in", "!seq", t_in },
    { "==", "!b", t_eq },
    { "eq", "!b", t_eq },
    { "equalto", "!b", t_eq },
    { "!=", "!b", t_ne },
    { "ne", "!b", t_ne },
    { "<", "!b", t_lt },
    { "lt", "!b", t_lt },
    { "lessthan", "!b", t_lt },
    { "<=", "!b", t_le },
    { "le", "!b", t_le },
    { ">", "!b", t_gt },
    { "gt", "!b", t_gt },
    { "greaterthan", "!b", t_gt },
    { ">=", "!b", t_ge },
    { "ge", "!b", t_ge },
};

const struct jinja_builtin *jinja_find_test(const struct jinja_string *name)
{
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        if (jinja_str_is(name, tests[i].name))
            return &tests[i];
    return NULL;
}
