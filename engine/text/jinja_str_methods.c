/* jinja_str_methods.c - the methods of str. */
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_repr.h"
#include "engine/text/jinja_unicode.h"

#include <string.h>

static const struct jinja_string *self(const struct jinja_call *c)
{
    return c->self.as.string;
}

/* Results of a Markup's methods are Markup. */
static struct jinja_value text(struct jinja_interp *in, const struct jinja_call *c,
                               const struct jinja_string *s)
{
    return jinja_string(jinja_str_mark(&in->env, s, self(c)->markup));
}

static struct jinja_value upper(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_str_upper(&in->env, self(c)));
}

static struct jinja_value lower(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_str_lower(&in->env, self(c)));
}

static struct jinja_value capitalize(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_string(jinja_str_capitalize(&in->env, self(c)));
}

/* Each run of cased characters starts in title case and goes on in lower case. */
static struct jinja_value title(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c);
    struct jinja_sb sb;
    bool inside = false;
    jinja_sb_init(&sb, &in->env);
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jinja_str_char(s, at, &n), out[3];
        int len = inside ? jinja_char_lower(ch, out) : jinja_char_title(ch, out);
        for (int i = 0; i < len; i++)
            jinja_sb_char(&sb, out[i]);
        inside = jinja_char_is_upper(ch) || jinja_char_is_lower(ch) || jinja_char_is_title(ch);
    }
    return text(in, c, jinja_sb_take(&sb));
}

static struct jinja_value swapcase(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c);
    struct jinja_sb sb;
    jinja_sb_init(&sb, &in->env);
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jinja_str_char(s, at, &n), out[3] = { ch };
        int len = jinja_char_is_upper(ch)   ? jinja_char_lower(ch, out)
                  : jinja_char_is_lower(ch) ? jinja_char_upper(ch, out)
                                            : 1;
        for (int i = 0; i < len; i++)
            jinja_sb_char(&sb, out[i]);
    }
    return text(in, c, jinja_sb_take(&sb));
}

static struct jinja_value strip_sides(struct jinja_interp *in, struct jinja_call *c, int sides)
{
    const struct jinja_string *chars = NULL;
    if (jinja_arg_given(c, 0)) {
        if (c->arg[0].kind != JINJA_STRING)
            jinja_fail(&in->env, "%s arg must be None or str", c->builtin->name);
        chars = c->arg[0].as.string;
    }
    return jinja_string(jinja_str_strip(&in->env, self(c), chars, sides));
}

static struct jinja_value strip(struct jinja_interp *in, struct jinja_call *c)
{
    return strip_sides(in, c, 3);
}

static struct jinja_value lstrip(struct jinja_interp *in, struct jinja_call *c)
{
    return strip_sides(in, c, 1);
}

static struct jinja_value rstrip(struct jinja_interp *in, struct jinja_call *c)
{
    return strip_sides(in, c, 2);
}

static struct jinja_value join(struct jinja_interp *in, struct jinja_call *c)
{
    if (!jinja_is_iterable(c->arg[0]))
        jinja_fail(&in->env, "can only join an iterable");
    struct jinja_list *items = jinja_items_of(&in->env, c->arg[0]);
    for (size_t i = 0; i < items->len; i++)
        if (items->items[i].kind != JINJA_STRING && !self(c)->markup)
            jinja_fail(&in->env, "sequence item %zu: expected str instance, %s found", i,
                       jinja_type_name(items->items[i]));
    return jinja_join(in, self(c), items);
}

static struct jinja_value replace(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *from = jinja_arg_str(in, c, 0, ""),
                              *to = jinja_arg_str(in, c, 1, "");
    if (self(c)->markup)
        to = jinja_escape(in, jinja_string(to));
    return jinja_string(
        jinja_str_replace(&in->env, self(c), from, to, jinja_arg_int(in, c, 2, -1)));
}

/* The part of the text that arguments 1 and 2 select, as byte offsets; false where it is empty in
 * the sense that even the empty text is not found there. */
static bool window(struct jinja_interp *in, const struct jinja_call *c, size_t *from, size_t *to)
{
    int64_t len = (int64_t)self(c)->chars;
    int64_t a = jinja_arg_given(c, 1) ? jinja_arg_int(in, c, 1, 0) : 0;
    int64_t b = jinja_arg_given(c, 2) ? jinja_arg_int(in, c, 2, len) : len;
    a = a < 0 ? (a < -len ? 0 : a + len) : a;
    b = b < 0 ? (b < -len ? 0 : b + len) : b > len ? len : b;
    if (a > b)
        return false;
    *from = jinja_str_offset(&in->env, self(c), (size_t)a);
    *to = jinja_str_offset(&in->env, self(c), (size_t)b);
    return true;
}

static const struct jinja_string *needle_of(struct jinja_interp *in, const struct jinja_call *c)
{
    if (c->arg[0].kind != JINJA_STRING)
        jinja_fail(&in->env, "must be str, not %s", jinja_type_name(c->arg[0]));
    return c->arg[0].as.string;
}

static int64_t find_in(struct jinja_interp *in, struct jinja_call *c, bool last)
{
    size_t from, to;
    const struct jinja_string *needle = needle_of(in, c);
    if (!window(in, c, &from, &to))
        return -1;
    int64_t at = last ? jinja_str_rfind(&in->env, self(c), needle, from, to)
                      : jinja_str_find(&in->env, self(c), needle, from, to);
    return at < 0 ? -1 : (int64_t)jinja_str_index(&in->env, self(c), (size_t)at);
}

static struct jinja_value find(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_int(find_in(in, c, false));
}

static struct jinja_value rfind(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_int(find_in(in, c, true));
}

static struct jinja_value found(struct jinja_interp *in, int64_t at)
{
    if (at < 0)
        jinja_fail(&in->env, "substring not found");
    return jinja_int(at);
}

static struct jinja_value str_index(struct jinja_interp *in, struct jinja_call *c)
{
    return found(in, find_in(in, c, false));
}

static struct jinja_value str_rindex(struct jinja_interp *in, struct jinja_call *c)
{
    return found(in, find_in(in, c, true));
}

static struct jinja_value count(struct jinja_interp *in, struct jinja_call *c)
{
    size_t from, to;
    const struct jinja_string *s = self(c), *needle = needle_of(in, c);
    if (!window(in, c, &from, &to))
        return jinja_int(0);
    if (needle->len == 0)
        return jinja_int((int64_t)(jinja_str_bytes(&in->env, s, from, to)->chars + 1));
    jinja_charge_bytes(&in->env, to - from);
    int64_t n = 0;
    const char *p;
    while ((p = memmem(s->data + from, to - from, needle->data, needle->len))) {
        n++;
        from = (size_t)(p - s->data) + needle->len;
    }
    return jinja_int(n);
}

static bool fits(const struct jinja_string *s, size_t from, size_t to, struct jinja_value part,
                 bool at_end)
{
    const struct jinja_string *p = part.as.string;
    return p->len <= to - from &&
           (p->len == 0 || memcmp(s->data + (at_end ? to - p->len : from), p->data, p->len) == 0);
}

static struct jinja_value with_end(struct jinja_interp *in, struct jinja_call *c, bool at_end)
{
    size_t from, to;
    struct jinja_value what = c->arg[0];
    bool tuple = what.kind == JINJA_TUPLE, inside = window(in, c, &from, &to);
    if (!tuple && what.kind != JINJA_STRING)
        jinja_fail(&in->env, "%s first arg must be str or a tuple of str, not %s", c->builtin->name,
                   jinja_type_name(what));
    if (!tuple)
        return jinja_bool(inside && fits(self(c), from, to, what, at_end));
    for (size_t i = 0; i < what.as.list->len; i++) {
        struct jinja_value one = what.as.list->items[i];
        jinja_charge(&in->env, 1);
        if (one.kind != JINJA_STRING)
            jinja_fail(&in->env, "tuple for %s must only contain str, not %s", c->builtin->name,
                       jinja_type_name(one));
        if (inside && fits(self(c), from, to, one, at_end))
            return jinja_bool(true);
    }
    return jinja_bool(false);
}

static struct jinja_value startswith(struct jinja_interp *in, struct jinja_call *c)
{
    return with_end(in, c, false);
}

static struct jinja_value endswith(struct jinja_interp *in, struct jinja_call *c)
{
    return with_end(in, c, true);
}

static struct jinja_value removeprefix(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c), *p = jinja_arg_str(in, c, 0, "");
    bool has = fits(s, 0, s->len, jinja_string(p), false);
    return jinja_string(jinja_str_bytes(&in->env, s, has ? p->len : 0, s->len));
}

static struct jinja_value removesuffix(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c), *p = jinja_arg_str(in, c, 0, "");
    bool has = fits(s, 0, s->len, jinja_string(p), true);
    return jinja_string(jinja_str_bytes(&in->env, s, 0, has ? s->len - p->len : s->len));
}

static struct jinja_value pad(struct jinja_interp *in, struct jinja_call *c, char align)
{
    const struct jinja_string *fill = jinja_arg_str(in, c, 1, " ");
    if (fill->chars != 1)
        jinja_fail(&in->env, "The fill character must be exactly one character long");
    size_t n;
    return jinja_string(
        jinja_str_pad(in, self(c), jinja_arg_int(in, c, 0, 0), jinja_str_char(fill, 0, &n), align));
}

static struct jinja_value ljust(struct jinja_interp *in, struct jinja_call *c)
{
    return pad(in, c, '<');
}

static struct jinja_value rjust(struct jinja_interp *in, struct jinja_call *c)
{
    return pad(in, c, '>');
}

static struct jinja_value center(struct jinja_interp *in, struct jinja_call *c)
{
    return pad(in, c, 'c');
}

static struct jinja_value zfill(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c);
    int64_t missing = jinja_arg_int(in, c, 0, 0) - (int64_t)s->chars;
    size_t sign = s->len && (s->data[0] == '-' || s->data[0] == '+') ? 1 : 0;
    if (missing <= 0)
        return c->self;
    struct jinja_sb sb;
    jinja_sb_init(&sb, &in->env);
    jinja_sb_add(&sb, s->data, sign);
    jinja_sb_fill(&sb, '0', (size_t)missing);
    jinja_sb_add(&sb, s->data + sign, s->len - sign);
    return text(in, c, jinja_sb_take(&sb));
}

static struct jinja_value expandtabs(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c);
    int64_t size = jinja_arg_int(in, c, 0, 8), column = 0;
    struct jinja_sb sb;
    jinja_sb_init(&sb, &in->env);
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jinja_str_char(s, at, &n);
        if (ch == '\t') {
            int64_t fill = size > 0 ? size - column % size : 0;
            jinja_sb_fill(&sb, ' ', (size_t)fill);
            column += fill;
        } else {
            jinja_sb_add(&sb, s->data + at, n);
            column = ch == '\n' || ch == '\r' ? 0 : column + 1;
        }
        jinja_charge(&in->env, 1);
    }
    return text(in, c, jinja_sb_take(&sb));
}

static struct jinja_value format(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_brace_format(in, self(c), c->args);
}

static struct jinja_value format_map(struct jinja_interp *in, struct jinja_call *c)
{
    if (c->arg[0].kind != JINJA_DICT)
        jinja_fail(&in->env, "format_map() wants a mapping, not %s", jinja_type_name(c->arg[0]));
    const struct jinja_dict *d = c->arg[0].as.dict;
    struct jinja_args args = { .kw = jinja_array(&in->env, d->len + 1, sizeof args.kw[0]) };
    for (size_t i = 0; i < d->len; i++)
        if (d->entries[i].key.kind == JINJA_STRING)
            args.kw[args.num_kw++] =
                (struct jinja_kwarg){ d->entries[i].key.as.string, d->entries[i].value };
    return jinja_brace_format(in, self(c), &args);
}

/* Whether there is a character and all of them are `is`. */
static struct jinja_value all(struct jinja_interp *in, const struct jinja_call *c,
                              bool (*is)(uint32_t c))
{
    const struct jinja_string *s = self(c);
    bool yes = s->len > 0;
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = 0, n; yes && at < s->len; at += n)
        yes = is(jinja_str_char(s, at, &n));
    return jinja_bool(yes);
}

static struct jinja_value isalpha_(struct jinja_interp *in, struct jinja_call *c)
{
    return all(in, c, jinja_char_is_alpha);
}

static struct jinja_value isalnum_(struct jinja_interp *in, struct jinja_call *c)
{
    return all(in, c, jinja_char_is_alnum);
}

static struct jinja_value isdecimal(struct jinja_interp *in, struct jinja_call *c)
{
    return all(in, c, jinja_char_is_decimal);
}

static struct jinja_value isdigit_(struct jinja_interp *in, struct jinja_call *c)
{
    return all(in, c, jinja_char_is_digit);
}

static struct jinja_value isnumeric(struct jinja_interp *in, struct jinja_call *c)
{
    return all(in, c, jinja_char_is_numeric);
}

static struct jinja_value isspace_(struct jinja_interp *in, struct jinja_call *c)
{
    return all(in, c, jinja_char_is_space);
}

static struct jinja_value isprintable(struct jinja_interp *in, struct jinja_call *c)
{
    return jinja_bool(self(c)->len == 0 || all(in, c, jinja_char_is_printable).as.boolean);
}

static struct jinja_value isascii_(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(self(c)->len == self(c)->chars);
}

static struct jinja_value isidentifier(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c);
    bool yes = s->len > 0;
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = 0, n; yes && at < s->len; at += n)
        yes = jinja_char_is_identifier(jinja_str_char(s, at, &n), at == 0);
    return jinja_bool(yes);
}

static struct jinja_value isupper_(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(jinja_str_is_upper(self(c)));
}

static struct jinja_value islower_(struct jinja_interp *in, struct jinja_call *c)
{
    (void)in;
    return jinja_bool(jinja_str_is_lower(self(c)));
}

/* Upper and title case only where a word starts, lower case only inside; at least one of them. */
static struct jinja_value istitle(struct jinja_interp *in, struct jinja_call *c)
{
    const struct jinja_string *s = self(c);
    bool any = false, inside = false;
    jinja_charge_bytes(&in->env, s->len);
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jinja_str_char(s, at, &n);
        bool up = jinja_char_is_upper(ch) || jinja_char_is_title(ch), low = jinja_char_is_lower(ch);
        if (up ? inside : low && !inside)
            return jinja_bool(false);
        inside = up || low;
        any |= inside;
    }
    return jinja_bool(any);
}

static struct jinja_value not_offered(struct jinja_interp *in, struct jinja_call *c)
{
    jinja_fail(&in->env, "the str method '%s' is not offered to chat templates", c->builtin->name);
}

const struct jinja_builtin jinja_str_methods[] = {
    { "strip", "chars", strip },
    { "lstrip", "chars", lstrip },
    { "rstrip", "chars", rstrip },
    { "split", "sep maxsplit", jinja_m_split },
    { "rsplit", "sep maxsplit", jinja_m_rsplit },
    { "splitlines", "keepends", jinja_m_splitlines },
    { "partition", "!sep", jinja_m_partition },
    { "rpartition", "!sep", jinja_m_rpartition },
    { "startswith", "!prefix start end", startswith },
    { "endswith", "!suffix start end", endswith },
    { "removeprefix", "!prefix", removeprefix },
    { "removesuffix", "!suffix", removesuffix },
    { "replace", "!old !new count", replace },
    { "join", "!iterable", join },
    { "upper", "", upper },
    { "lower", "", lower },
    { "casefold", "", not_offered },
    { "capitalize", "", capitalize },
    { "title", "", title },
    { "swapcase", "", swapcase },
    { "find", "!sub start end", find },
    { "rfind", "!sub start end", rfind },
    { "index", "!sub start end", str_index },
    { "rindex", "!sub start end", str_rindex },
    { "count", "!sub start end", count },
    { "ljust", "!width fillchar", ljust },
    { "rjust", "!width fillchar", rjust },
    { "center", "!width fillchar", center },
    { "zfill", "!width", zfill },
    { "expandtabs", "tabsize", expandtabs },
    { "format", NULL, format },
    { "format_map", "!mapping", format_map },
    { "isalpha", "", isalpha_ },
    { "isalnum", "", isalnum_ },
    { "isascii", "", isascii_ },
    { "isdecimal", "", isdecimal },
    { "isdigit", "", isdigit_ },
    { "isidentifier", "", isidentifier },
    { "islower", "", islower_ },
    { "isnumeric", "", isnumeric },
    { "isprintable", "", isprintable },
    { "isspace", "", isspace_ },
    { "istitle", "", istitle },
    { "isupper", "", isupper_ },
    { "encode", NULL, not_offered },
    { "maketrans", NULL, not_offered },
    { "translate", NULL, not_offered },
    { NULL, NULL, NULL },
};
