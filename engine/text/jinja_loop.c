/* jinja_loop.c - the iteration behind `for`, and the variable `loop`.
 *
 * Items are drawn one by one: a condition of the loop is evaluated when its item is reached, so it
 * sees what the body did before. loop.last and loop.nextitem look one item ahead. */
#include "engine/text/jinja_interp.h"

#include <stdio.h>
#include <string.h>

struct jinja_loop *jinja_loop_new(struct jinja_interp *in, const struct jinja_node *node,
                                  struct jinja_scope *scope, struct jinja_value over,
                                  int64_t depth0)
{
    struct jinja_loop *l = jinja_alloc(&in->env, sizeof *l);
    l->node = node;
    l->scope = scope;
    l->cursor = jinja_iterate(&in->env, over);
    l->index0 = -1;
    l->depth0 = depth0;
    l->length = node->c ? -1 : jinja_length(over);
    return l;
}

static bool passes(struct jinja_interp *in, const struct jinja_loop *l, struct jinja_value item)
{
    if (!l->node->c)
        return true;
    struct jinja_scope *s = jinja_scope_new(in, l->scope);
    jinja_assign(in, s, l->node->a, item);
    return jinja_truth(jinja_eval(in, s, l->node->c));
}

static bool draw(struct jinja_interp *in, struct jinja_loop *l, struct jinja_value *item)
{
    if (l->rest) {
        if (l->rest_at >= l->rest->len)
            return false;
        *item = l->rest->items[l->rest_at++];
        return true;
    }
    while (jinja_next(&in->env, &l->cursor, item))
        if (passes(in, l, *item))
            return true;
    return false;
}

bool jinja_loop_next(struct jinja_interp *in, struct jinja_loop *l, struct jinja_value *item)
{
    if (l->after.kind != JINJA_MISSING) {
        *item = l->after;
        l->after = jinja_missing();
    } else if (!draw(in, l, item)) {
        return false;
    }
    l->index0++;
    l->before = l->current;
    l->current = *item;
    return true;
}

static bool peek(struct jinja_interp *in, struct jinja_loop *l)
{
    struct jinja_value next; /* draw() also writes items that do not pass */
    if (l->after.kind == JINJA_MISSING && draw(in, l, &next))
        l->after = next;
    return l->after.kind != JINJA_MISSING;
}

int64_t jinja_loop_length(struct jinja_interp *in, struct jinja_loop *l)
{
    if (l->length >= 0)
        return l->length;
    struct jinja_list *rest = jinja_list_new(&in->env, 0);
    struct jinja_value item;
    while (draw(in, l, &item))
        jinja_list_push(&in->env, rest, item);
    l->rest = rest;
    l->rest_at = 0;
    l->length = (int64_t)rest->len + l->index0 + 1 + (l->after.kind != JINJA_MISSING);
    return l->length;
}

static struct jinja_value run_cycle(struct jinja_interp *in, struct jinja_call *c)
{
    size_t n = c->args->num_pos;
    if (n > 0)
        return c->args->pos[(size_t)c->self.as.loop->index0 % n];
    jinja_fail(&in->env, "no items for cycling given");
}

static struct jinja_value run_changed(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_list *now = jinja_list_new(&in->env, c->args->num_pos);
    for (size_t i = 0; i < c->args->num_pos; i++)
        jinja_list_push(&in->env, now, c->args->pos[i]);
    struct jinja_value seen = jinja_tuple_value(now);
    struct jinja_loop *l = c->self.as.loop;
    bool changed = l->changed.kind == JINJA_MISSING || !jinja_equal(&in->env, l->changed, seen);
    l->changed = seen;
    return jinja_bool(changed);
}

static const struct jinja_builtin cycle = { "cycle", NULL, run_cycle };
static const struct jinja_builtin changed = { "changed", NULL, run_changed };

bool jinja_loop_attr(struct jinja_interp *in, struct jinja_loop *l, const struct jinja_string *name,
                     struct jinja_value *out)
{
    struct jinja_value self = { .kind = JINJA_LOOP, .as.loop = l };
    char text[16];
    if (name->len >= sizeof text)
        return false;
    memcpy(text, name->data, name->len);
    text[name->len] = '\0';
    if (strcmp(text, "index") == 0)
        *out = jinja_int(l->index0 + 1);
    else if (strcmp(text, "index0") == 0)
        *out = jinja_int(l->index0);
    else if (strcmp(text, "first") == 0)
        *out = jinja_bool(l->index0 == 0);
    else if (strcmp(text, "last") == 0)
        *out = jinja_bool(!peek(in, l));
    else if (strcmp(text, "length") == 0)
        *out = jinja_int(jinja_loop_length(in, l));
    else if (strcmp(text, "revindex") == 0)
        *out = jinja_int(jinja_loop_length(in, l) - l->index0);
    else if (strcmp(text, "revindex0") == 0)
        *out = jinja_int(jinja_loop_length(in, l) - l->index0 - 1);
    else if (strcmp(text, "depth") == 0)
        *out = jinja_int(l->depth0 + 1);
    else if (strcmp(text, "depth0") == 0)
        *out = jinja_int(l->depth0);
    else if (strcmp(text, "previtem") == 0)
        *out = l->index0 == 0 ? jinja_undefined_hint(&in->env, "there is no previous item")
                              : l->before;
    else if (strcmp(text, "nextitem") == 0)
        *out = peek(in, l) ? l->after : jinja_undefined_hint(&in->env, "there is no next item");
    else if (strcmp(text, "cycle") == 0)
        *out = jinja_function_value(&in->env, &cycle, self);
    else if (strcmp(text, "changed") == 0)
        *out = jinja_function_value(&in->env, &changed, self);
    else
        return false;
    return true;
}
