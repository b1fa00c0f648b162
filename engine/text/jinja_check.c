/* jinja_check.c - what can be judged before a template runs, as Jinja's compiler does.
 *
 * An unknown filter or test is an error at once, except inside an `if`, where templates probe for
 * features: there it fails only when it is reached. */
#include "engine/text/jinja_parser.h"

struct check {
    struct jinja_template *t;
    bool soft;    /* inside an `if`, with nothing between that opens a scope */
    bool in_loop; /* where break and continue may stand */
    bool in_for;  /* where `loop` must not be assigned */
};

struct uses {
    struct jinja_template *t;
    uint8_t found, ended; /* bits; a name assigned to is the body's own from there on */
};

static void check(struct check *c, struct jinja_node *n);

static bool find_uses(const struct jinja_node *n, void *arg)
{
    struct uses *u = arg;
    jinja_charge(&u->t->env, 1);
    if (n->kind == JINJA_N_NAME) {
        uint8_t bit = n->name == u->t->name_caller    ? JINJA_USES_CALLER
                      : n->name == u->t->name_kwargs  ? JINJA_USES_KWARGS
                      : n->name == u->t->name_varargs ? JINJA_USES_VARARGS
                                                      : 0;
        if (n->flag)
            u->ended |= bit;
        else
            u->found |= (uint8_t)(bit & ~u->ended);
    }
    return n->kind == JINJA_N_BLOCK || jinja_node_children(n, find_uses, arg);
}

static void check_all(struct check *c, const struct jinja_nodes *list)
{
    for (size_t i = 0; i < list->len; i++)
        check(c, list->at[i]);
}

static void check_macro(struct check *c, struct jinja_node *n)
{
    struct uses u = { .t = c->t };
    for (size_t i = 0; i < n->body.len; i++)
        find_uses(n->body.at[i], &u);
    n->uses = u.found;
    for (size_t i = 0; i < n->items.len; i++) {
        const struct jinja_string *name = n->items.at[i]->name;
        if (name == c->t->name_caller) {
            bool has_default = i + n->kwargs.len >= n->items.len;
            if ((n->uses & JINJA_USES_CALLER) && !has_default)
                jinja_fail(&c->t->env, "When defining macros or call blocks the special \"caller\" "
                                       "argument must be omitted or be given a default.");
            n->uses &= (uint8_t)~JINJA_USES_CALLER;
        } else if (name == c->t->name_kwargs) {
            n->uses &= (uint8_t)~JINJA_USES_KWARGS;
        } else if (name == c->t->name_varargs) {
            n->uses &= (uint8_t)~JINJA_USES_VARARGS;
        }
    }
}

static void check_known(const struct check *c, const struct jinja_node *n)
{
    if (n->builtin || c->soft)
        return;
    jinja_fail(&c->t->env, "No %s named '%.*s'.", n->kind == JINJA_N_FILTER ? "filter" : "test",
               (int)(n->name->len > 100 ? 100 : n->name->len), n->name->data);
}

static void check_for(struct check *c, const struct jinja_node *n)
{
    check(c, n->b);
    struct check inner = *c;
    inner.soft = false;
    inner.in_for = true;
    check(&inner, n->a);
    if (n->c)
        check(&inner, n->c);
    inner.in_loop = true;
    check_all(&inner, &n->body);
    inner.in_loop = c->in_loop;
    check_all(&inner, &n->orelse);
}

/* A node that runs its body in a scope of its own. */
static void check_scope(struct check *c, const struct jinja_node *n, bool is_function)
{
    struct check inner = *c;
    inner.soft = false;
    if (is_function)
        inner.in_loop = false;
    if (n->kind == JINJA_N_FILTER_BLOCK)
        check(&inner, n->a);
    if (n->kind == JINJA_N_SET_BLOCK && n->b)
        check(&inner, n->b);
    if (n->kind == JINJA_N_MACRO || n->kind == JINJA_N_CALL_BLOCK) {
        check_all(&inner, &n->items);
        check_all(&inner, &n->kwargs);
    }
    check_all(&inner, &n->body);
}

static void check_children(struct check *c, const struct jinja_node *n, bool soft)
{
    struct check inner = *c;
    inner.soft = c->soft || soft;
    struct jinja_node *const parts[] = { n->a, n->b, n->c };
    for (size_t i = 0; i < 3; i++)
        if (parts[i])
            check(&inner, parts[i]);
    check_all(&inner, &n->items);
    check_all(&inner, &n->kwargs);
    check_all(&inner, &n->body);
}

static void check(struct check *c, struct jinja_node *n)
{
    struct jinja_env *e = &c->t->env;
    jinja_enter(e);
    e->line = n->line;
    switch (n->kind) {
    case JINJA_N_NAME:
        if (n->flag && c->in_for && n->name == c->t->name_loop)
            jinja_fail(e, "Can't assign to special loop variable in for-loop target");
        break;
    case JINJA_N_BREAK:
    case JINJA_N_CONTINUE:
        if (!c->in_loop)
            jinja_fail(e, n->kind == JINJA_N_BREAK ? "'break' outside loop"
                                                   : "'continue' not properly in loop");
        break;
    case JINJA_N_FOR:
        check_for(c, n);
        break;
    case JINJA_N_MACRO:
        check_scope(c, n, true); /* bounds the depth of what check_macro walks */
        check_macro(c, n);
        break;
    case JINJA_N_CALL_BLOCK:
        check(c, n->a);
        check_scope(c, n, true);
        check_macro(c, n);
        break;
    case JINJA_N_SET_BLOCK:
        check(c, n->a);
        check_scope(c, n, false);
        break;
    case JINJA_N_GENERATION: /* transformers makes a call block of it */
    case JINJA_N_BLOCK:
        check_scope(c, n, true);
        break;
    case JINJA_N_FILTER_BLOCK:
        check_scope(c, n, false);
        break;
    case JINJA_N_WITH:
        check_all(c, &n->items);
        check_all(c, &n->kwargs);
        check_scope(c, n, false);
        break;
    case JINJA_N_FILTER:
    case JINJA_N_TEST:
        check_known(c, n);
        check_children(c, n, false);
        break;
    default:
        check_children(c, n, n->kind == JINJA_N_IF || n->kind == JINJA_N_COND);
        break;
    }
    jinja_leave(e);
}

void jinja_check_template(struct jinja_template *t)
{
    struct check c = { .t = t };
    check_all(&c, &t->body);
    t->env.line = 0;
}
