/* jinja_text.c - the text operations that filters and methods share. */
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"
#include "engine/text/jinja_unicode.h"

#include <string.h>

static void add_case(struct jinja_sb *sb, uint32_t c, int (*map)(uint32_t c, uint32_t out[3]))
{
    uint32_t out[3];
    int n = map(c, out);
    for (int i = 0; i < n; i++)
        jinja_sb_char(sb, out[i]);
}

static bool is_cased(uint32_t c)
{
    return jinja_char_is_upper(c) || jinja_char_is_lower(c) || jinja_char_is_title(c);
}

/* Small sigma at a word's end has a form of its own. */
static bool is_final_sigma(const struct jinja_string *s, size_t at, size_t len)
{
    size_t n;
    if (at == 0 || !is_cased(jinja_str_char_before(s, at, &n)))
        return false;
    return at + len >= s->len || !is_cased(jinja_str_char(s, at + len, &n));
}

static void add_lower(struct jinja_sb *sb, const struct jinja_string *s, size_t at, size_t *n)
{
    uint32_t c = jinja_str_char(s, at, n);
    if (c == 0x3A3)
        jinja_sb_char(sb, is_final_sigma(s, at, *n) ? 0x3C2 : 0x3C3);
    else
        add_case(sb, c, jinja_char_lower);
}

const struct jinja_string *jinja_str_upper(struct jinja_env *e, const struct jinja_string *s)
{
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    jinja_charge_bytes(e, s->len);
    for (size_t at = 0, n; at < s->len; at += n)
        add_case(&sb, jinja_str_char(s, at, &n), jinja_char_upper);
    return jinja_str_mark(e, jinja_sb_take(&sb), s->markup);
}

const struct jinja_string *jinja_str_lower(struct jinja_env *e, const struct jinja_string *s)
{
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    jinja_charge_bytes(e, s->len);
    for (size_t at = 0, n; at < s->len; at += n)
        add_lower(&sb, s, at, &n);
    return jinja_str_mark(e, jinja_sb_take(&sb), s->markup);
}

const struct jinja_string *jinja_str_capitalize(struct jinja_env *e, const struct jinja_string *s)
{
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    jinja_charge_bytes(e, s->len);
    for (size_t at = 0, n; at < s->len; at += n) {
        if (at == 0)
            add_case(&sb, jinja_str_char(s, at, &n), jinja_char_title);
        else
            add_lower(&sb, s, at, &n);
    }
    return jinja_str_mark(e, jinja_sb_take(&sb), s->markup);
}

/* At least one cased character, and none of the other case. */
static bool is_case(const struct jinja_string *s, bool upper)
{
    bool any = false;
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t c = jinja_str_char(s, at, &n);
        if (jinja_char_is_title(c) || (upper ? jinja_char_is_lower(c) : jinja_char_is_upper(c)))
            return false;
        any |= upper ? jinja_char_is_upper(c) : jinja_char_is_lower(c);
    }
    return any;
}

bool jinja_str_is_upper(const struct jinja_string *s)
{
    return is_case(s, true);
}

bool jinja_str_is_lower(const struct jinja_string *s)
{
    return is_case(s, false);
}

static bool strips(const struct jinja_string *chars, const struct jinja_string *s, size_t at,
                   size_t n, uint32_t c)
{
    if (!chars)
        return jinja_char_is_space(c);
    return chars->len >= n && memmem(chars->data, chars->len, s->data + at, n) != NULL;
}

const struct jinja_string *jinja_str_strip(struct jinja_env *e, const struct jinja_string *s,
                                           const struct jinja_string *chars, int sides)
{
    size_t from = 0, to = s->len, n;
    while ((sides & 1) && from < to) {
        uint32_t c = jinja_str_char(s, from, &n);
        if (!strips(chars, s, from, n, c))
            break;
        from += n;
        jinja_charge_bytes(e, chars ? chars->len : 0);
    }
    while ((sides & 2) && to > from) {
        uint32_t c = jinja_str_char_before(s, to, &n);
        if (!strips(chars, s, to - n, n, c))
            break;
        to -= n;
        jinja_charge_bytes(e, chars ? chars->len : 0);
    }
    return jinja_str_bytes(e, s, from, to);
}

const struct jinja_string *jinja_str_replace(struct jinja_env *e, const struct jinja_string *s,
                                             const struct jinja_string *from,
                                             const struct jinja_string *to, int64_t max)
{
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    jinja_charge_bytes(e, s->len);
    size_t at = 0;
    int64_t done = 0;
    for (; max < 0 || done < max; done++) {
        if (from->len == 0) { /* before every character, and at the end */
            size_t n = 0;
            if (done > 0 && at >= s->len)
                break;
            if (done > 0)
                jinja_str_char(s, at, &n);
            jinja_sb_add(&sb, s->data + at, n);
            at += n;
        } else {
            const char *hit = memmem(s->data + at, s->len - at, from->data, from->len);
            if (!hit)
                break;
            jinja_sb_add(&sb, s->data + at, (size_t)(hit - s->data) - at);
            at = (size_t)(hit - s->data) + from->len;
        }
        jinja_sb_str(&sb, to);
        jinja_charge(e, 1);
    }
    if (done == 0)
        return s;
    jinja_sb_add(&sb, s->data + at, s->len - at);
    return jinja_str_mark(e, jinja_sb_take(&sb), s->markup);
}

struct jinja_list *jinja_str_splitlines(struct jinja_env *e, const struct jinja_string *s,
                                        bool keep_ends)
{
    struct jinja_list *lines = jinja_list_new(e, 0);
    jinja_charge_bytes(e, s->len);
    for (size_t from = 0; from < s->len;) {
        size_t at = from, n = 0, end = s->len;
        for (; at < s->len; at += n) {
            uint32_t c = jinja_str_char(s, at, &n);
            if (jinja_char_is_line_break(c)) {
                if (c == '\r' && at + 1 < s->len && s->data[at + 1] == '\n')
                    n = 2;
                end = at;
                at += n;
                break;
            }
        }
        jinja_list_push(e, lines, jinja_string(jinja_str_bytes(e, s, from, keep_ends ? at : end)));
        jinja_charge(e, 1);
        from = at;
    }
    return lines;
}

const struct jinja_string *jinja_str_pad(struct jinja_interp *in, const struct jinja_string *s,
                                         int64_t width, uint32_t fill, char align)
{
    if (width <= (int64_t)s->chars)
        return s;
    size_t pad = (size_t)width - s->chars, left;
    if (align == '^')
        left = pad / 2;
    else if (align == 'c') /* str.center leans left when the width is even, right when odd */
        left = pad / 2 + (pad & (size_t)width & 1);
    else
        left = align == '>' ? pad : 0;
    struct jinja_sb sb;
    jinja_sb_init(&sb, &in->env);
    jinja_sb_fill(&sb, fill, left);
    jinja_sb_str(&sb, s);
    jinja_sb_fill(&sb, fill, pad - left);
    return jinja_str_mark(&in->env, jinja_sb_take(&sb), s->markup);
}

const struct jinja_string *jinja_escape(struct jinja_interp *in, struct jinja_value v)
{
    static const char special[] = "&<>'\"";
    static const char *const entities[] = { "&amp;", "&lt;", "&gt;", "&#39;", "&#34;" };
    const struct jinja_string *s = jinja_to_str(&in->env, v);
    if (s->markup)
        return s;
    struct jinja_sb sb;
    jinja_sb_init(&sb, &in->env);
    for (size_t i = 0; i < s->len; i++) {
        const char *hit = s->data[i] ? strchr(special, s->data[i]) : NULL;
        if (hit)
            jinja_sb_text(&sb, entities[hit - special]);
        else
            jinja_sb_add(&sb, s->data + i, 1);
    }
    jinja_charge_bytes(&in->env, s->len);
    return jinja_str_mark(&in->env, jinja_sb_take(&sb), true);
}

struct jinja_value jinja_join(struct jinja_interp *in, const struct jinja_string *separator,
                              const struct jinja_list *items)
{
    struct jinja_sb sb;
    jinja_sb_init(&sb, &in->env);
    for (size_t i = 0; i < items->len; i++) {
        if (i)
            jinja_sb_str(&sb, separator);
        jinja_sb_str(&sb, separator->markup ? jinja_escape(in, items->items[i])
                                            : jinja_to_str(&in->env, items->items[i]));
        jinja_charge(&in->env, 1);
    }
    return jinja_string(jinja_str_mark(&in->env, jinja_sb_take(&sb), separator->markup));
}
