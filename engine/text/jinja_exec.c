/* jinja_exec.c - statements: scopes, loops, macros and what captures text. */
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"

#include <string.h>

struct jinja_scope *jinja_scope_new(struct jinja_interp *in, struct jinja_scope *parent)
{
    struct jinja_scope *s = jinja_alloc(&in->env, sizeof *s);
    s->parent = parent;
    return s;
}

void jinja_scope_set(struct jinja_interp *in, struct jinja_scope *s,
                     const struct jinja_string *name, struct jinja_value value)
{
    jinja_charge(&in->env, 1 + s->len / 16);
    for (size_t i = 0; i < s->len; i++) {
        if (s->vars[i].name == name) {
            s->vars[i].value = value;
            return;
        }
    }
    if (s->len == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 4;
        struct jinja_var *grown = jinja_array(&in->env, cap, sizeof grown[0]);
        if (s->len)
            memcpy(grown, s->vars, s->len * sizeof grown[0]);
        s->vars = grown;
        s->cap = cap;
    }
    s->vars[s->len++] = (struct jinja_var){ name, value };
}

/* What was made in `s` keeps it, and all around it, from being reused. */
static void capture_scope(struct jinja_scope *s)
{
    for (; s && !s->captured; s = s->parent)
        s->captured = true;
}

struct jinja_sb *jinja_capture_begin(struct jinja_interp *in, struct jinja_sb *sb)
{
    struct jinja_sb *before = in->out;
    jinja_sb_init(sb, &in->env);
    in->out = sb;
    return before;
}

const struct jinja_string *jinja_capture_end(struct jinja_interp *in, struct jinja_sb *before)
{
    const struct jinja_string *text = jinja_sb_take(in->out);
    in->out = before;
    return text;
}

static void print(struct jinja_interp *in, const struct jinja_string *s)
{
    jinja_sb_str(in->out, s);
    if (in->out == in->main_out && in->out->len > in->max_output_bytes)
        jinja_fail(&in->env, "the template writes more than its limit of %zu bytes",
                   in->max_output_bytes);
}

static void unpack(struct jinja_interp *in, struct jinja_scope *s, const struct jinja_node *target,
                   struct jinja_value value)
{
    if (!jinja_is_iterable(value))
        jinja_fail(&in->env, "cannot unpack non-iterable %s object", jinja_type_name(value));
    size_t want = target->items.len, got = 0;
    struct jinja_value *items = jinja_array(&in->env, want, sizeof items[0]), item;
    struct jinja_cursor c = jinja_iterate(&in->env, value);
    while (jinja_next(&in->env, &c, &item)) {
        if (got == want)
            jinja_fail(&in->env, "too many values to unpack (expected %zu)", want);
        items[got++] = item;
    }
    if (got < want)
        jinja_fail(&in->env, "not enough values to unpack (expected %zu, got %zu)", want, got);
    for (size_t i = 0; i < want; i++)
        jinja_assign(in, s, target->items.at[i], items[i]);
}

void jinja_assign(struct jinja_interp *in, struct jinja_scope *s, const struct jinja_node *target,
                  struct jinja_value value)
{
    jinja_enter(&in->env);
    if (target->kind == JINJA_N_NAME) {
        jinja_scope_set(in, s, target->name, value);
    } else if (target->kind == JINJA_N_TUPLE) {
        unpack(in, s, target, value);
    } else {
        struct jinja_value ns = jinja_lookup(in, s, target->name, NULL);
        if (ns.kind != JINJA_NAMESPACE)
            jinja_fail(&in->env, "cannot assign attribute on non-namespace object");
        jinja_dict_set(&in->env, ns.as.dict, target->value, value);
    }
    jinja_leave(&in->env);
}

/* Jinja makes sure of every namespace in a target before it computes the value. */
static void check_namespaces(struct jinja_interp *in, struct jinja_scope *s,
                             const struct jinja_node *target)
{
    jinja_enter(&in->env);
    if (target->kind == JINJA_N_NSREF &&
        jinja_lookup(in, s, target->name, NULL).kind != JINJA_NAMESPACE)
        jinja_fail(&in->env, "cannot assign attribute on non-namespace object");
    for (size_t i = 0; i < target->items.len; i++)
        check_namespaces(in, s, target->items.at[i]);
    jinja_leave(&in->env);
}

/* The body once per item. As in Jinja, the `else` runs unless some item reached the body's end. */
static void run_loop(struct jinja_interp *in, struct jinja_scope *s, const struct jinja_node *n,
                     struct jinja_value over, int64_t depth0)
{
    struct jinja_loop *loop = jinja_loop_new(in, n, s, over, depth0);
    struct jinja_value item, loop_value = { .kind = JINJA_LOOP, .as.loop = loop };
    struct jinja_scope *body = NULL;
    bool completed = false;
    if (n->flag)
        capture_scope(s);
    while (jinja_loop_next(in, loop, &item)) {
        if (!body || body->captured)
            body = jinja_scope_new(in, s);
        body->len = 0;
        jinja_assign(in, body, n->a, item);
        jinja_scope_set(in, body, in->tmpl->name_loop, loop_value);
        enum jinja_flow flow = jinja_exec(in, body, &n->body);
        if (flow == JINJA_BREAK)
            break;
        if (flow == JINJA_NEXT)
            completed = true;
    }
    if (!completed && n->orelse.len)
        jinja_exec(in, jinja_scope_new(in, s), &n->orelse);
}

struct jinja_value jinja_call_loop(struct jinja_interp *in, struct jinja_loop *l,
                                   struct jinja_value items)
{
    if (!l->node->flag)
        jinja_fail(&in->env, "The loop must have the 'recursive' marker to be called recursively.");
    struct jinja_sb sb;
    struct jinja_sb *before = jinja_capture_begin(in, &sb);
    jinja_enter(&in->env);
    run_loop(in, l->scope, l->node, items, l->depth0 + 1);
    jinja_leave(&in->env);
    return jinja_string(jinja_capture_end(in, before));
}

const struct jinja_string *jinja_macro_name(const struct jinja_macro *m)
{
    return m->node->name;
}

static struct jinja_value macro_value(struct jinja_interp *in, struct jinja_scope *s,
                                      const struct jinja_node *n)
{
    struct jinja_macro *m = jinja_alloc(&in->env, sizeof *m);
    *m = (struct jinja_macro){ n, s };
    capture_scope(s);
    return (struct jinja_value){ .kind = JINJA_MACRO, .as.macro = m };
}

static const char *macro_label(const struct jinja_macro *m, char room[80])
{
    const struct jinja_string *name = m->node->name;
    size_t n = name ? (name->len > 70 ? 70 : name->len) : 4;
    room[0] = '\'';
    memcpy(room + 1, name ? name->data : "None", n);
    strcpy(room + 1 + n, "'");
    return name ? room : "None";
}

/* A keyword argument that no parameter took yet; it is taken by this. */
static bool take_kwarg(const struct jinja_args *args, bool *taken, const struct jinja_string *name,
                       struct jinja_value *out)
{
    for (size_t i = 0; i < args->num_kw; i++) {
        if (!taken[i] && jinja_str_equal(args->kw[i].name, name)) {
            taken[i] = true;
            *out = args->kw[i].value;
            return true;
        }
    }
    return false;
}

/* caller, kwargs and varargs, for a body that mentions them; surplus arguments where it does not.
 */
static void bind_special(struct jinja_interp *in, const struct jinja_macro *m,
                         struct jinja_scope *s, const struct jinja_args *args, bool *taken)
{
    const struct jinja_node *n = m->node;
    struct jinja_value value;
    char room[80];
    if (n->uses & JINJA_USES_CALLER) {
        if (!take_kwarg(args, taken, in->tmpl->name_caller, &value) || value.kind == JINJA_NONE)
            value = jinja_undefined_hint(&in->env, "No caller defined");
        jinja_scope_set(in, s, in->tmpl->name_caller, value);
    }
    struct jinja_dict *rest = jinja_dict_new(&in->env, 0);
    for (size_t i = 0; i < args->num_kw; i++) {
        const struct jinja_string *name = args->kw[i].name;
        if (taken[i])
            continue;
        if (n->uses & JINJA_USES_KWARGS)
            jinja_dict_set(&in->env, rest, jinja_string(name), args->kw[i].value);
        else if (jinja_str_is(name, "caller"))
            jinja_fail(&in->env,
                       "macro %s was invoked with two values for the special caller argument. This "
                       "is most likely a bug.",
                       macro_label(m, room));
        else
            jinja_fail(&in->env, "macro %s takes no keyword argument '%.*s'", macro_label(m, room),
                       (int)(name->len > 100 ? 100 : name->len), name->data);
    }
    if (n->uses & JINJA_USES_KWARGS)
        jinja_scope_set(in, s, in->tmpl->name_kwargs, jinja_dict_value(rest));
    if (n->uses & JINJA_USES_VARARGS) {
        struct jinja_list *more = jinja_list_new(&in->env, 0);
        for (size_t i = n->items.len; i < args->num_pos; i++)
            jinja_list_push(&in->env, more, args->pos[i]);
        jinja_scope_set(in, s, in->tmpl->name_varargs, jinja_tuple_value(more));
    } else if (args->num_pos > n->items.len) {
        jinja_fail(&in->env, "macro %s takes not more than %zu argument(s)", macro_label(m, room),
                   n->items.len);
    }
}

static void bind_defaults(struct jinja_interp *in, const struct jinja_node *n,
                          struct jinja_scope *s, const bool *given)
{
    for (size_t i = 0; i < n->items.len; i++) {
        if (given[i])
            continue;
        const struct jinja_string *name = n->items.at[i]->name;
        size_t without = n->items.len - n->kwargs.len;
        struct jinja_value value;
        if (i >= without) {
            value = jinja_eval(in, s, n->kwargs.at[i - without]);
        } else {
            struct jinja_sb sb;
            jinja_sb_init(&sb, &in->env);
            jinja_sb_text(&sb, "parameter '");
            jinja_sb_str(&sb, name);
            jinja_sb_text(&sb, "' was not provided");
            jinja_sb_char(&sb, 0);
            value = jinja_undefined_hint(&in->env, sb.data);
        }
        jinja_scope_set(in, s, name, value);
    }
}

struct jinja_value jinja_call_macro(struct jinja_interp *in, struct jinja_macro *m,
                                    const struct jinja_args *args)
{
    const struct jinja_node *n = m->node;
    struct jinja_scope *s = jinja_scope_new(in, m->scope);
    bool *taken = jinja_array(&in->env, args->num_kw + 1, sizeof taken[0]);
    bool *given = jinja_array(&in->env, n->items.len + 1, sizeof given[0]);
    jinja_enter(&in->env);
    for (size_t i = 0; i < n->items.len; i++) {
        struct jinja_value value;
        given[i] = i < args->num_pos;
        if (given[i])
            value = args->pos[i];
        else
            given[i] = take_kwarg(args, taken, n->items.at[i]->name, &value);
        if (given[i])
            jinja_scope_set(in, s, n->items.at[i]->name, value);
    }
    bind_special(in, m, s, args, taken);
    bind_defaults(in, n, s, given);
    struct jinja_sb sb;
    struct jinja_sb *before = jinja_capture_begin(in, &sb);
    jinja_exec(in, s, &n->body);
    jinja_leave(&in->env);
    return jinja_string(jinja_capture_end(in, before));
}

static enum jinja_flow exec_if(struct jinja_interp *in, struct jinja_scope *s,
                               const struct jinja_node *n)
{
    for (size_t i = 0; i < n->items.len; i++) {
        const struct jinja_node *branch = n->items.at[i];
        if (!branch->a || jinja_truth(jinja_eval(in, s, branch->a)))
            return jinja_exec(in, s, &branch->body);
    }
    return JINJA_NEXT;
}

static void exec_for(struct jinja_interp *in, struct jinja_scope *s, const struct jinja_node *n)
{
    struct jinja_value over = jinja_eval(in, s, n->b);
    if (!n->flag) {
        run_loop(in, s, n, over, 0);
        return;
    }
    /* A recursive loop is a function whose text is printed. */
    struct jinja_sb sb;
    struct jinja_sb *before = jinja_capture_begin(in, &sb);
    run_loop(in, s, n, over, 0);
    print(in, jinja_capture_end(in, before));
}

static enum jinja_flow exec_set_block(struct jinja_interp *in, struct jinja_scope *s,
                                      const struct jinja_node *n)
{
    struct jinja_scope *inner = jinja_scope_new(in, s);
    struct jinja_sb sb;
    struct jinja_sb *before = jinja_capture_begin(in, &sb);
    enum jinja_flow flow = jinja_exec(in, inner, &n->body);
    struct jinja_value text = jinja_string(jinja_capture_end(in, before));
    if (flow != JINJA_NEXT)
        return flow;
    if (n->kind == JINJA_N_SET_BLOCK && !n->b) {
        jinja_assign(in, s, n->a, text);
        return flow;
    }
    in->block_text = text;
    struct jinja_value value = jinja_eval(in, inner, n->kind == JINJA_N_SET_BLOCK ? n->b : n->a);
    if (n->kind == JINJA_N_SET_BLOCK) {
        jinja_assign(in, s, n->a, value);
    } else {
        /* Jinja joins what blocks give without making text of it. */
        if (value.kind != JINJA_STRING)
            jinja_fail(&in->env, "sequence item 0: expected str instance, %s found",
                       jinja_type_name(value));
        print(in, value.as.string);
    }
    return flow;
}

static enum jinja_flow exec_with(struct jinja_interp *in, struct jinja_scope *s,
                                 const struct jinja_node *n)
{
    struct jinja_scope *inner = jinja_scope_new(in, s);
    for (size_t i = 0; i < n->items.len; i++)
        jinja_assign(in, inner, n->items.at[i], jinja_eval(in, s, n->kwargs.at[i]));
    return jinja_exec(in, inner, &n->body);
}

static enum jinja_flow exec_node(struct jinja_interp *in, struct jinja_scope *s,
                                 const struct jinja_node *n)
{
    struct jinja_value v;
    switch (n->kind) {
    case JINJA_N_DATA:
        print(in, n->value.as.string);
        return JINJA_NEXT;
    case JINJA_N_PRINT:
        v = jinja_eval(in, s, n->a);
        print(in, jinja_to_str(&in->env, v));
        return JINJA_NEXT;
    case JINJA_N_IF:
        return exec_if(in, s, n);
    case JINJA_N_FOR:
        exec_for(in, s, n);
        return JINJA_NEXT;
    case JINJA_N_SET:
        check_namespaces(in, s, n->a);
        v = jinja_eval(in, s, n->b);
        in->env.line = n->line;
        jinja_assign(in, s, n->a, v);
        return JINJA_NEXT;
    case JINJA_N_SET_BLOCK:
    case JINJA_N_FILTER_BLOCK:
        return exec_set_block(in, s, n);
    case JINJA_N_MACRO:
        jinja_scope_set(in, s, n->name, macro_value(in, s, n));
        return JINJA_NEXT;
    case JINJA_N_CALL_BLOCK:
        v = jinja_eval_call(in, s, n->a, macro_value(in, s, n));
        print(in, jinja_to_str(&in->env, v));
        return JINJA_NEXT;
    case JINJA_N_WITH:
        return exec_with(in, s, n);
    case JINJA_N_BLOCK:
        return jinja_exec(in, jinja_scope_new(in, n->flag ? s : in->root), &n->body);
    case JINJA_N_GENERATION:
        return jinja_exec(in, jinja_scope_new(in, s), &n->body);
    case JINJA_N_BREAK:
        return JINJA_BREAK;
    default:
        return JINJA_CONTINUE;
    }
}

enum jinja_flow jinja_exec(struct jinja_interp *in, struct jinja_scope *s,
                           const struct jinja_nodes *body)
{
    enum jinja_flow flow = JINJA_NEXT;
    jinja_enter(&in->env);
    for (size_t i = 0; i < body->len && flow == JINJA_NEXT; i++) {
        in->env.line = body->at[i]->line;
        jinja_charge(&in->env, 1);
        flow = exec_node(in, s, body->at[i]);
    }
    jinja_leave(&in->env);
    return flow;
}

void jinja_run_template(struct jinja_interp *in)
{
    in->root = jinja_scope_new(in, NULL);
    jinja_exec(in, in->root, &in->tmpl->body);
}
