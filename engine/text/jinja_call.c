/* jinja_call.c - calling values, and giving C functions their arguments by name. */
#include "engine/text/jinja_call.h"
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"

#include <string.h>

struct jinja_value jinja_function_value(struct jinja_env *e, const struct jinja_builtin *builtin,
                                        struct jinja_value self)
{
    struct jinja_function *f = jinja_alloc(e, sizeof *f);
    *f = (struct jinja_function){ builtin, self };
    return (struct jinja_value){ .kind = JINJA_FUNCTION, .as.function = f };
}

/* The next name of a parameter list; sets whether it is needed, moves `*at` behind it. */
static bool next_param(const char **at, const char **name, size_t *len, bool *needed)
{
    const char *p = *at;
    while (*p == ' ')
        p++;
    if (*p == '\0')
        return false;
    *needed = *p == '!';
    if (*needed)
        p++;
    *name = p;
    *len = strcspn(p, " ");
    *at = p + *len;
    return true;
}

static void bind(struct jinja_interp *in, struct jinja_call *c)
{
    const char *at = c->builtin->params, *name;
    size_t len, num = 0, used = 0;
    bool needed;
    const struct jinja_args *args = c->args;
    while (next_param(&at, &name, &len, &needed)) {
        size_t i = num++;
        if (i < args->num_pos) {
            c->arg[i] = args->pos[i];
        } else {
            for (size_t k = 0; k < args->num_kw; k++) {
                const struct jinja_string *key = args->kw[k].name;
                if (key->len == len && memcmp(key->data, name, len) == 0) {
                    c->arg[i] = args->kw[k].value;
                    used++;
                }
            }
        }
        if (needed && c->arg[i].kind == JINJA_MISSING)
            jinja_fail(&in->env, "%s() missing required argument: '%.*s'", c->builtin->name,
                       (int)len, name);
    }
    if (args->num_pos > num)
        jinja_fail(&in->env, "%s() takes at most %zu arguments (%zu given)", c->builtin->name, num,
                   args->num_pos);
    if (used < args->num_kw)
        jinja_fail(&in->env, "%s() got an unexpected or repeated keyword argument",
                   c->builtin->name);
}

struct jinja_value jinja_call_builtin(struct jinja_interp *in, const struct jinja_builtin *builtin,
                                      struct jinja_value self, const struct jinja_args *args)
{
    struct jinja_call c = { .self = self, .args = args, .builtin = builtin };
    jinja_charge(&in->env, 1);
    if (builtin->params)
        bind(in, &c);
    jinja_enter(&in->env);
    struct jinja_value v = builtin->run(in, &c);
    jinja_leave(&in->env);
    /* No value keeps the call: jinja_generator copies it. */
    /* cppcheck-suppress returnDanglingLifetime */
    return v;
}

struct jinja_value jinja_generator(struct jinja_interp *in, const struct jinja_call *c,
                                   struct jinja_list *(*run)(struct jinja_interp *in,
                                                             struct jinja_call *c))
{
    struct jinja_value v = jinja_iterator_over(&in->env, NULL, "generator");
    struct jinja_lazy *lazy = jinja_alloc(&in->env, sizeof *lazy);
    struct jinja_args *args =
        jinja_alloc(&in->env, sizeof *args); /* the caller's are on its stack */
    *args = *c->args;
    *lazy = (struct jinja_lazy){ in, run, *c };
    lazy->call.args = args;
    v.as.iterator->lazy = lazy;
    return v;
}

void jinja_force(struct jinja_iterator *it)
{
    struct jinja_lazy *lazy = it->lazy;
    struct jinja_env *e = &lazy->in->env;
    it->lazy = NULL;
    it->list = jinja_list_new(e, 0); /* what a generator that walks itself would see */
    jinja_enter(e);
    it->list = lazy->run(lazy->in, &lazy->call);
    jinja_leave(e);
}

bool jinja_call_test(struct jinja_interp *in, const struct jinja_builtin *test,
                     struct jinja_value value, const struct jinja_args *args)
{
    return jinja_truth(jinja_call_builtin(in, test, value, args));
}

struct jinja_value jinja_call_value(struct jinja_interp *in, struct jinja_value callee,
                                    const struct jinja_args *args)
{
    switch (callee.kind) {
    case JINJA_UNDEFINED:
        jinja_fail_undefined(&in->env, callee);
    case JINJA_MACRO:
        return jinja_call_macro(in, callee.as.macro, args);
    case JINJA_FUNCTION:
        return jinja_call_builtin(in, callee.as.function->builtin, callee.as.function->self, args);
    case JINJA_LOOP:
        if (args->num_pos != 1 || args->num_kw != 0)
            jinja_fail(&in->env, "loop() takes exactly one argument");
        return jinja_call_loop(in, callee.as.loop, args->pos[0]);
    case JINJA_JOINER:
        if (callee.as.joiner->used)
            return jinja_string(callee.as.joiner->separator);
        callee.as.joiner->used = true;
        return jinja_text(&in->env, "");
    default:
        jinja_fail(&in->env, "'%s' object is not callable", jinja_type_name(callee));
    }
}

bool jinja_arg_given(const struct jinja_call *c, int i)
{
    return c->arg[i].kind != JINJA_MISSING && c->arg[i].kind != JINJA_NONE;
}

int64_t jinja_arg_int(struct jinja_interp *in, const struct jinja_call *c, int i, int64_t missing)
{
    struct jinja_value v = c->arg[i];
    if (v.kind == JINJA_MISSING)
        return missing;
    if (!jinja_is_integral(v))
        jinja_fail(&in->env, "'%s' object cannot be interpreted as an integer", jinja_type_name(v));
    return jinja_integer(v);
}

bool jinja_arg_bool(const struct jinja_call *c, int i, bool missing)
{
    return c->arg[i].kind == JINJA_MISSING ? missing : jinja_truth(c->arg[i]);
}

const struct jinja_string *jinja_arg_str(struct jinja_interp *in, const struct jinja_call *c, int i,
                                         const char *missing)
{
    struct jinja_value v = c->arg[i];
    if (v.kind == JINJA_MISSING)
        return jinja_str_literal(&in->env, missing);
    if (v.kind != JINJA_STRING)
        jinja_fail(&in->env, "%s() argument %d must be str, not %s", c->builtin->name, i + 1,
                   jinja_type_name(v));
    return v.as.string;
}
