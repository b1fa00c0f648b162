/* jinja_globals.c - the functions a template finds by name. */
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_RANGE = 100000, MAX_TIME_FORMAT = 4096 };

static struct jinja_value g_range(struct jinja_interp *in, struct jinja_call *c)
{
    int64_t start = 0, stop, step = 1;
    if (c->arg[1].kind == JINJA_MISSING) {
        stop = jinja_arg_int(in, c, 0, 0);
    } else {
        start = jinja_arg_int(in, c, 0, 0);
        stop = jinja_arg_int(in, c, 1, 0);
        step = jinja_arg_int(in, c, 2, 1);
    }
    if (step == 0)
        jinja_fail(&in->env, "range() arg 3 must not be zero");
    __int128 distance = step > 0 ? (__int128)stop - start : (__int128)start - stop;
    __int128 size = step > 0 ? (__int128)step : -(__int128)step;
    __int128 len = distance <= 0 ? 0 : (distance - 1) / size + 1;
    if (len > MAX_RANGE)
        jinja_fail(&in->env, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                   MAX_RANGE);
    struct jinja_range *r = jinja_alloc(&in->env, sizeof *r);
    *r = (struct jinja_range){ start, stop, step, (int64_t)len };
    return (struct jinja_value){ .kind = JINJA_RANGE, .as.range = r };
}

/* dict(mapping or pairs, name=value, ...) */
static struct jinja_dict *make_dict(struct jinja_interp *in, const struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_dict *d = jinja_dict_new(e, c->args->num_kw);
    if (c->args->num_pos > 1)
        jinja_fail(e, "dict expected at most 1 argument, got %zu", c->args->num_pos);
    if (c->args->num_pos == 1 && c->args->pos[0].kind == JINJA_UNDEFINED)
        jinja_fail_undefined(e, c->args->pos[0]);
    if (c->args->num_pos == 1 && c->args->pos[0].kind == JINJA_DICT) {
        const struct jinja_dict *from = c->args->pos[0].as.dict;
        for (size_t i = 0; i < from->len; i++)
            jinja_dict_set(e, d, from->entries[i].key, from->entries[i].value);
    } else if (c->args->num_pos == 1) {
        struct jinja_cursor cursor = jinja_iterate(e, c->args->pos[0]);
        struct jinja_value pair;
        for (size_t i = 0; jinja_next(e, &cursor, &pair); i++) {
            if (!jinja_is_iterable(pair))
                jinja_fail(
                    e, "cannot convert dictionary update sequence element #%zu to a sequence", i);
            const struct jinja_list *l = jinja_items_of(e, pair);
            if (l->len != 2)
                jinja_fail(e,
                           "dictionary update sequence element #%zu has length %zu; 2 is required",
                           i, l->len);
            jinja_dict_set(e, d, l->items[0], l->items[1]);
        }
    }
    for (size_t i = 0; i < c->args->num_kw; i++)
        jinja_dict_set(e, d, jinja_string(c->args->kw[i].name), c->args->kw[i].value);
    return d;
}

static struct jinja_value g_dict(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_dict_value(make_dict(in, c));
}

static struct jinja_value g_namespace(struct jinja_interp *in, struct jinja_call *c)
{
    return (struct jinja_value){ .kind = JINJA_NAMESPACE, .as.dict = make_dict(in, c) };
}

static struct jinja_value g_cycler(struct jinja_interp *in, struct jinja_call *c)
{
    if (c->args->num_pos == 0 || c->args->num_kw)
        jinja_fail(&in->env, "at least one item has to be provided");
    struct jinja_cycler *cycler = jinja_alloc(&in->env, sizeof *cycler);
    cycler->items = jinja_list_new(&in->env, c->args->num_pos);
    for (size_t i = 0; i < c->args->num_pos; i++)
        jinja_list_push(&in->env, cycler->items, c->args->pos[i]);
    return (struct jinja_value){ .kind = JINJA_CYCLER, .as.cycler = cycler };
}

static struct jinja_value g_joiner(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_joiner *joiner = jinja_alloc(&in->env, sizeof *joiner);
    joiner->separator = c->arg[0].kind == JINJA_MISSING ? jinja_str_literal(&in->env, ", ")
                                                        : jinja_to_str(&in->env, c->arg[0]);
    return (struct jinja_value){ .kind = JINJA_JOINER, .as.joiner = joiner };
}

static struct jinja_value g_raise_exception(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *message = jinja_to_str(&in->env, c->arg[0]);
    jinja_fail_verbatim(&in->env, message->data, message->len);
}

/* Python's strftime is libc's, but for %f, and for zones, of which a naive time has none. */
static struct jinja_value g_strftime_now(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    const struct jinja_string *wanted = jinja_arg_str(in, c, 0, "");
    time_t now = (time_t)(in->now_unix_s ? *in->now_unix_s : clock_unix_s());
    struct tm local;
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    if (wanted->len > MAX_TIME_FORMAT || !localtime_r(&now, &local))
        jinja_fail(e, "strftime_now: the format is longer than %d bytes, or the time has no date",
                   MAX_TIME_FORMAT);
    for (size_t i = 0; i < wanted->len; i++) {
        const char *at = wanted->data + i;
        if (*at != '%' || i + 1 >= wanted->len) {
            jinja_sb_add(&sb, at, 1);
            continue;
        }
        size_t n = 1; /* flags and width, then the letter */
        while (i + n + 1 < wanted->len && n < 8 && strchr("-_0^#123456789EO", at[n]) && at[n])
            n++;
        i += n;
        char format[16] = { 0 }, out[512];
        memcpy(format, at, n + 1);
        if (at[n] == 'f') {
            jinja_sb_text(&sb, "000000");
        } else if (at[n] != 'z' && at[n] != 'Z') {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            jinja_sb_add(&sb, out, strftime(out, sizeof out, format, &local));
#pragma GCC diagnostic pop
        }
        jinja_charge(e, 8);
    }
    return jinja_string(jinja_sb_take(&sb));
}

static struct jinja_value g_not_offered(struct jinja_interp *in, struct jinja_call *c)
{
    jinja_fail(&in->env, "the function '%s' is not offered to chat templates", c->builtin->name);
}

static const struct jinja_builtin globals[] = {
    { "range", "!start stop step", g_range },
    { "dict", NULL, g_dict },
    { "namespace", NULL, g_namespace },
    { "cycler", NULL, g_cycler },
    { "joiner", "sep", g_joiner },
    { "raise_exception", "!message", g_raise_exception },
    { "strftime_now", "!format", g_strftime_now },
    { "lipsum", NULL, g_not_offered },
};

const struct jinja_builtin *jinja_find_global(const struct jinja_string *name)
{
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (jinja_str_is(name, globals[i].name))
            return &globals[i];
    return NULL;
}
