/* jinja_format.c - `format % values`. */
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 200 };

struct percent {
    struct jinja_interp *in;
    struct jinja_sb sb;
    const struct jinja_string *format;
    size_t at;
    struct jinja_value values; /* a tuple is taken item by item */
    size_t next;
    bool named; /* a mapping key was used */
};

struct spec {
    bool left, plus, space, zero, alternate;
    int64_t width, precision; /* precision -1: not given */
    char type;
};

static struct jinja_value next_value(struct percent *p)
{
    if (p->values.kind != JINJA_TUPLE) {
        if (p->next++ > 0)
            jinja_fail(&p->in->env, "not enough arguments for format string");
        return p->values;
    }
    if (p->next >= p->values.as.list->len)
        jinja_fail(&p->in->env, "not enough arguments for format string");
    return p->values.as.list->items[p->next++];
}

static char peek(const struct percent *p)
{
    return p->at < p->format->len ? p->format->data[p->at] : '\0';
}

static int64_t read_number(struct percent *p, int64_t max)
{
    int64_t n = 0;
    if (peek(p) == '*') {
        p->at++;
        struct jinja_value v = next_value(p);
        if (v.kind != JINJA_INT)
            jinja_fail(&p->in->env, "* wants int");
        n = v.as.integer;
    } else {
        while (peek(p) >= '0' && peek(p) <= '9' && n <= max)
            n = n * 10 + (p->format->data[p->at++] - '0');
    }
    if (n > max || n < -max)
        jinja_fail(&p->in->env, "a width or precision of the format is too large");
    return n;
}

static struct jinja_value mapped_value(struct percent *p)
{
    size_t from = ++p->at, depth = 1;
    for (; p->at < p->format->len; p->at++) {
        char c = p->format->data[p->at];
        depth += c == '(';
        if (c == ')' && --depth == 0)
            break;
    }
    if (p->at >= p->format->len)
        jinja_fail(&p->in->env, "incomplete format key");
    if (p->values.kind != JINJA_DICT)
        jinja_fail(&p->in->env, "format requires a mapping");
    const struct jinja_string *key = jinja_str_bytes(&p->in->env, p->format, from, p->at++);
    const struct jinja_value *v = jinja_dict_get_text(&p->in->env, p->values.as.dict, key);
    p->named = true;
    if (v)
        return *v;
    jinja_fail(&p->in->env, "'%.*s'", (int)(key->len > 200 ? 200 : key->len), key->data);
}

static struct spec read_spec(struct percent *p)
{
    struct spec s = { .precision = -1 };
    for (;; p->at++) {
        char c = peek(p);
        if (c == '-')
            s.left = true;
        else if (c == '+')
            s.plus = true;
        else if (c == ' ')
            s.space = true;
        else if (c == '0')
            s.zero = true;
        else if (c == '#')
            s.alternate = true;
        else
            break;
    }
    s.width = read_number(p, MAX_WIDTH);
    if (s.width < 0) {
        s.left = true;
        s.width = -s.width;
    }
    if (peek(p) == '.') {
        p->at++;
        s.precision = read_number(p, MAX_WIDTH);
        if (s.precision < 0)
            s.precision = 0;
    }
    while (peek(p) == 'h' || peek(p) == 'l' || peek(p) == 'L')
        p->at++;
    if (p->at >= p->format->len)
        jinja_fail(&p->in->env, "incomplete format");
    s.type = p->format->data[p->at++];
    return s;
}

/* Writes `text`, whose sign or prefix is its first `lead` bytes, at the width. */
static void write_padded(struct percent *p, const struct spec *s, const struct jinja_string *text,
                         size_t lead, bool numeric)
{
    int64_t missing = s->width - (int64_t)text->chars;
    size_t pad = missing > 0 ? (size_t)missing : 0;
    bool zero = numeric && s->zero && !s->left;
    if (!s->left && !zero)
        jinja_sb_fill(&p->sb, ' ', pad);
    jinja_sb_add(&p->sb, text->data, lead);
    if (zero)
        jinja_sb_fill(&p->sb, '0', pad);
    jinja_sb_add(&p->sb, text->data + lead, text->len - lead);
    if (s->left)
        jinja_sb_fill(&p->sb, ' ', pad);
}

static void write_text(struct percent *p, const struct spec *s, struct jinja_value v)
{
    struct jinja_env *e = &p->in->env;
    const struct jinja_string *text = s->type == 's' ? jinja_to_str(e, v) : jinja_repr(e, v);
    if (s->type == 's' && p->format->markup)
        text = jinja_escape(p->in, v);
    if (s->precision >= 0 && (size_t)s->precision < text->chars)
        text = jinja_str_sub(e, text, 0, (size_t)s->precision);
    write_padded(p, s, text, 0, false);
}

static void write_char(struct percent *p, const struct spec *s, struct jinja_value v)
{
    struct jinja_env *e = &p->in->env;
    if (v.kind == JINJA_STRING && v.as.string->chars == 1) {
        write_padded(p, s, v.as.string, 0, false);
        return;
    }
    int64_t c = jinja_is_integral(v) ? jinja_integer(v) : -1;
    if (!jinja_is_integral(v))
        jinja_fail(e, "%%c requires int or char");
    if (c < 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        jinja_fail(e, "%%c arg not in range(0x110000)");
    struct jinja_sb one;
    jinja_sb_init(&one, e);
    jinja_sb_char(&one, (uint32_t)c);
    write_padded(p, s, jinja_sb_take(&one), 0, false);
}

static char sign_of(const struct spec *s, bool negative)
{
    return negative ? '-' : s->plus ? '+' : s->space ? ' ' : '\0';
}

static int64_t to_integer(struct percent *p, const struct spec *s, struct jinja_value v)
{
    if (jinja_is_integral(v))
        return jinja_integer(v);
    bool decimal = s->type == 'd' || s->type == 'i' || s->type == 'u';
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&p->in->env, v);
    if (v.kind != JINJA_FLOAT || !decimal)
        jinja_fail(&p->in->env, "%%%c format: %s is required, not %s", s->type,
                   decimal ? "a real number" : "an integer", jinja_type_name(v));
    if (!(fabs(v.as.real) < 9.2e18))
        jinja_fail(&p->in->env, "the number does not fit a 64-bit integer");
    return (int64_t)v.as.real;
}

static void write_integer(struct percent *p, const struct spec *s, struct jinja_value v)
{
    char digits[32], sign;
    int64_t i = to_integer(p, s, v);
    uint64_t size = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    const char *form = s->type == 'x'   ? "%llx"
                       : s->type == 'X' ? "%llX"
                       : s->type == 'o' ? "%llo"
                                        : "%llu";
    int n = snprintf(digits, sizeof digits, form, (unsigned long long)size);
    struct jinja_sb text;
    jinja_sb_init(&text, &p->in->env);
    if ((sign = sign_of(s, i < 0)))
        jinja_sb_char(&text, (unsigned char)sign);
    if (s->alternate && (s->type == 'x' || s->type == 'X' || s->type == 'o')) {
        jinja_sb_char(&text, '0');
        jinja_sb_char(&text, (unsigned char)s->type);
    }
    size_t lead = text.len;
    if (s->precision > n)
        jinja_sb_fill(&text, '0', (size_t)(s->precision - n));
    jinja_sb_add(&text, digits, (size_t)n);
    write_padded(p, s, jinja_sb_take(&text), lead, true);
}

static void write_float(struct percent *p, const struct spec *s, struct jinja_value v)
{
    char form[16], text[400 + MAX_PRECISION], sign;
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&p->in->env, v);
    if (!jinja_is_number(v))
        jinja_fail(&p->in->env, "must be real number, not %s", jinja_type_name(v));
    if (s->precision > MAX_PRECISION)
        jinja_fail(&p->in->env, "a precision above %d is not offered", MAX_PRECISION);
    double d = jinja_real(v);
    bool upper = s->type == 'E' || s->type == 'F' || s->type == 'G';
    if (!isfinite(d)) {
        strcpy(text, isnan(d) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
    } else {
        snprintf(form, sizeof form, "%%%s.*%c", s->alternate ? "#" : "", s->type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, form, s->precision < 0 ? 6 : (int)s->precision, fabs(d));
#pragma GCC diagnostic pop
    }
    struct jinja_sb sb;
    jinja_sb_init(&sb, &p->in->env);
    if ((sign = sign_of(s, signbit(d) && !isnan(d))))
        jinja_sb_char(&sb, (unsigned char)sign);
    size_t lead = sb.len;
    jinja_sb_text(&sb, text);
    write_padded(p, s, jinja_sb_take(&sb), lead, true);
}

static void write_value(struct percent *p)
{
    struct jinja_value v = jinja_missing();
    if (peek(p) == '(')
        v = mapped_value(p);
    struct spec s = read_spec(p);
    if (s.type == '%') {
        jinja_sb_char(&p->sb, '%');
        return;
    }
    if (v.kind == JINJA_MISSING)
        v = next_value(p);
    switch (s.type) {
    case 's':
    case 'r':
    case 'a':
        write_text(p, &s, v);
        return;
    case 'c':
        write_char(p, &s, v);
        return;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        write_integer(p, &s, v);
        return;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        write_float(p, &s, v);
        return;
    default:
        jinja_fail(&p->in->env, "unsupported format character '%c' (0x%x) at index %zu",
                   s.type >= 32 && s.type < 127 ? s.type : '?', (unsigned char)s.type, p->at - 1);
    }
}

struct jinja_value jinja_percent_format(struct jinja_interp *in, const struct jinja_string *format,
                                        struct jinja_value values)
{
    struct percent p = { .in = in, .format = format, .values = values };
    jinja_sb_init(&p.sb, &in->env);
    while (p.at < format->len) {
        const char *from = format->data + p.at;
        const char *percent = memchr(from, '%', format->len - p.at);
        size_t run = percent ? (size_t)(percent - from) : format->len - p.at;
        jinja_sb_add(&p.sb, from, run);
        p.at += run;
        if (!percent)
            break;
        p.at++;
        if (p.at >= format->len)
            jinja_fail(&in->env, "incomplete format");
        write_value(&p);
    }
    /* Values left over are an error, unless they could have been taken by name. */
    size_t given = values.kind == JINJA_TUPLE ? values.as.list->len : 1;
    bool by_name = values.kind == JINJA_DICT || values.kind == JINJA_LIST ||
                   values.kind == JINJA_RANGE || values.kind == JINJA_UNDEFINED;
    if (p.next < given && !p.named && !by_name)
        jinja_fail(&in->env, "not all arguments converted during string formatting");
    return jinja_string(jinja_str_mark(&in->env, jinja_sb_take(&p.sb), format->markup));
}
