/* jinja_filters_text.c - filters whose result is text, and tojson. */
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_repr.h"
#include "engine/text/jinja_unicode.h"

#include <stdio.h>
#include <string.h>

static const struct jinja_string *self_text(struct jinja_interp *in, const struct jinja_call *c)
{
    return jinja_to_str(&in->env, c->self);
}

struct jinja_value jinja_f_upper(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_str_upper(&in->env, self_text(in, c)));
}

struct jinja_value jinja_f_lower(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_str_lower(&in->env, self_text(in, c)));
}

struct jinja_value jinja_f_capitalize(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_str_capitalize(&in->env, self_text(in, c)));
}

/* Words, as this filter sees them, begin after a run of space or of - ( { [ <. */
static bool begins_word(uint32_t c)
{
    return jinja_char_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

struct jinja_value jinja_f_title(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self_text(in, c), *word;
    struct jinja_env *e = &in->env;
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    for (size_t at = 0, n; at < s->len;) {
        size_t end = at;
        bool breaks = begins_word(jinja_str_char(s, at, &n));
        while (end < s->len && begins_word(jinja_str_char(s, end, &n)) == breaks)
            end += n;
        word = jinja_str_bytes(e, s, at, end);
        jinja_str_char(word, 0, &n);
        jinja_sb_str(&sb, jinja_str_upper(e, jinja_str_bytes(e, word, 0, n)));
        jinja_sb_str(&sb, jinja_str_lower(e, jinja_str_bytes(e, word, n, word->len)));
        at = end;
    }
    return jinja_string(jinja_sb_take(&sb));
}

struct jinja_value jinja_f_string(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(self_text(in, c));
}

struct jinja_value jinja_f_safe(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_str_mark(&in->env, self_text(in, c), true));
}

struct jinja_value jinja_f_escape(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_escape(in, c->self));
}

struct jinja_value jinja_f_forceescape(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *plain = jinja_str_mark(&in->env, self_text(in, c), false);
    return jinja_string(jinja_escape(in, jinja_string(plain)));
}

struct jinja_value jinja_f_trim(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *chars = jinja_arg_given(c, 0) ? jinja_arg_str(in, c, 0, "") : NULL;
    return jinja_string(jinja_str_strip(&in->env, self_text(in, c), chars, 3));
}

struct jinja_value jinja_f_replace(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    int64_t max = jinja_arg_given(c, 2) ? jinja_arg_int(in, c, 2, -1) : -1;
    const struct jinja_string *s = jinja_str_mark(e, self_text(in, c), false);
    return jinja_string(
        jinja_str_replace(e, s, jinja_to_str(e, c->arg[0]), jinja_to_str(e, c->arg[1]), max));
}

struct jinja_value jinja_f_center(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_str_pad(in, self_text(in, c), jinja_arg_int(in, c, 0, 80), ' ', 'c'));
}

struct jinja_value jinja_f_format(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    if (c->args->num_pos && c->args->num_kw)
        jinja_fail(e, "can't handle positional and keyword arguments at the same time");
    if (c->args->num_kw) {
        struct jinja_dict *d = jinja_dict_new(e, c->args->num_kw);
        for (size_t i = 0; i < c->args->num_kw; i++)
            jinja_dict_set(e, d, jinja_string(c->args->kw[i].name), c->args->kw[i].value);
        return jinja_percent_format(in, self_text(in, c), jinja_dict_value(d));
    }
    struct jinja_list *l = jinja_list_new(e, c->args->num_pos);
    for (size_t i = 0; i < c->args->num_pos; i++)
        jinja_list_push(e, l, c->args->pos[i]);
    return jinja_percent_format(in, self_text(in, c), jinja_tuple_value(l));
}

struct jinja_value jinja_f_indent(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_sb sb;
    const struct jinja_string *by;
    bool first = jinja_arg_bool(c, 1, false), blank = jinja_arg_bool(c, 2, false);
    if (c->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(e, c->self);
    if (c->self.kind == JINJA_LIST)
        jinja_fail(e, "'list' object has no attribute 'splitlines'");
    if (c->self.kind != JINJA_STRING)
        jinja_fail(e, "unsupported operand type(s) for +=: '%s' and 'str'",
                   jinja_type_name(c->self));
    if (c->arg[0].kind == JINJA_STRING) {
        by = c->arg[0].as.string;
    } else {
        int64_t width = jinja_arg_int(in, c, 0, 4);
        jinja_sb_init(&sb, e);
        jinja_sb_fill(&sb, ' ', width > 0 ? (size_t)width : 0);
        by = jinja_sb_take(&sb);
    }
    const struct jinja_string *all =
        jinja_str_concat(e, c->self.as.string, jinja_str_literal(e, "\n"));
    struct jinja_list *lines = jinja_str_splitlines(e, all, false);
    jinja_sb_init(&sb, e);
    for (size_t i = 0; i < lines->len; i++) {
        const struct jinja_string *line = lines->items[i].as.string;
        if (i)
            jinja_sb_text(&sb, "\n");
        if (i ? blank || line->len : first)
            jinja_sb_str(&sb, by);
        jinja_sb_str(&sb, line);
    }
    return jinja_string(jinja_str_mark(e, jinja_sb_take(&sb), c->self.as.string->markup));
}

struct jinja_value jinja_f_truncate(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    int64_t length = jinja_arg_int(in, c, 0, 255);
    const struct jinja_string *end = jinja_arg_str(in, c, 2, "...");
    int64_t leeway = jinja_arg_given(c, 3) ? jinja_arg_int(in, c, 3, 5) : 5;
    if (length < (int64_t)end->chars)
        jinja_fail(e, "expected length >= %zu, got %lld", end->chars, (long long)length);
    if (leeway < 0)
        jinja_fail(e, "expected leeway >= 0, got %lld", (long long)leeway);
    int64_t len = jinja_length(c->self);
    if (len < 0)
        jinja_fail(e, "object of type '%s' has no len()", jinja_type_name(c->self));
    if (len <= length || len - length <= leeway)
        return c->self;
    if (c->self.kind != JINJA_STRING)
        jinja_fail(e, "truncate cannot shorten a value of type '%s'", jinja_type_name(c->self));
    const struct jinja_string *s = c->self.as.string;
    const struct jinja_string *cut = jinja_str_sub(e, s, 0, (size_t)length - end->chars);
    if (!jinja_arg_bool(c, 1, false)) {
        int64_t space = jinja_str_rfind(e, cut, jinja_str_literal(e, " "), 0, cut->len);
        if (space >= 0)
            cut = jinja_str_bytes(e, cut, 0, (size_t)space);
    }
    return jinja_string(jinja_str_concat(e, cut, end));
}

struct jinja_value jinja_f_wordcount(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self_text(in, c);
    int64_t words = 0;
    bool inside = false;
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = 0, n; at < s->len; at += n) {
        bool word = jinja_char_is_word(jinja_str_char(s, at, &n));
        words += word && !inside;
        inside = word;
    }
    return jinja_int(words);
}

static void collapse_space(struct jinja_interp *in, const struct jinja_string *s,
                           struct jinja_sb *out)
{
    bool pending = false;
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jinja_str_char(s, at, &n);
        if (jinja_char_is_space(ch)) {
            pending = out->len > 0;
            continue;
        }
        if (pending)
            jinja_sb_char(out, ' ');
        pending = false;
        jinja_sb_add(out, s->data + at, n);
    }
}

/* Without comments and tags, entities resolved (the five of XML), space collapsed. */
struct jinja_value jinja_f_striptags(struct jinja_interp *in, struct jinja_call *c)
{
    static const char *const entities[][2] = { { "&lt;", "<" },    { "&gt;", ">" },
                                               { "&quot;", "\"" }, { "&#34;", "\"" },
                                               { "&#39;", "'" },   { "&amp;", "&" } };
    struct jinja_env *e = &in->env;
    const struct jinja_string *s = jinja_str_mark(e, self_text(in, c), false);
    struct jinja_sb sb;
    for (int comments = 1; comments >= 0; comments--) {
        const struct jinja_string *open = jinja_str_literal(e, comments ? "<!--" : "<");
        const struct jinja_string *close = jinja_str_literal(e, comments ? "-->" : ">");
        size_t at = 0;
        jinja_sb_init(&sb, e);
        for (;;) {
            int64_t from = jinja_str_find(e, s, open, at, s->len);
            int64_t to = from < 0 ? -1 : jinja_str_find(e, s, close, (size_t)from, s->len);
            if (to < 0)
                break;
            jinja_sb_add(&sb, s->data + at, (size_t)from - at);
            at = (size_t)to + close->len;
        }
        jinja_sb_add(&sb, s->data + at, s->len - at);
        s = jinja_sb_take(&sb);
    }
    jinja_sb_init(&sb, e);
    collapse_space(in, s, &sb);
    s = jinja_sb_take(&sb);
    for (size_t i = 0; i < sizeof entities / sizeof entities[0]; i++)
        s = jinja_str_replace(e, s, jinja_str_literal(e, entities[i][0]),
                              jinja_str_literal(e, entities[i][1]), -1);
    return jinja_string(s);
}

static void quote(struct jinja_sb *sb, const struct jinja_string *s, bool query)
{
    for (size_t i = 0; i < s->len; i++) {
        unsigned char ch = (unsigned char)s->data[i];
        char hex[8];
        bool safe = (ch >= '0' && ch <= '9') || ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'z') ||
                    (ch && strchr("_.-~", ch)) || (ch == '/' && !query);
        snprintf(hex, sizeof hex, "%%%02X", ch);
        if (safe)
            jinja_sb_char(sb, ch);
        else
            jinja_sb_text(sb, query && ch == ' ' ? "+" : hex);
    }
    jinja_charge_bytes(sb->env, s->len);
}

struct jinja_value jinja_f_urlencode(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    if (c->self.kind == JINJA_STRING || !jinja_is_iterable(c->self)) {
        quote(&sb, self_text(in, c), false);
        return jinja_string(jinja_sb_take(&sb));
    }
    struct jinja_value pairs = c->self;
    if (pairs.kind == JINJA_DICT) {
        struct jinja_view *view = jinja_alloc(e, sizeof *view);
        *view = (struct jinja_view){ JINJA_ITEMS, pairs.as.dict };
        pairs = (struct jinja_value){ .kind = JINJA_VIEW, .as.view = view };
    }
    struct jinja_cursor cursor = jinja_iterate(e, pairs);
    struct jinja_value pair;
    while (jinja_next(e, &cursor, &pair)) {
        const struct jinja_list *l = jinja_items_of(e, pair);
        if (l->len > 2)
            jinja_fail(e, "too many values to unpack (expected 2)");
        if (l->len < 2)
            jinja_fail(e, "not enough values to unpack (expected 2, got %zu)", l->len);
        if (sb.len)
            jinja_sb_text(&sb, "&");
        quote(&sb, jinja_to_str(e, l->items[0]), true);
        jinja_sb_text(&sb, "=");
        quote(&sb, jinja_to_str(e, l->items[1]), true);
    }
    return jinja_string(jinja_sb_take(&sb));
}

struct jinja_value jinja_f_xmlattr(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    if (c->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(e, c->self);
    if (c->self.kind != JINJA_DICT)
        jinja_fail(e, "'%s' object has no attribute 'items'", jinja_type_name(c->self));
    const struct jinja_dict *d = c->self.as.dict;
    for (size_t i = 0; i < d->len; i++) {
        struct jinja_value v = d->entries[i].value;
        const struct jinja_string *key = jinja_to_str(e, d->entries[i].key);
        if (v.kind == JINJA_NONE || v.kind == JINJA_UNDEFINED)
            continue;
        if (d->entries[i].key.kind != JINJA_STRING)
            jinja_fail(e, "expected string or bytes-like object, got '%s'",
                       jinja_type_name(d->entries[i].key));
        for (size_t k = 0; k < key->len; k++)
            if (key->data[k] && strchr(" \t\n\r\f\v/>=", key->data[k]))
                jinja_fail(e, "Invalid character in attribute name: '%.*s'",
                           (int)(key->len > 100 ? 100 : key->len), key->data);
        if (sb.len || jinja_arg_bool(c, 0, true))
            jinja_sb_text(&sb, " ");
        jinja_sb_str(&sb, jinja_escape(in, d->entries[i].key));
        jinja_sb_text(&sb, "=\"");
        jinja_sb_str(&sb, jinja_escape(in, v));
        jinja_sb_text(&sb, "\"");
    }
    return jinja_string(jinja_sb_take(&sb));
}

struct jinja_value jinja_f_tojson(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_env *e = &in->env;
    struct jinja_json_style style = { .ascii = jinja_arg_bool(c, 0, false),
                                      .sort_keys = jinja_arg_bool(c, 3, false),
                                      .pretty = jinja_arg_given(c, 1) };
    style.item_separator = jinja_str_literal(e, style.pretty ? "," : ", ");
    style.key_separator = jinja_str_literal(e, ": ");
    if (style.pretty && c->arg[1].kind == JINJA_STRING) {
        style.indent = c->arg[1].as.string;
    } else if (style.pretty) {
        struct jinja_sb sb;
        int64_t width = jinja_arg_int(in, c, 1, 0);
        jinja_sb_init(&sb, e);
        jinja_sb_fill(&sb, ' ', width > 0 ? (size_t)width : 0);
        style.indent = jinja_sb_take(&sb);
    }
    if (jinja_arg_given(c, 2)) {
        const struct jinja_list *l = jinja_items_of(e, c->arg[2]);
        if (l->len != 2 || l->items[0].kind != JINJA_STRING || l->items[1].kind != JINJA_STRING)
            jinja_fail(e, "tojson: separators must be two strings");
        style.item_separator = l->items[0].as.string;
        style.key_separator = l->items[1].as.string;
    }
    return jinja_string(jinja_to_json(e, c->self, &style));
}
