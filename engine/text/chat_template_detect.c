/* chat_template_detect.c - what a template expects of messages, read off its tree.
 *
 * Follows how `messages`, each message and its content travel through names: loops, `set`, and
 * parameters of macros. The names are taken as global, which templates bear out. */
#include "engine/text/chat_template_messages.h"
#include "engine/text/jinja_ast.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum kind { OTHER, LIST, MESSAGE, CONTENT };
enum { MAX_PASSES = 8 }; /* each pass may carry a kind one name further */

struct naming {
    const struct jinja_string *name; /* interned */
    enum kind kind;
};

struct detect {
    struct naming *names;
    size_t len, cap;
    const struct jinja_node **macros;
    size_t num_macros, cap_macros;
    bool changed;
    struct chat_template_traits traits;
};

static void learn(struct detect *d, const struct jinja_string *name, enum kind kind)
{
    if (kind == OTHER)
        return;
    for (size_t i = 0; i < d->len; i++)
        if (d->names[i].name == name && d->names[i].kind == kind)
            return;
    if (d->len == d->cap) {
        d->cap = d->cap ? d->cap * 2 : 16;
        d->names = xrealloc(d->names, d->cap * sizeof d->names[0]);
    }
    d->names[d->len++] = (struct naming){ name, kind };
    d->changed = true;
}

static bool is_named(const struct detect *d, const struct jinja_string *name, enum kind kind)
{
    if (kind == LIST && jinja_str_is(name, "messages"))
        return true;
    for (size_t i = 0; i < d->len; i++)
        if (d->names[i].name == name && d->names[i].kind == kind)
            return true;
    return false;
}

static bool is_const_text(const struct jinja_node *n, const char *text)
{
    return n && n->kind == JINJA_N_CONST && n->value.kind == JINJA_STRING &&
           jinja_str_is(n->value.as.string, text);
}

static bool filter_is(const struct jinja_node *n, const char *const *names)
{
    for (; *names; names++)
        if (jinja_str_is(n->name, *names))
            return true;
    return false;
}

static bool is_kind(const struct detect *d, const struct jinja_node *n, enum kind kind);

/* message.content, message['content'], message.get('content') */
static bool is_content_access(const struct detect *d, const struct jinja_node *n)
{
    if (n->kind == JINJA_N_GETATTR)
        return jinja_str_is(n->name, "content") && is_kind(d, n->a, MESSAGE);
    if (n->kind == JINJA_N_GETITEM)
        return is_const_text(n->b, "content") && is_kind(d, n->a, MESSAGE);
    return n->kind == JINJA_N_CALL && n->a->kind == JINJA_N_GETATTR &&
           jinja_str_is(n->a->name, "get") && n->items.len > 0 &&
           is_const_text(n->items.at[0], "content") && is_kind(d, n->a->a, MESSAGE);
}

/* Whether the expression can be of that kind. Its depth is bounded: the parser accepted it. */
static bool is_kind(const struct detect *d, const struct jinja_node *n, enum kind kind)
{
    static const char *const keep[] = { "list",    "selectattr", "rejectattr", "select", "reject",
                                        "reverse", "default",    "d",          "safe",   NULL };
    static const char *const one[] = { "first", "last", NULL };
    switch (n->kind) {
    case JINJA_N_NAME:
        return is_named(d, n->name, kind);
    case JINJA_N_COND:
        return is_kind(d, n->a, kind) || (n->c && is_kind(d, n->c, kind));
    case JINJA_N_FILTER:
        if (!n->a)
            return false;
        return (filter_is(n, keep) && is_kind(d, n->a, kind)) ||
               (kind == MESSAGE && filter_is(n, one) && is_kind(d, n->a, LIST));
    case JINJA_N_GETITEM:
        if (n->b->kind == JINJA_N_SLICE)
            return is_kind(d, n->a, kind);
        if (kind == MESSAGE && is_kind(d, n->a, LIST))
            return true;
        break;
    default:
        break;
    }
    return kind == CONTENT && is_content_access(d, n);
}

static enum kind kind_of(const struct detect *d, const struct jinja_node *n)
{
    return is_kind(d, n, LIST)      ? LIST
           : is_kind(d, n, MESSAGE) ? MESSAGE
           : is_kind(d, n, CONTENT) ? CONTENT
                                    : OTHER;
}

static void visit_for(struct detect *d, const struct jinja_node *n)
{
    enum kind kind = kind_of(d, n->b);
    if (kind == LIST && n->a->kind == JINJA_N_NAME)
        learn(d, n->a->name, MESSAGE);
    if (kind == CONTENT)
        d->traits.loops_over_parts = true;
}

static void visit_call(struct detect *d, const struct jinja_node *n)
{
    if (n->a->kind != JINJA_N_NAME)
        return;
    for (size_t m = 0; m < d->num_macros; m++) {
        const struct jinja_node *macro = d->macros[m];
        if (macro->name != n->a->name)
            continue;
        for (size_t i = 0; i < n->items.len && i < macro->items.len; i++)
            learn(d, macro->items.at[i]->name, kind_of(d, n->items.at[i]));
        for (size_t i = 0; i < n->kwargs.len; i++)
            learn(d, n->kwargs.at[i]->name, kind_of(d, n->kwargs.at[i]->a));
    }
}

static void remember_macro(struct detect *d, const struct jinja_node *n)
{
    for (size_t i = 0; i < d->num_macros; i++)
        if (d->macros[i] == n)
            return;
    if (d->num_macros == d->cap_macros) {
        d->cap_macros = d->cap_macros ? d->cap_macros * 2 : 8;
        d->macros = xrealloc(d->macros, d->cap_macros * sizeof d->macros[0]);
    }
    d->macros[d->num_macros++] = n;
    d->changed = true;
}

static bool visit(const struct jinja_node *n, void *arg)
{
    struct detect *d = arg;
    switch (n->kind) {
    case JINJA_N_FOR:
        visit_for(d, n);
        break;
    case JINJA_N_SET:
        if (n->a->kind == JINJA_N_NAME)
            learn(d, n->a->name, kind_of(d, n->b));
        break;
    case JINJA_N_MACRO:
        remember_macro(d, n);
        break;
    case JINJA_N_CALL:
        visit_call(d, n);
        break;
    case JINJA_N_TEST:
        if (jinja_str_is(n->name, "string") && is_kind(d, n->a, CONTENT))
            d->traits.takes_plain_text = true;
        break;
    default:
        break;
    }
    return jinja_node_children(n, visit, arg);
}

/* --- tool calls ---------------------------------------------------------------------------------
 */

static const char sample_object[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\","
    " \"content\": \"\", \"tool_calls\": [{\"id\": \"call00001\", \"type\": \"function\","
    " \"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1}}}]}, {\"role\": \"tool\","
    " \"name\": \"f\", \"tool_call_id\": \"call00001\", \"content\": \"1\"}],"
    " \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"d\","
    " \"parameters\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\","
    " \"description\": \"a\"}}, \"required\": [\"a\"]}}}], \"documents\": null,"
    " \"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";

static bool renders(const struct jinja_template *t, const json_t *variables)
{
    /* A trial must not cost what a real conversation may. */
    const struct jinja_render_options options = { .limits = { .max_steps = 1000000 } };
    struct status st = { 0 };
    struct buf out;
    buf_init(&out, 0);
    bool ok = jinja_render(t, variables, &options, &out, &st);
    buf_free(&out);
    return ok;
}

/* Most templates want objects; some put the text of the arguments together with other text. */
static bool wants_arguments_as_text(const struct jinja_template *t)
{
    json_t *variables = json_loads(sample_object, 0, NULL);
    if (renders(t, variables)) {
        json_decref(variables);
        return false;
    }
    json_t *assistant = json_array_get(json_object_get(variables, "messages"), 1);
    json_t *call = json_array_get(json_object_get(assistant, "tool_calls"), 0);
    json_object_set_new(json_object_get(call, "function"), "arguments", json_string("{\"a\": 1}"));
    bool as_text = renders(t, variables);
    json_decref(variables);
    return as_text;
}

struct chat_template_traits chat_template_detect(const struct jinja_template *t)
{
    struct detect d = { .changed = true };
    for (int pass = 0; d.changed && pass < MAX_PASSES; pass++) {
        d.changed = false;
        for (size_t i = 0; i < t->body.len; i++)
            visit(t->body.at[i], &d);
    }
    free(d.names);
    free(d.macros);
    d.traits.arguments_as_text = wants_arguments_as_text(t);
    return d.traits;
}
