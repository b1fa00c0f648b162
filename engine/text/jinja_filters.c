/* jinja_filters.c - the table of filters, and those on numbers and anything. */
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_repr.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct jinja_value f_default(struct jinja_interp *in, struct jinja_call *c)
{
    bool replace =
        c->self.kind == JINJA_UNDEFINED || (jinja_arg_bool(c, 1, false) && !jinja_truth(c->self));
    if (!replace)
        return c->self;
    return c->arg[0].kind == JINJA_MISSING ? jinja_text(&in->env, "") : c->arg[0];
}

static struct jinja_value f_attr(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_value v;
    const struct jinja_string *name = jinja_arg_str(in, c, 0, "");
    if (c->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, c->self);
    if (c->self.kind == JINJA_NAMESPACE || c->self.kind == JINJA_LOOP)
        return jinja_getattr(in, c->self, name);
    if (jinja_method(in, c->self, name, &v))
        return v;
    return jinja_undefined_in(&in->env, c->self, c->arg[0]);
}

static struct jinja_value f_abs(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_value v = c->self;
    if (!jinja_is_number(v))
        jinja_fail(&in->env, "bad operand type for abs(): '%s'", jinja_type_name(v));
    if (v.kind == JINJA_FLOAT)
        return jinja_float(fabs(v.as.real));
    return jinja_integer(v) < 0 ? jinja_negate(in, v) : jinja_int(jinja_integer(v));
}

/* A number's text, with Python's underscores and surrounding space removed; false where it cannot
 * be one. */
static bool number_text(struct jinja_interp *in, const struct jinja_string *s, char *out,
                        size_t size)
{
    s = jinja_str_strip(&in->env, s, NULL, 3);
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++) {
        char c = s->data[i];
        if (c == '_') {
            bool between = i > 0 && i + 1 < s->len && s->data[i - 1] != '_' &&
                           strchr("0123456789abcdefABCDEFxXoO", s->data[i + 1]);
            if (!between)
                return false;
            continue;
        }
        if (n + 1 >= size || c == '\0')
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return n > 0;
}

static bool text_to_int(struct jinja_interp *in, const struct jinja_string *s, int base,
                        int64_t *out)
{
    char text[256], *end;
    if (!number_text(in, s, text, sizeof text))
        return false;
    char *digits = text + (text[0] == '+' || text[0] == '-');
    if ((base == 2 || base == 0) && digits[0] == '0' && (digits[1] | 0x20) == 'b') {
        memmove(digits, digits + 2, strlen(digits + 2) + 1);
        base = 2;
    } else if ((base == 8 || base == 0) && digits[0] == '0' && (digits[1] | 0x20) == 'o') {
        memmove(digits, digits + 2, strlen(digits + 2) + 1);
        base = 8;
    }
    errno = 0;
    long long value = strtoll(text, &end, base);
    if (*end || end == text ||
        !((digits[0] >= '0' && digits[0] <= '9') ||
          ((digits[0] | 0x20) >= 'a' && (digits[0] | 0x20) <= 'z')))
        return false;
    jinja_checked_int(in, errno == ERANGE, 0);
    *out = value;
    return true;
}

static bool text_to_float(struct jinja_interp *in, const struct jinja_string *s, double *out)
{
    char text[512], *end;
    if (!number_text(in, s, text, sizeof text) || strpbrk(text, "xXpP(")) /* C's own extensions */
        return false;
    *out = strtod(text, &end);
    return *end == '\0' && end != text;
}

static bool float_to_int(struct jinja_interp *in, double d, int64_t *out)
{
    if (!isfinite(d))
        return false;
    jinja_checked_int(in, fabs(d) >= 9223372036854775808.0, 0);
    *out = (int64_t)d;
    return true;
}

static struct jinja_value f_int(struct jinja_interp *in, struct jinja_call *c)
{
    struct jinja_value v = c->self, fallback = c->arg[0];
    if (fallback.kind == JINJA_MISSING)
        fallback = jinja_int(0);
    int64_t i, base = jinja_arg_int(in, c, 1, 10);
    double d;
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, v);
    if (jinja_is_integral(v))
        return jinja_int(jinja_integer(v));
    if (v.kind == JINJA_FLOAT && isinf(v.as.real))
        jinja_fail(&in->env, "cannot convert float infinity to integer");
    if (v.kind == JINJA_FLOAT)
        return float_to_int(in, v.as.real, &i) ? jinja_int(i) : fallback;
    if (v.kind != JINJA_STRING)
        return fallback;
    bool valid_base = base == 0 || (base >= 2 && base <= 36);
    if (valid_base && text_to_int(in, v.as.string, (int)base, &i))
        return jinja_int(i);
    return text_to_float(in, v.as.string, &d) && float_to_int(in, d, &i) ? jinja_int(i) : fallback;
}

static struct jinja_value f_float(struct jinja_interp *in, struct jinja_call *c)
{
    double d;
    if (c->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, c->self);
    if (jinja_is_number(c->self))
        return jinja_float(jinja_real(c->self));
    if (c->self.kind == JINJA_STRING && text_to_float(in, c->self.as.string, &d))
        return jinja_float(d);
    return c->arg[0].kind == JINJA_MISSING ? jinja_float(0) : c->arg[0];
}

/* round() of a float: exact decimal rounding, ties to even, as printf does it. */
static double round_float(double d, int64_t digits)
{
    if (!isfinite(d) || digits > 300)
        return d;
    if (digits < -310)
        return copysign(0.0, d);
    if (digits >= 0) {
        char text[700];
        snprintf(text, sizeof text, "%.*f", (int)digits, d);
        return strtod(text, NULL);
    }
    double scale = pow(10, (double)-digits);
    return nearbyint(d / scale) * scale;
}

static struct jinja_value round_int(struct jinja_interp *in, int64_t i, int64_t digits)
{
    if (digits >= 0)
        return jinja_int(i);
    if (digits < -18)
        return jinja_int(0);
    int64_t unit = 1, rest, half;
    for (; digits < 0; digits++)
        unit *= 10;
    rest = i % unit;
    if (rest < 0)
        rest += unit;
    half = unit / 2;
    int64_t low;
    bool overflow = __builtin_sub_overflow(i, rest, &low);
    bool up = rest > half || (rest == half && low / unit % 2 != 0);
    overflow |= __builtin_add_overflow(low, up ? unit : 0, &low);
    return jinja_checked_int(in, overflow, low);
}

static struct jinja_value f_round(struct jinja_interp *in, struct jinja_call *c)
{
    int64_t digits = jinja_arg_int(in, c, 0, 0);
    const struct jinja_string *method = jinja_arg_str(in, c, 1, "common");
    struct jinja_value v = c->self;
    bool up = jinja_str_is(method, "ceil");
    if (!up && !jinja_str_is(method, "floor") && !jinja_str_is(method, "common"))
        jinja_fail(&in->env, "method must be common, ceil or floor");
    if (v.kind == JINJA_UNDEFINED && !jinja_str_is(method, "common"))
        jinja_fail_undefined(&in->env, v);
    if (!jinja_is_number(v) && !jinja_str_is(method, "common"))
        jinja_fail(&in->env, "must be real number, not %s", jinja_type_name(v));
    if (!jinja_is_number(v))
        jinja_fail(&in->env, "type %s doesn't define __round__ method", jinja_type_name(v));
    if (jinja_str_is(method, "common"))
        return v.kind == JINJA_FLOAT ? jinja_float(round_float(v.as.real, digits))
                                     : round_int(in, jinja_integer(v), digits);
    double scale = pow(10, (double)digits), scaled = jinja_real(v) * scale;
    double whole = up ? ceil(scaled) : floor(scaled);
    /* math.ceil makes an integer, so no negative zero comes back. */
    return jinja_float((whole == 0 ? 0 : whole) / scale);
}

static struct jinja_value f_filesizeformat(struct jinja_interp *in, struct jinja_call *c)
{
    static const char prefixes[] = "kMGTPEZY";
    bool binary = jinja_arg_bool(c, 0, false);
    double base = binary ? 1024 : 1000, bytes, unit;
    char text[64];
    if (jinja_is_number(c->self))
        bytes = jinja_real(c->self);
    else if (c->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(&in->env, c->self);
    else if (c->self.kind != JINJA_STRING)
        jinja_fail(&in->env, "float() argument must be a string or a real number, not '%s'",
                   jinja_type_name(c->self));
    else if (!text_to_float(in, c->self.as.string, &bytes)) {
        const struct jinja_string *text_repr = jinja_repr(&in->env, c->self);
        jinja_fail(&in->env, "could not convert string to float: %.*s",
                   (int)(text_repr->len > 200 ? 200 : text_repr->len), text_repr->data);
    }
    if (bytes == 1)
        return jinja_text(&in->env, "1 Byte");
    if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes) + 0.0);
    } else {
        size_t i = 0;
        for (unit = base * base; i < 7 && bytes >= unit; i++)
            unit *= base;
        snprintf(text, sizeof text, "%.1f %c%sB", base * bytes / unit,
                 binary && i == 0 ? 'K' : prefixes[i], binary ? "i" : "");
    }
    return jinja_string(jinja_str(&in->env, text, strlen(text)));
}

static struct jinja_value f_not_offered(struct jinja_interp *in, struct jinja_call *c)
{
    jinja_fail(&in->env, "the filter '%s' is not offered to chat templates", c->builtin->name);
}

static const struct jinja_builtin filters[] = {
    { "abs", "", f_abs },
    { "attr", "!name", f_attr },
    { "batch", "!linecount fill_with", jinja_f_batch },
    { "capitalize", "", jinja_f_capitalize },
    { "center", "width", jinja_f_center },
    { "count", "", jinja_f_length },
    { "d", "default_value boolean", f_default },
    { "default", "default_value boolean", f_default },
    { "dictsort", "case_sensitive by reverse", jinja_f_dictsort },
    { "e", "", jinja_f_escape },
    { "escape", "", jinja_f_escape },
    { "filesizeformat", "binary", f_filesizeformat },
    { "first", "", jinja_f_first },
    { "float", "default", f_float },
    { "forceescape", "", jinja_f_forceescape },
    { "format", NULL, jinja_f_format },
    { "groupby", "!attribute default case_sensitive", jinja_f_groupby },
    { "indent", "width first blank", jinja_f_indent },
    { "int", "default base", f_int },
    { "items", "", jinja_f_items },
    { "join", "d attribute", jinja_f_join },
    { "last", "", jinja_f_last },
    { "length", "", jinja_f_length },
    { "list", "", jinja_f_list },
    { "lower", "", jinja_f_lower },
    { "map", NULL, jinja_f_map },
    { "max", "case_sensitive attribute", jinja_f_max },
    { "min", "case_sensitive attribute", jinja_f_min },
    { "pprint", NULL, f_not_offered },
    { "random", NULL, f_not_offered },
    { "reject", NULL, jinja_f_reject },
    { "rejectattr", NULL, jinja_f_rejectattr },
    { "replace", "!old !new count", jinja_f_replace },
    { "reverse", "", jinja_f_reverse },
    { "round", "precision method", f_round },
    { "safe", "", jinja_f_safe },
    { "select", NULL, jinja_f_select },
    { "selectattr", NULL, jinja_f_selectattr },
    { "slice", "!slices fill_with", jinja_f_slice },
    { "sort", "reverse case_sensitive attribute", jinja_f_sort },
    { "string", "", jinja_f_string },
    { "striptags", "", jinja_f_striptags },
    { "sum", "attribute start", jinja_f_sum },
    { "title", "", jinja_f_title },
    { "tojson", "ensure_ascii indent separators sort_keys", jinja_f_tojson },
    { "trim", "chars", jinja_f_trim },
    { "truncate", "length killwords end leeway", jinja_f_truncate },
    { "unique", "case_sensitive attribute", jinja_f_unique },
    { "upper", "", jinja_f_upper },
    { "urlencode", "", jinja_f_urlencode },
    { "urlize", NULL, f_not_offered },
    { "wordcount", "", jinja_f_wordcount },
    { "wordwrap", NULL, f_not_offered },
    { "xmlattr", "autospace", jinja_f_xmlattr },
};

const struct jinja_builtin *jinja_find_filter(const struct jinja_string *name)
{
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++)
        if (jinja_str_is(name, filters[i].name))
            return &filters[i];
    return NULL;
}
