/* jinja_repr.c - str() and repr(). */
#include "engine/text/jinja_repr.h"
#include "engine/text/jinja_call.h"
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_unicode.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_repr(struct jinja_sb *sb, struct jinja_value v);

void jinja_float_repr(double d, char out[JINJA_FLOAT_CHARS])
{
    if (isnan(d) || isinf(d)) {
        strcpy(out, isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    char text[JINJA_FLOAT_CHARS];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, d);
        if (strtod(text, NULL) == d)
            break;
    }
    /* text is [-]d[.ddd]e[+-]dd; take it apart and set the point as Python does. */
    char digits[20];
    size_t n = 0, at = text[0] == '-';
    for (; text[at] != 'e'; at++)
        if (text[at] != '.')
            digits[n++] = text[at];
    int exponent = atoi(text + at + 1);
    char *p = out;
    if (text[0] == '-')
        *p++ = '-';
    if (exponent < -4 || exponent >= 16) {
        *p++ = digits[0];
        if (n > 1) {
            *p++ = '.';
            memcpy(p, digits + 1, n - 1);
            p += n - 1;
        }
        snprintf(p, 8, "e%c%02u", exponent < 0 ? '-' : '+', (unsigned)abs(exponent) % 1000);
        return;
    }
    if (exponent < 0) {
        p += sprintf(p, "0.%.*s", -exponent - 1, "0000");
        memcpy(p, digits, n);
        p[n] = '\0';
        return;
    }
    for (int i = 0; i <= exponent || (size_t)i < n; i++) {
        if (i == exponent + 1)
            *p++ = '.';
        *p++ = (size_t)i < n ? digits[i] : '0';
    }
    strcpy(p, (size_t)exponent + 1 >= n ? ".0" : "");
}

static void repr_string(struct jinja_sb *sb, const struct jinja_string *s)
{
    bool has_single = s->len && memchr(s->data, '\'', s->len);
    bool has_double = s->len && memchr(s->data, '"', s->len);
    char quote = has_single && !has_double ? '"' : '\'';
    jinja_sb_char(sb, (unsigned char)quote);
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t c = jinja_str_char(s, at, &n);
        char escape[16];
        if (c == '\\' || c == (unsigned char)quote) {
            jinja_sb_char(sb, '\\');
            jinja_sb_char(sb, c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            jinja_sb_text(sb, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if ((c >= 0x20 && c < 0x7F) || (c > 0x7F && jinja_char_is_printable(c))) {
            jinja_sb_char(sb, c);
        } else {
            snprintf(escape, sizeof escape,
                     c < 0x100     ? "\\x%02x"
                     : c < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                     (unsigned)c);
            jinja_sb_text(sb, escape);
        }
    }
    jinja_sb_char(sb, (unsigned char)quote);
}

static void repr_items(struct jinja_sb *sb, const struct jinja_list *l, const char *open,
                       const char *close)
{
    jinja_sb_text(sb, open);
    for (size_t i = 0; i < l->len; i++) {
        if (i)
            jinja_sb_text(sb, ", ");
        write_repr(sb, l->items[i]);
    }
    jinja_sb_text(sb, close);
}

static void repr_dict(struct jinja_sb *sb, const struct jinja_dict *d)
{
    jinja_sb_text(sb, "{");
    for (size_t i = 0; i < d->len; i++) {
        if (i)
            jinja_sb_text(sb, ", ");
        write_repr(sb, d->entries[i].key);
        jinja_sb_text(sb, ": ");
        write_repr(sb, d->entries[i].value);
    }
    jinja_sb_text(sb, "}");
}

static void repr_view(struct jinja_sb *sb, struct jinja_value v)
{
    jinja_sb_text(sb, jinja_type_name(v));
    repr_items(sb, jinja_items_of(sb->env, v), "([", "])");
}

static void repr_range(struct jinja_sb *sb, const struct jinja_range *r)
{
    char text[96];
    if (r->step == 1)
        snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64 ")", r->start, r->stop);
    else
        snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")", r->start,
                 r->stop, r->step);
    jinja_sb_text(sb, text);
}

/* Objects that Python shows by their address: the address is left out, it would differ each time.
 */
static void repr_object(struct jinja_sb *sb, struct jinja_value v)
{
    if (v.kind == JINJA_MACRO) {
        const struct jinja_string *name = jinja_macro_name(v.as.macro);
        jinja_sb_text(sb, "<Macro ");
        if (name)
            repr_string(sb, name);
        else
            jinja_sb_text(sb, "anonymous");
    } else if (v.kind == JINJA_FUNCTION) {
        jinja_sb_text(sb, v.as.function->self.kind == JINJA_MISSING ? "<function "
                                                                    : "<built-in method ");
        jinja_sb_text(sb, v.as.function->builtin->name);
    } else if (v.kind == JINJA_LOOP) { /* loops exist in renders only, whose state begins with it */
        char text[64];
        snprintf(text, sizeof text, "<LoopContext %" PRId64 "/%" PRId64, v.as.loop->index0 + 1,
                 jinja_loop_length((struct jinja_interp *)sb->env, v.as.loop));
        jinja_sb_text(sb, text);
    } else {
        jinja_sb_text(sb, "<");
        jinja_sb_text(sb, jinja_type_name(v));
        jinja_sb_text(sb, " object");
    }
    jinja_sb_text(sb, ">");
}

static void write_repr(struct jinja_sb *sb, struct jinja_value v)
{
    char text[JINJA_FLOAT_CHARS];
    jinja_charge(sb->env, 1);
    jinja_enter(sb->env);
    switch (v.kind) {
    case JINJA_UNDEFINED:
        jinja_sb_text(sb, "Undefined");
        break;
    case JINJA_NONE:
        jinja_sb_text(sb, "None");
        break;
    case JINJA_BOOL:
        jinja_sb_text(sb, v.as.boolean ? "True" : "False");
        break;
    case JINJA_INT:
        snprintf(text, sizeof text, "%" PRId64, v.as.integer);
        jinja_sb_text(sb, text);
        break;
    case JINJA_FLOAT:
        jinja_float_repr(v.as.real, text);
        jinja_sb_text(sb, text);
        break;
    case JINJA_STRING:
        if (v.as.string->markup)
            jinja_sb_text(sb, "Markup(");
        repr_string(sb, v.as.string);
        if (v.as.string->markup)
            jinja_sb_text(sb, ")");
        break;
    case JINJA_LIST:
        repr_items(sb, v.as.list, "[", "]");
        break;
    case JINJA_TUPLE:
        repr_items(sb, v.as.list, "(", v.as.list->len == 1 ? ",)" : ")");
        break;
    case JINJA_DICT:
        repr_dict(sb, v.as.dict);
        break;
    case JINJA_NAMESPACE:
        jinja_sb_text(sb, "<Namespace ");
        repr_dict(sb, v.as.dict);
        jinja_sb_text(sb, ">");
        break;
    case JINJA_VIEW:
        repr_view(sb, v);
        break;
    case JINJA_RANGE:
        repr_range(sb, v.as.range);
        break;
    default:
        repr_object(sb, v);
        break;
    }
    jinja_leave(sb->env);
}

const struct jinja_string *jinja_repr(struct jinja_env *e, struct jinja_value v)
{
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    write_repr(&sb, v);
    return jinja_sb_take(&sb);
}

const struct jinja_string *jinja_to_str(struct jinja_env *e, struct jinja_value v)
{
    if (v.kind == JINJA_STRING)
        return v.as.string;
    if (v.kind == JINJA_UNDEFINED)
        return jinja_str_literal(e, "");
    return jinja_repr(e, v);
}
