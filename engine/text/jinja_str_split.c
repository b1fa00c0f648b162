/* jinja_str_split.c - the methods of str that take a text apart. */
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_unicode.h"

#include <string.h>

static const struct jinja_string *self(const struct jinja_call *c)
{
    return c->self.as.string;
}

static void push_part(struct jinja_interp *in, struct jinja_list *l, const struct jinja_string *s,
                      size_t from, size_t to)
{
    jinja_list_push(&in->env, l, jinja_string(jinja_str_bytes(&in->env, s, from, to)));
    jinja_charge(&in->env, 1);
}

static size_t skip(const struct jinja_string *s, size_t at, bool space)
{
    size_t n;
    while (at < s->len && jinja_char_is_space(jinja_str_char(s, at, &n)) == space)
        at += n;
    return at;
}

static size_t skip_back(const struct jinja_string *s, size_t at, bool space)
{
    size_t n;
    while (at > 0 && jinja_char_is_space(jinja_str_char_before(s, at, &n)) == space)
        at -= n;
    return at;
}

static void split_space(struct jinja_interp *in, const struct jinja_string *s, int64_t max,
                        struct jinja_list *out)
{
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = skip(s, 0, true); at < s->len; at = skip(s, at, true)) {
        bool rest = max >= 0 && (int64_t)out->len >= max;
        size_t end = rest ? s->len : skip(s, at, false);
        push_part(in, out, s, at, end);
        if (rest)
            return;
        at = end;
    }
}

static void reverse(struct jinja_list *l)
{
    for (size_t i = 0; i < l->len / 2; i++) {
        struct jinja_value v = l->items[i];
        l->items[i] = l->items[l->len - 1 - i];
        l->items[l->len - 1 - i] = v;
    }
}

static void rsplit_space(struct jinja_interp *in, const struct jinja_string *s, int64_t max,
                         struct jinja_list *out)
{
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = skip_back(s, s->len, true); at > 0; at = skip_back(s, at, true)) {
        bool rest = max >= 0 && (int64_t)out->len >= max;
        size_t from = rest ? 0 : skip_back(s, at, false);
        push_part(in, out, s, from, at);
        if (rest)
            break;
        at = from;
    }
    reverse(out);
}

/* The separator to split by, or NULL for whitespace. */
static const struct jinja_string *separator(struct jinja_interp *in, const struct jinja_call *c)
{
    if (!jinja_arg_given(c, 0))
        return NULL;
    if (c->arg[0].kind != JINJA_STRING)
        jinja_fail(&in->env, "must be str or None, not %s", jinja_type_name(c->arg[0]));
    if (c->arg[0].as.string->len == 0)
        jinja_fail(&in->env, "empty separator");
    return c->arg[0].as.string;
}

struct jinja_value jinja_m_split(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c), *by = separator(in, c);
    int64_t max = jinja_arg_int(in, c, 1, -1), hit;
    struct jinja_list *out = jinja_list_new(&in->env, 0);
    if (!by) {
        split_space(in, s, max, out);
        return jinja_list_value(out);
    }
    size_t at = 0;
    jinja_charge_bytes(&in->env, s->len);
    while (max < 0 || (int64_t)out->len < max) {
        const char *p = memmem(s->data + at, s->len - at, by->data, by->len);
        hit = p ? p - s->data : -1;
        if (hit < 0)
            break;
        push_part(in, out, s, at, (size_t)hit);
        at = (size_t)hit + by->len;
    }
    push_part(in, out, s, at, s->len);
    return jinja_list_value(out);
}

struct jinja_value jinja_m_rsplit(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c), *by = separator(in, c);
    int64_t max = jinja_arg_int(in, c, 1, -1), hit;
    struct jinja_list *out = jinja_list_new(&in->env, 0);
    if (!by) {
        rsplit_space(in, s, max, out);
        return jinja_list_value(out);
    }
    size_t end = s->len;
    while (max < 0 || (int64_t)out->len < max) {
        hit = jinja_str_rfind(&in->env, s, by, 0, end);
        if (hit < 0)
            break;
        push_part(in, out, s, (size_t)hit + by->len, end);
        end = (size_t)hit;
    }
    push_part(in, out, s, 0, end);
    reverse(out);
    return jinja_list_value(out);
}

struct jinja_value jinja_m_splitlines(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_list_value(jinja_str_splitlines(&in->env, self(c), jinja_arg_bool(c, 0, false)));
}

static struct jinja_value partition_at(struct jinja_interp *in, struct jinja_call *c, bool last)
{
    const struct jinja_string *s = self(c), *by = jinja_arg_str(in, c, 0, "");
    if (by->len == 0)
        jinja_fail(&in->env, "empty separator");
    int64_t hit = last ? jinja_str_rfind(&in->env, s, by, 0, s->len)
                       : jinja_str_find(&in->env, s, by, 0, s->len);
    struct jinja_list *out = jinja_list_new(&in->env, 3);
    size_t at = hit >= 0 ? (size_t)hit : last ? 0 : s->len, n = hit >= 0 ? by->len : 0;
    push_part(in, out, s, 0, at);
    push_part(in, out, s, at, at + n);
    push_part(in, out, s, at + n, s->len);
    return jinja_tuple_value(out);
}

struct jinja_value jinja_m_partition(struct jinja_interp *in, struct jinja_call *c)
{
    return partition_at(in, c, false);
}

struct jinja_value jinja_m_rpartition(struct jinja_interp *in, struct jinja_call *c)
{
    return partition_at(in, c, true);
}
