/* jinja_brace.c - str.format: replacement fields, and Python's format specifications. */
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_repr.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 200, MAX_NESTING = 2 };

struct brace {
    struct jinja_interp *in;
    const struct jinja_args *args;
    int64_t next; /* of automatic numbering; -1 once fields are numbered by hand */
    bool manual;
};

struct spec {
    uint32_t fill;
    char align, sign, grouping, type; /* '\0': not given */
    bool alternate, zero;
    int64_t width, precision; /* -1: not given */
};

static const struct jinja_string *format_text(struct brace *b, const struct jinja_string *format,
                                              int nesting);

static struct jinja_value positional(struct brace *b, int64_t index)
{
    if (index < 0 || (size_t)index >= b->args->num_pos)
        jinja_fail(&b->in->env, "tuple index out of range");
    return b->args->pos[index];
}

static bool all_digits(const char *text, size_t len, int64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || *value > 1000000)
            return false;
        *value = *value * 10 + (text[i] - '0');
    }
    return len > 0;
}

static struct jinja_value first_value(struct brace *b, const char *name, size_t len)
{
    int64_t index;
    bool numbered = all_digits(name, len, &index);
    if (len == 0 || numbered) {
        bool automatic = len == 0;
        if (automatic ? b->manual : b->next > 0)
            jinja_fail(&b->in->env, automatic ? "cannot switch from manual field specification to "
                                                "automatic field numbering"
                                              : "cannot switch from automatic field numbering to "
                                                "manual field specification");
        b->manual = !automatic;
        return positional(b, automatic ? b->next++ : index);
    }
    for (size_t i = 0; i < b->args->num_kw; i++)
        if (b->args->kw[i].name->len == len && memcmp(b->args->kw[i].name->data, name, len) == 0)
            return b->args->kw[i].value;
    jinja_fail(&b->in->env, "'%.*s'", (int)(len > 200 ? 200 : len), name);
}

/* `name.attr[item]...` */
static struct jinja_value field_value(struct brace *b, const char *field, size_t len)
{
    struct jinja_env *e = &b->in->env;
    size_t at = 0;
    while (at < len && field[at] != '.' && field[at] != '[')
        at++;
    struct jinja_value v = first_value(b, field, at);
    while (at < len) {
        bool item = field[at] == '[';
        size_t from = ++at;
        while (at < len && (item ? field[at] != ']' : field[at] != '.' && field[at] != '['))
            at++;
        if (item && at >= len)
            jinja_fail(e, "Missing ']' in format string");
        if (at == from)
            jinja_fail(e, "Empty attribute in format string");
        const struct jinja_string *name = jinja_str(e, field + from, at - from);
        int64_t index;
        if (!item)
            v = jinja_getattr(b->in, v, name);
        else if (all_digits(name->data, name->len, &index))
            v = jinja_getitem(b->in, v, jinja_int(index));
        else
            v = jinja_getitem(b->in, v, jinja_string(name));
        if (item && ++at < len && field[at] != '.' && field[at] != '[')
            jinja_fail(e, "Only '.' or '[' may follow ']' in format field specifier");
    }
    return v;
}

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '=' || c == '^';
}

static int64_t spec_number(struct brace *b, const struct jinja_string *s, size_t *at)
{
    int64_t n = -1;
    while (*at < s->len && s->data[*at] >= '0' && s->data[*at] <= '9') {
        n = (n < 0 ? 0 : n) * 10 + (s->data[(*at)++] - '0');
        if (n > MAX_WIDTH)
            jinja_fail(&b->in->env, "a width or precision of the format is too large");
    }
    return n;
}

static struct spec parse_spec(struct brace *b, const struct jinja_string *s, struct jinja_value v)
{
    struct spec out = { .fill = ' ', .width = -1, .precision = -1 };
    size_t at = 0, n = 0;
    if (s->len) {
        uint32_t first = jinja_str_char(s, 0, &n);
        if (n < s->len && is_align(s->data[n])) {
            out.fill = first;
            out.align = s->data[n];
            at = n + 1;
        } else if (is_align(s->data[0])) {
            out.align = s->data[at++];
        }
    }
#define TAKE(condition) (at < s->len && (condition) && ++at)
    if (TAKE(s->data[at] == '+' || s->data[at] == '-' || s->data[at] == ' '))
        out.sign = s->data[at - 1];
    if (TAKE(s->data[at] == 'z'))
        jinja_fail(&b->in->env, "the format option 'z' is not offered");
    out.alternate = TAKE(s->data[at] == '#');
    if (TAKE(s->data[at] == '0') && !out.align) {
        out.fill = '0';
        out.align = '=';
        out.zero = true;
    }
    out.width = spec_number(b, s, &at);
    if (TAKE(s->data[at] == ',' || s->data[at] == '_'))
        out.grouping = s->data[at - 1];
    if (TAKE(s->data[at] == '.')) {
        out.precision = spec_number(b, s, &at);
        if (out.precision < 0)
            jinja_fail(&b->in->env, "Format specifier missing precision");
    }
    if (at < s->len)
        out.type = s->data[at++];
#undef TAKE
    if (at < s->len)
        jinja_fail(&b->in->env, "Invalid format specifier");
    (void)v;
    return out;
}

static _Noreturn void unknown_type(struct brace *b, const struct spec *s, struct jinja_value v)
{
    jinja_fail(&b->in->env, "Unknown format code '%c' for object of type '%s'",
               s->type >= 32 && s->type < 127 ? s->type : '?', jinja_type_name(v));
}

/* sign, prefix and digits at the width; `digits` may hold a fraction or exponent behind. */
static const struct jinja_string *numeric(struct brace *b, const struct spec *s, const char *lead,
                                          const char *digits)
{
    struct jinja_env *e = &b->in->env;
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    size_t whole = strspn(digits, "0123456789abcdefABCDEF");
    if (s->type != 'x' && s->type != 'X')
        whole = strspn(digits, "0123456789");
    size_t every =
        s->grouping ? (s->type == 'x' || s->type == 'X' || s->type == 'o' || s->type == 'b' ? 4 : 3)
                    : 0;
    for (size_t i = 0; digits[i]; i++) {
        if (every && i > 0 && i < whole && (whole - i) % every == 0)
            jinja_sb_char(&sb, (unsigned char)s->grouping);
        jinja_sb_char(&sb, (unsigned char)digits[i]);
    }
    const struct jinja_string *body = jinja_sb_take(&sb);
    int64_t missing = s->width - (int64_t)(strlen(lead) + body->chars);
    char align = s->align ? s->align : '>';
    if (align != '=') {
        body = jinja_str_concat(e, jinja_str_literal(e, lead), body);
        return jinja_str_pad(b->in, body, s->width, s->fill, align);
    }
    jinja_sb_init(&sb, e);
    jinja_sb_text(&sb, lead);
    if (missing > 0 && s->grouping && s->zero)
        jinja_fail(e, "zero padding together with grouping is not offered");
    if (missing > 0)
        jinja_sb_fill(&sb, s->fill, (size_t)missing);
    jinja_sb_str(&sb, body);
    return jinja_sb_take(&sb);
}

static void lead_of(const struct spec *s, bool negative, char lead[4])
{
    size_t n = 0;
    if (negative || s->sign == '+' || s->sign == ' ')
        lead[n++] = negative ? '-' : s->sign;
    if (s->alternate && (s->type == 'x' || s->type == 'X' || s->type == 'o' || s->type == 'b')) {
        lead[n++] = '0';
        lead[n++] = s->type;
    }
    lead[n] = '\0';
}

static const struct jinja_string *format_int(struct brace *b, const struct spec *s, int64_t i)
{
    char digits[72], lead[4];
    uint64_t size = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    if (s->precision >= 0)
        jinja_fail(&b->in->env, "Precision not allowed in integer format specifier");
    if (s->type == 'c') {
        if (i < 0 || i > 0x10FFFF || (i >= 0xD800 && i <= 0xDFFF))
            jinja_fail(&b->in->env, "%%c arg not in range(0x110000)");
        char bytes[4];
        const struct jinja_string *c =
            jinja_str(&b->in->env, bytes, (size_t)utf8_encode((uint32_t)i, bytes));
        return jinja_str_pad(b->in, c, s->width, s->fill, s->align ? s->align : '<');
    }
    if (s->type == 'b') {
        size_t n = 0;
        for (int bit = 63; bit >= 0; bit--)
            if (n > 0 || (size >> bit & 1) || bit == 0)
                digits[n++] = (char)('0' + (size >> bit & 1));
        digits[n] = '\0';
    } else if (s->type == 'x' || s->type == 'X') {
        snprintf(digits, sizeof digits, s->type == 'x' ? "%llx" : "%llX", (unsigned long long)size);
    } else {
        snprintf(digits, sizeof digits, s->type == 'o' ? "%llo" : "%llu", (unsigned long long)size);
    }
    lead_of(s, i < 0, lead);
    return numeric(b, s, lead, digits);
}

static void float_digits(struct brace *b, const struct spec *s, double d, char *out, size_t size)
{
    char type = s->type == 'n' ? 'g' : s->type, form[16];
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    if (s->precision > MAX_PRECISION)
        jinja_fail(&b->in->env, "a precision above %d is not offered", MAX_PRECISION);
    if (!isfinite(d)) {
        strcpy(out, isnan(d) ? "nan" : "inf");
        return;
    }
    if (type == '\0' && s->precision < 0) {
        jinja_float_repr(d, out);
        return;
    }
    bool percent = type == '%';
    snprintf(form, sizeof form, "%%%s.*%c", s->alternate ? "#" : "",
             percent        ? 'f'
             : type == '\0' ? 'g'
                            : type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(out, size, form, precision, percent ? d * 100 : d);
#pragma GCC diagnostic pop
    if (percent)
        strcat(out, "%");
    if (type == '\0' && !strpbrk(out, ".e") && (int)strlen(out) < precision)
        strcat(out, ".0");
}

static const struct jinja_string *format_float(struct brace *b, const struct spec *s, double d)
{
    char digits[420 + MAX_PRECISION], lead[4];
    float_digits(b, s, fabs(d), digits, sizeof digits - 4);
    for (size_t i = 0; (s->type == 'E' || s->type == 'F' || s->type == 'G') && digits[i]; i++)
        if (digits[i] >= 'a' && digits[i] <= 'z')
            digits[i] = (char)(digits[i] - 'a' + 'A');
    lead_of(s, signbit(d) && !isnan(d), lead);
    return numeric(b, s, lead, digits);
}

static const struct jinja_string *format_value(struct brace *b, struct jinja_value v,
                                               const struct jinja_string *spec_text)
{
    struct jinja_env *e = &b->in->env;
    if (spec_text->len == 0)
        return jinja_to_str(e, v);
    if (v.kind != JINJA_STRING && !jinja_is_number(v))
        jinja_fail(e, "unsupported format string passed to %s.__format__", jinja_type_name(v));
    struct spec s = parse_spec(b, spec_text, v);
    if (v.kind == JINJA_STRING) {
        if (s.type && s.type != 's')
            unknown_type(b, &s, v);
        if (s.sign || s.grouping || s.alternate)
            jinja_fail(e, "Sign, grouping or '#' not allowed in string format specifier");
        if (s.align == '=' && !s.zero)
            jinja_fail(e, "'=' alignment not allowed in string format specifier");
        const struct jinja_string *text = v.as.string;
        if (s.precision >= 0 && (size_t)s.precision < text->chars)
            text = jinja_str_sub(e, text, 0, (size_t)s.precision);
        return jinja_str_pad(b->in, text, s.width, s.fill, s.align && !s.zero ? s.align : '<');
    }
    if (s.type && !strchr("bcdoxXneEfFgG%", s.type))
        unknown_type(b, &s, v);
    bool as_int = !s.type || strchr("bcdoxXn", s.type);
    if (jinja_is_integral(v) && as_int)
        return format_int(b, &s, jinja_integer(v));
    if (s.type && strchr("bcdoxX", s.type))
        unknown_type(b, &s, v);
    return format_float(b, &s, jinja_real(v));
}

/* One {field!conversion:spec}; `at` is behind the brace and moves behind the closing one. */
static const struct jinja_string *replacement(struct brace *b, const struct jinja_string *format,
                                              size_t *at, int nesting)
{
    struct jinja_env *e = &b->in->env;
    size_t from = *at, end = from, depth = 1;
    bool brackets = false;
    while (end < format->len && depth > 0) {
        char c = format->data[end++];
        brackets = c == '[' || (brackets && c != ']');
        depth += c == '{' && !brackets;
        depth -= c == '}' && !brackets;
    }
    if (depth > 0)
        jinja_fail(e, from >= format->len ? "Single '{' encountered in format string"
                                          : "expected '}' before end of string");
    *at = end--;
    size_t name_end = from;
    brackets = false;
    while (name_end < end) {
        char c = format->data[name_end];
        brackets = c == '[' || (brackets && c != ']');
        if (!brackets && (c == '!' || c == ':'))
            break;
        name_end++;
    }
    struct jinja_value v = field_value(b, format->data + from, name_end - from);
    if (name_end < end && format->data[name_end] == '!') {
        char conversion = name_end + 1 < end ? format->data[name_end + 1] : '\0';
        name_end += 2;
        if (name_end < end && format->data[name_end] != ':')
            jinja_fail(e, "expected ':' after conversion specifier");
        if (conversion == 'r' || conversion == 'a')
            v = jinja_string(jinja_repr(e, v));
        else if (conversion == 's')
            v = jinja_string(jinja_to_str(e, v));
        else
            jinja_fail(e, "Unknown conversion specifier");
    }
    const struct jinja_string *spec = jinja_str_literal(e, "");
    if (name_end < end)
        spec = format_text(b, jinja_str_bytes(e, format, name_end + 1, end), nesting + 1);
    return format_value(b, v, spec);
}

static const struct jinja_string *format_text(struct brace *b, const struct jinja_string *format,
                                              int nesting)
{
    struct jinja_env *e = &b->in->env;
    struct jinja_sb sb;
    if (nesting >= MAX_NESTING)
        jinja_fail(e, "Max string recursion exceeded");
    jinja_sb_init(&sb, e);
    for (size_t at = 0; at < format->len;) {
        char c = format->data[at++];
        bool doubled = at < format->len && format->data[at] == c;
        if (c != '{' && c != '}') {
            jinja_sb_add(&sb, &c, 1);
        } else if (doubled) {
            jinja_sb_add(&sb, &c, 1);
            at++;
        } else if (c == '}') {
            jinja_fail(e, "Single '}' encountered in format string");
        } else {
            jinja_sb_str(&sb, replacement(b, format, &at, nesting));
        }
        jinja_charge(e, 1);
    }
    return jinja_sb_take(&sb);
}

struct jinja_value jinja_brace_format(struct jinja_interp *in, const struct jinja_string *format,
                                      const struct jinja_args *args)
{
    struct brace b = { .in = in, .args = args };
    const struct jinja_string *text = format_text(&b, format, 0);
    return jinja_string(jinja_str_mark(&in->env, text, format->markup));
}
