/* jinja_eval.c - expressions. */
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"

#include <stdio.h>

struct jinja_value jinja_lookup(struct jinja_interp *in, const struct jinja_scope *s,
                                const struct jinja_string *name, const struct jinja_builtin *global)
{
    for (; s; s = s->parent) {
        jinja_charge(&in->env, 1 + s->len / 16);
        for (size_t i = 0; i < s->len; i++)
            if (s->vars[i].name == name)
                return s->vars[i].value;
    }
    const struct jinja_value *v = jinja_dict_get_text(&in->env, in->variables, name);
    if (v)
        return *v;
    return global ? jinja_function_value(&in->env, global, jinja_missing()) : jinja_missing();
}

static struct jinja_value eval_name(struct jinja_interp *in, struct jinja_scope *s,
                                    const struct jinja_node *n)
{
    struct jinja_value v = jinja_lookup(in, s, n->name, n->builtin);
    return v.kind == JINJA_MISSING ? jinja_undefined_name(&in->env, n->name) : v;
}

static struct jinja_value eval_list(struct jinja_interp *in, struct jinja_scope *s,
                                    const struct jinja_node *n)
{
    struct jinja_list *l = jinja_list_new(&in->env, n->items.len);
    for (size_t i = 0; i < n->items.len; i++)
        jinja_list_push(&in->env, l, jinja_eval(in, s, n->items.at[i]));
    return n->kind == JINJA_N_LIST ? jinja_list_value(l) : jinja_tuple_value(l);
}

static struct jinja_value eval_dict(struct jinja_interp *in, struct jinja_scope *s,
                                    const struct jinja_node *n)
{
    struct jinja_dict *d = jinja_dict_new(&in->env, n->items.len);
    for (size_t i = 0; i < n->items.len; i++) {
        const struct jinja_node *pair = n->items.at[i];
        struct jinja_value key = jinja_eval(in, s, pair->a);
        jinja_dict_set(&in->env, d, key, jinja_eval(in, s, pair->b));
    }
    return jinja_dict_value(d);
}

static struct jinja_value eval_getitem(struct jinja_interp *in, struct jinja_scope *s,
                                       const struct jinja_node *n)
{
    struct jinja_value obj = jinja_eval(in, s, n->a);
    if (n->b->kind != JINJA_N_SLICE) {
        struct jinja_value key = jinja_eval(in, s, n->b);
        in->env.line = n->line;
        return jinja_getitem(in, obj, key);
    }
    const struct jinja_node *parts[3] = { n->b->a, n->b->b, n->b->c };
    struct jinja_value bounds[3];
    for (int i = 0; i < 3; i++)
        bounds[i] = parts[i] ? jinja_eval(in, s, parts[i]) : jinja_none();
    in->env.line = n->line;
    return jinja_slice(in, obj, bounds);
}

static void push_kwarg(struct jinja_interp *in, struct jinja_args *args, size_t cap,
                       const struct jinja_string *name, struct jinja_value value)
{
    for (size_t i = 0; i < args->num_kw; i++)
        if (jinja_str_equal(args->kw[i].name, name))
            jinja_fail(&in->env, "got multiple values for keyword argument '%.*s'",
                       (int)(name->len > 100 ? 100 : name->len), name->data);
    jinja_charge(&in->env, 1 + args->num_kw / 8);
    if (args->num_kw < cap)
        args->kw[args->num_kw++] = (struct jinja_kwarg){ name, value };
}

/* Evaluates the arguments of a call, filter or test. */
static struct jinja_args eval_args(struct jinja_interp *in, struct jinja_scope *s,
                                   const struct jinja_node *n, struct jinja_value caller)
{
    struct jinja_args args = { 0 };
    struct jinja_list *pos = jinja_list_new(&in->env, n->items.len);
    for (size_t i = 0; i < n->items.len; i++)
        jinja_list_push(&in->env, pos, jinja_eval(in, s, n->items.at[i]));
    if (n->b) {
        struct jinja_cursor c = jinja_iterate(&in->env, jinja_eval(in, s, n->b));
        struct jinja_value item;
        while (jinja_next(&in->env, &c, &item))
            jinja_list_push(&in->env, pos, item);
    }
    args.pos = pos->items;
    args.num_pos = pos->len;
    if (n->kwargs.len == 0 && !n->c && caller.kind == JINJA_MISSING)
        return args;
    struct jinja_value more = n->c ? jinja_eval(in, s, n->c) : jinja_missing();
    if (n->c && more.kind != JINJA_DICT)
        jinja_fail(&in->env, "argument after ** must be a mapping, not %s", jinja_type_name(more));
    size_t cap = n->kwargs.len + (n->c ? more.as.dict->len : 0) + 1;
    args.kw = jinja_array(&in->env, cap, sizeof args.kw[0]);
    for (size_t i = 0; i < n->kwargs.len; i++)
        push_kwarg(in, &args, cap, n->kwargs.at[i]->name, jinja_eval(in, s, n->kwargs.at[i]->a));
    for (size_t i = 0; n->c && i < more.as.dict->len; i++) {
        const struct jinja_entry *entry = &more.as.dict->entries[i];
        if (entry->key.kind != JINJA_STRING)
            jinja_fail(&in->env, "keywords must be strings");
        push_kwarg(in, &args, cap, entry->key.as.string, entry->value);
    }
    if (caller.kind != JINJA_MISSING)
        push_kwarg(in, &args, cap, in->tmpl->name_caller, caller);
    return args;
}

struct jinja_value jinja_eval_call(struct jinja_interp *in, struct jinja_scope *s,
                                   const struct jinja_node *n, struct jinja_value caller)
{
    struct jinja_value callee = jinja_eval(in, s, n->a);
    struct jinja_args args = eval_args(in, s, n, caller);
    in->env.line = n->line;
    struct jinja_value v = jinja_call_value(in, callee, &args);
    in->env.line = n->line;
    return v;
}

static struct jinja_value eval_filter(struct jinja_interp *in, struct jinja_scope *s,
                                      const struct jinja_node *n)
{
    struct jinja_value value = n->a ? jinja_eval(in, s, n->a) : in->block_text;
    struct jinja_args args = eval_args(in, s, n, jinja_missing());
    in->env.line = n->line;
    if (!n->builtin)
        jinja_fail(&in->env, "No %s named '%.*s' found.",
                   n->kind == JINJA_N_FILTER ? "filter" : "test",
                   (int)(n->name->len > 100 ? 100 : n->name->len), n->name->data);
    return jinja_call_builtin(in, n->builtin, value, &args);
}

static struct jinja_value eval_cond(struct jinja_interp *in, struct jinja_scope *s,
                                    const struct jinja_node *n)
{
    if (jinja_truth(jinja_eval(in, s, n->b)))
        return jinja_eval(in, s, n->a);
    if (n->c)
        return jinja_eval(in, s, n->c);
    char hint[120];
    snprintf(hint, sizeof hint,
             "the inline if-expression on line %d evaluated to false and no else section was "
             "defined.",
             n->line);
    return jinja_undefined_hint(&in->env, hint);
}

static struct jinja_value eval_logic(struct jinja_interp *in, struct jinja_scope *s,
                                     const struct jinja_node *n)
{
    struct jinja_value a = jinja_eval(in, s, n->a);
    return jinja_truth(a) == (n->kind == JINJA_N_OR) ? a : jinja_eval(in, s, n->b);
}

static struct jinja_value eval_text_sum(struct jinja_interp *in, struct jinja_scope *s,
                                        const struct jinja_node *n)
{
    const struct jinja_string *sum = jinja_to_str(&in->env, jinja_eval(in, s, n->items.at[0]));
    for (size_t i = 1; i < n->items.len; i++)
        sum = jinja_str_concat(&in->env, sum,
                               jinja_to_str(&in->env, jinja_eval(in, s, n->items.at[i])));
    return jinja_string(jinja_str_mark(&in->env, sum, false));
}

static struct jinja_value eval_compare(struct jinja_interp *in, struct jinja_scope *s,
                                       const struct jinja_node *n)
{
    struct jinja_value left = jinja_eval(in, s, n->a);
    for (size_t i = 0; i < n->items.len; i++) {
        const struct jinja_node *operand = n->items.at[i];
        struct jinja_value right = jinja_eval(in, s, operand->a);
        in->env.line = n->line;
        if (!jinja_compare(in, operand->op, left, right))
            return jinja_bool(false);
        left = right;
    }
    return jinja_bool(true);
}

static struct jinja_value eval_unary(struct jinja_interp *in, struct jinja_scope *s,
                                     const struct jinja_node *n)
{
    struct jinja_value v = jinja_eval(in, s, n->a);
    if (n->kind == JINJA_N_NOT)
        return jinja_bool(!jinja_truth(v));
    if (n->kind == JINJA_N_NEG)
        return jinja_negate(in, v);
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, v);
    if (!jinja_is_number(v))
        jinja_fail(&in->env, "bad operand type for unary +: '%s'", jinja_type_name(v));
    return v.kind == JINJA_BOOL ? jinja_int(v.as.boolean) : v;
}

static struct jinja_value eval_binary(struct jinja_interp *in, struct jinja_scope *s,
                                      const struct jinja_node *n)
{
    struct jinja_value a = jinja_eval(in, s, n->a), b = jinja_eval(in, s, n->b);
    in->env.line = n->line;
    return jinja_binary(in, n->op, a, b);
}

static struct jinja_value eval_node(struct jinja_interp *in, struct jinja_scope *s,
                                    const struct jinja_node *n)
{
    switch (n->kind) {
    case JINJA_N_CONST:
        return n->value;
    case JINJA_N_NAME:
        return eval_name(in, s, n);
    case JINJA_N_LIST:
    case JINJA_N_TUPLE:
        return eval_list(in, s, n);
    case JINJA_N_DICT:
        return eval_dict(in, s, n);
    case JINJA_N_GETATTR:
        return jinja_getattr(in, jinja_eval(in, s, n->a), n->name);
    case JINJA_N_GETITEM:
        return eval_getitem(in, s, n);
    case JINJA_N_CALL:
        return jinja_eval_call(in, s, n, jinja_missing());
    case JINJA_N_FILTER:
    case JINJA_N_TEST:
        return eval_filter(in, s, n);
    case JINJA_N_COND:
        return eval_cond(in, s, n);
    case JINJA_N_AND:
    case JINJA_N_OR:
        return eval_logic(in, s, n);
    case JINJA_N_NOT:
    case JINJA_N_NEG:
    case JINJA_N_POS:
        return eval_unary(in, s, n);
    case JINJA_N_BINARY:
        return eval_binary(in, s, n);
    case JINJA_N_TEXT_SUM:
        return eval_text_sum(in, s, n);
    case JINJA_N_COMPARE:
        return eval_compare(in, s, n);
    default:
        jinja_fail(&in->env, "this cannot be evaluated as an expression");
    }
}

struct jinja_value jinja_eval(struct jinja_interp *in, struct jinja_scope *s,
                              const struct jinja_node *n)
{
    jinja_enter(&in->env);
    jinja_charge(&in->env, 1);
    in->env.line = n->line;
    struct jinja_value v = eval_node(in, s, n);
    jinja_leave(&in->env);
    return v;
}
