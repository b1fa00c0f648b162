/* regex_translate.c - Oniguruma's syntax (ONIG_SYNTAX_ONIGURUMA, doc/RE of Oniguruma 6.9) to
 * PCRE2's, wherever the same characters mean different things: classes nest and intersect, \s and
 * \w and \h are other sets, {n,m}+ repeats, (?m) lets a dot match a newline. What cannot be said in
 * PCRE2 is refused by name. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/regex.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 100 };

/* Oniguruma's sets, as the inside of a PCRE2 class. */
#define SPACE_ITEMS "\\p{wspace}"
/* Inside a class; outside one, Oniguruma also counts Latin-1's superscripts and fractions in. */
#define CLASS_WORD_ITEMS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD_ITEMS       CLASS_WORD_ITEMS "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
/* Alphabetic as of Unicode 16, where it took in some marks. */
#define ALPHA_ITEMS                                                                                \
    "\\p{Alphabetic}\\x{363}-\\x{36F}\\x{C04}\\x{F82}\\x{F83}\\x{1DD3}-\\x{1DE6}\\x{11080}"        \
    "\\x{11081}"
#define HEX_ITEMS "0-9A-Fa-f"

struct translator {
    const char *p, *end;
    struct buf *out;
    struct status *st;
    int depth;
    bool in_class; /* the escape being read is inside a class */
};

static bool refuse(struct translator *t, const char *what)
{
    return status_set(t->st, STATUS_UNSUPPORTED,
                      "the regular expression uses %s, which is not "
                      "supported",
                      what);
}

static bool broken(struct translator *t, const char *what)
{
    return status_set(t->st, STATUS_INVALID, "the regular expression is broken: %s", what);
}

static bool at(const struct translator *t, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(t->end - t->p) >= n && memcmp(t->p, text, n) == 0;
}

static bool accept(struct translator *t, const char *text)
{
    if (!at(t, text))
        return false;
    t->p += strlen(text);
    return true;
}

static void emit_literal(struct buf *out, uint32_t c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == ' ')
        buf_append_char(out, (char)c);
    else
        buf_printf(out, "\\x{%X}", c);
}

static bool read_char(struct translator *t, uint32_t *c)
{
    int n = t->p < t->end ? utf8_decode(t->p, (size_t)(t->end - t->p), c) : 0;
    if (n <= 0)
        return broken(t, "it ends too early or is not UTF-8");
    t->p += n;
    return true;
}

/* --- properties ----------------------------------------------------------------------------- */

static const struct {
    const char *name, *items; /* lower case, without spaces, '_' and '-' */
} PROPERTIES[] = {
    { "letter", "\\p{L}" },
    { "uppercaseletter", "\\p{Lu}" },
    { "lowercaseletter", "\\p{Ll}" },
    { "titlecaseletter", "\\p{Lt}" },
    { "modifierletter", "\\p{Lm}" },
    { "otherletter", "\\p{Lo}" },
    { "casedletter", "\\p{L&}" },
    { "lc", "\\p{L&}" },
    { "mark", "\\p{M}" },
    { "combiningmark", "\\p{M}" },
    { "nonspacingmark", "\\p{Mn}" },
    { "spacingmark", "\\p{Mc}" },
    { "enclosingmark", "\\p{Me}" },
    { "number", "\\p{N}" },
    { "decimalnumber", "\\p{Nd}" },
    { "letternumber", "\\p{Nl}" },
    { "othernumber", "\\p{No}" },
    { "punctuation", "\\p{P}" },
    { "symbol", "\\p{S}" },
    { "mathsymbol", "\\p{Sm}" },
    { "currencysymbol", "\\p{Sc}" },
    { "modifiersymbol", "\\p{Sk}" },
    { "othersymbol", "\\p{So}" },
    { "separator", "\\p{Z}" },
    { "spaceseparator", "\\p{Zs}" },
    { "other", "\\p{C}" },
    { "control", "\\p{Cc}" },
    { "format", "\\p{Cf}" },
    { "unassigned", "\\p{Cn}" },
    { "any", "\\x{0}-\\x{10FFFF}" },
    { "ascii", "\\x{0}-\\x{7F}" },
    { "alpha", ALPHA_ITEMS },
    { "alphabetic", ALPHA_ITEMS },
    { "alnum", ALPHA_ITEMS "\\p{Nd}" },
    { "digit", "\\p{Nd}" },
    { "space", SPACE_ITEMS },
    { "whitespace", SPACE_ITEMS },
    { "upper", "\\p{Uppercase}" },
    { "uppercase", "\\p{Uppercase}" },
    { "lower", "\\p{Lowercase}" },
    { "lowercase", "\\p{Lowercase}" },
    { "punct", "\\p{P}\\p{S}" }, /* Oniguruma 6.9.9 counts symbols in */
    { "cntrl", "\\p{Cc}" },
    { "xdigit", HEX_ITEMS },
    { "word", CLASS_WORD_ITEMS },
    { "blank", "\\p{Zs}\\t" },
    { "emoji", "\\p{Emoji}" },
    { "extendedpictographic", "\\p{Extended_Pictographic}" },
    { "ideographic", "\\p{Ideographic}" },
};

static bool is_general_category(const char *name)
{
    static const char *const names =
        " l lu ll lt lm lo m mn mc me n nd nl no p pc pd ps pe pi pf po "
        "s sm sc sk so z zs zl zp c cc cf cn co cs ";
    char padded[8] = " ";
    size_t n = strlen(name);
    if (n < 1 || n > 2)
        return false;
    memcpy(padded + 1, name, n);
    padded[n + 1] = ' ';
    return strstr(names, padded) != NULL;
}

/* Appends the items of a property; `name` is normalised. Anything unknown is taken for a script,
 * and PCRE2 refuses it if it is none. */
static void append_property(struct buf *items, const char *name)
{
    for (size_t i = 0; i < sizeof PROPERTIES / sizeof *PROPERTIES; i++) {
        if (strcmp(PROPERTIES[i].name, name) == 0) {
            buf_append_str(items, PROPERTIES[i].items);
            return;
        }
    }
    if (is_general_category(name))
        buf_printf(items, "\\p{%c%s}", name[0] - 32, name + 1);
    else
        buf_printf(items, "\\p{sc:%s}", name);
}

/* Reads a name up to `close`, lower-cased and without separators; a leading '^' negates. */
static bool read_name(struct translator *t, const char *close, char *name, size_t size,
                      bool *negated)
{
    *negated = accept(t, "^");
    size_t n = 0;
    while (!at(t, close)) {
        if (t->p == t->end || n + 1 >= size)
            return broken(t, "a character property has no end");
        char c = *t->p++;
        if (c == ' ' || c == '_' || c == '-')
            continue;
        if (c >= 'A' && c <= 'Z')
            c = (char)(c + 32);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')))
            return refuse(t, "an unusual character property");
        name[n++] = c;
    }
    name[n] = '\0';
    t->p += strlen(close);
    return n > 0 || broken(t, "a character property has no name");
}

/* --- escapes -------------------------------------------------------------------------------- */

/* A set of characters: the inside of a class, and whether it is the complement that is meant. */
struct set {
    struct buf items;
    bool negated;
};

enum escape { ESCAPE_ERROR, ESCAPE_CHAR, ESCAPE_SET, ESCAPE_OTHER };

static bool read_hex(struct translator *t, int max_digits, uint32_t *value)
{
    int n = 0;
    for (*value = 0; n < max_digits && t->p < t->end; n++, t->p++) {
        char c = *t->p;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16)
            break;
        *value = *value << 4 | digit;
    }
    return n > 0 || broken(t, "a hexadecimal escape has no digits");
}

static enum escape hex_escape(struct translator *t, uint32_t *c)
{
    if (accept(t, "{")) {
        if (!read_hex(t, 8, c))
            return ESCAPE_ERROR;
        if (!accept(t, "}"))
            return refuse(t, "a list of code points") ? ESCAPE_CHAR : ESCAPE_ERROR;
    } else {
        if (!read_hex(t, 2, c))
            return ESCAPE_ERROR;
        if (*c >= 0x80) {
            refuse(t, "a single byte above 7F");
            return ESCAPE_ERROR;
        }
    }
    if (*c > 0x10FFFF || (*c >= 0xD800 && *c < 0xE000)) {
        broken(t, "an escape is no character");
        return ESCAPE_ERROR;
    }
    return ESCAPE_CHAR;
}

static enum escape set_escape(struct set *set, const char *items, bool negated)
{
    buf_append_str(&set->items, items);
    set->negated = negated;
    return ESCAPE_SET;
}

static enum escape property_escape(struct translator *t, struct set *set, bool negated)
{
    char name[64];
    bool again;
    if (!accept(t, "{")) {
        broken(t, "\\p has no {");
        return ESCAPE_ERROR;
    }
    if (!read_name(t, "}", name, sizeof name, &again))
        return ESCAPE_ERROR;
    append_property(&set->items, name);
    set->negated = negated != again;
    return ESCAPE_SET;
}

/* Reads what follows a backslash, where it means the same inside and outside a class.
 * ESCAPE_OTHER: it does not; *c is the character, already read. */
static enum escape read_escape(struct translator *t, uint32_t *c, struct set *set)
{
    if (!read_char(t, c))
        return ESCAPE_ERROR;
    static const char controls[] = "t\tn\nr\rf\fv\va\ae\x1B";
    for (size_t i = 0; i + 1 < sizeof controls; i += 2) {
        if (*c == (unsigned char)controls[i]) {
            *c = (unsigned char)controls[i + 1];
            return ESCAPE_CHAR;
        }
    }
    switch (*c) {
    case 's':
    case 'S':
        return set_escape(set, SPACE_ITEMS, *c == 'S');
    case 'd':
    case 'D':
        return set_escape(set, "\\p{Nd}", *c == 'D');
    case 'w':
    case 'W':
        return set_escape(set, t->in_class ? CLASS_WORD_ITEMS : WORD_ITEMS, *c == 'W');
    case 'h':
    case 'H':
        return set_escape(set, HEX_ITEMS, *c == 'H');
    case 'p':
    case 'P':
        return property_escape(t, set, *c == 'P');
    case 'x':
        return hex_escape(t, c);
    case 'u':
        return read_hex(t, 4, c) ? ESCAPE_CHAR : ESCAPE_ERROR;
    default:
        break;
    }
    bool alnum = *c < 0x80 &&
                 ((*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z'));
    return alnum ? ESCAPE_OTHER : ESCAPE_CHAR;
}

/* --- classes -------------------------------------------------------------------------------- */

/* A class under construction: items of one PCRE2 class, and alternatives that do not fit into one.
 */
struct class_parts {
    struct buf items, others; /* others: "|x|y" */
};

static void parts_free(struct class_parts *p)
{
    buf_free(&p->items);
    buf_free(&p->others);
}

/* Appends an expression that matches one character of the parts. */
static void append_parts(struct buf *out, const struct class_parts *p)
{
    if (p->others.len == 0) {
        buf_printf(out, "[%s]", buf_str(&p->items));
        return;
    }
    buf_append_str(out, "(?:");
    if (p->items.len > 0)
        buf_printf(out, "[%s]%s", buf_str(&p->items), buf_str(&p->others));
    else
        buf_append(out, p->others.data + 1, p->others.len - 1);
    buf_append_char(out, ')');
}

static void add_set(struct class_parts *p, const struct set *set)
{
    if (set->negated)
        buf_printf(&p->others, "|[^%s]", buf_str(&set->items));
    else
        buf_append_str(&p->items, buf_str(&set->items));
}

static bool parse_class(struct translator *t, struct buf *out, struct buf *plain_items);

/* [:alpha:] inside a class; false when what follows is none. */
static bool posix_bracket(struct translator *t, struct class_parts *p, bool *ok)
{
    const char *start = t->p;
    char name[32];
    struct set set = { .negated = false };
    if (!at(t, "[:"))
        return false;
    const char *close = memmem(t->p, (size_t)(t->end - t->p), ":]", 2);
    const char *bracket = memchr(t->p + 1, ']', (size_t)(t->end - t->p) - 1);
    if (!close || !bracket || bracket < close) {
        t->p = start;
        return false;
    }
    t->p += 2;
    buf_init(&set.items, 0);
    *ok = read_name(t, ":]", name, sizeof name, &set.negated);
    if (*ok && (strcmp(name, "graph") == 0 || strcmp(name, "print") == 0))
        *ok = refuse(t, "[:graph:] or [:print:]");
    if (*ok) {
        append_property(&set.items, name);
        add_set(p, &set);
    }
    buf_free(&set.items);
    return true;
}

/* One character of a class, or a set. Returns false on an error. */
static bool class_member(struct translator *t, uint32_t *c, struct set *set, bool *is_set)
{
    *is_set = false;
    if (!read_char(t, c))
        return false;
    if (*c != '\\')
        return true;
    t->in_class = true;
    enum escape kind = read_escape(t, c, set);
    t->in_class = false;
    switch (kind) {
    case ESCAPE_CHAR:
        return true;
    case ESCAPE_SET:
        *is_set = true;
        return true;
    case ESCAPE_OTHER:
        if (*c == 'b') {
            *c = '\b';
            return true;
        }
        if (*c == '0') {
            *c = 0;
            return true;
        }
        return refuse(t, "an unusual escape inside a class");
    default:
        return false;
    }
}

static bool class_item(struct translator *t, struct class_parts *p)
{
    bool ok = true, is_set;
    uint32_t first, last;
    if (posix_bracket(t, p, &ok))
        return ok;
    if (accept(t, "[")) {
        struct buf nested, plain;
        buf_init(&nested, 0);
        buf_init(&plain, 0);
        ok = parse_class(t, &nested, &plain);
        if (ok && plain.len > 0)
            buf_append(&p->items, plain.data, plain.len);
        else if (ok)
            buf_printf(&p->others, "|%s", buf_str(&nested));
        buf_free(&nested);
        buf_free(&plain);
        return ok;
    }
    struct set set = { .negated = false };
    buf_init(&set.items, 0);
    ok = class_member(t, &first, &set, &is_set);
    if (ok && is_set) {
        add_set(p, &set);
    } else if (ok) {
        bool range = at(t, "-") && t->end - t->p > 1 && t->p[1] != ']' && t->p[1] != '[' &&
                     !(t->p[1] == '&' && t->end - t->p > 2 && t->p[2] == '&');
        emit_literal(&p->items, first);
        if (range) {
            t->p++;
            ok = class_member(t, &last, &set, &is_set);
            if (ok && (is_set || last < first))
                ok = broken(t, "a range in a class ends before it begins");
            if (ok) {
                buf_append_char(&p->items, '-');
                emit_literal(&p->items, last);
            }
        }
    }
    buf_free(&set.items);
    return ok;
}

/* Items up to the closing bracket; "&&" intersects what stands before with what follows. */
static bool parse_intersection(struct translator *t, struct class_parts *p)
{
    bool first = true, ok = true;
    while (ok) {
        if (t->p == t->end)
            return broken(t, "a class has no end");
        if (!first && accept(t, "]"))
            return true;
        if (accept(t, "&&")) {
            struct class_parts right = { .items = { .len = 0 } };
            struct buf both;
            buf_init(&both, 0);
            if (p->items.len + p->others.len == 0) {
                parts_free(p);
                return broken(t, "nothing stands before && in a class");
            }
            ok = parse_intersection(t, &right);
            if (ok && right.items.len + right.others.len == 0)
                ok = broken(t, "nothing stands behind && in a class");
            if (ok) {
                buf_append_str(&both, "|(?:(?=");
                append_parts(&both, p);
                buf_append_char(&both, ')');
                append_parts(&both, &right);
                buf_append_char(&both, ')');
                buf_clear(&p->items);
                buf_clear(&p->others);
                buf_append(&p->others, both.data, both.len);
            }
            buf_free(&both);
            parts_free(&right);
            return ok;
        }
        ok = class_item(t, p);
        first = false;
    }
    return false;
}

/* After '['. Appends an expression for one character to `out`; where the class is nothing but a
 * list of items, these go to `plain_items` as well (NULL: not wanted). */
static bool parse_class(struct translator *t, struct buf *out, struct buf *plain_items)
{
    if (++t->depth > MAX_DEPTH)
        return broken(t, "it is nested too deeply");
    struct class_parts parts = { .items = { .len = 0 } };
    bool negated = accept(t, "^");
    bool ok = parse_intersection(t, &parts);
    if (ok && parts.others.len == 0) {
        buf_printf(out, negated ? "[^%s]" : "[%s]", buf_str(&parts.items));
        if (plain_items && !negated)
            buf_append(plain_items, parts.items.data, parts.items.len);
    } else if (ok) {
        buf_append_str(out, negated ? "(?:(?!" : "");
        append_parts(out, &parts);
        buf_append_str(out, negated ? ")(?s:.))" : "");
    }
    parts_free(&parts);
    t->depth--;
    return ok;
}

/* --- expressions ---------------------------------------------------------------------------- */

static bool parse_alternatives(struct translator *t);

static bool outside_escape(struct translator *t)
{
    struct set set = { .negated = false };
    uint32_t c;
    buf_init(&set.items, 0);
    enum escape kind = read_escape(t, &c, &set);
    if (kind == ESCAPE_CHAR)
        emit_literal(t->out, c);
    else if (kind == ESCAPE_SET)
        buf_printf(t->out, set.negated ? "[^%s]" : "[%s]", buf_str(&set.items));
    buf_free(&set.items);
    if (kind != ESCAPE_OTHER)
        return kind != ESCAPE_ERROR;
    static const char word_before[] = "(?<=[" WORD_ITEMS "])",
                      no_word_before[] = "(?<![" WORD_ITEMS "])";
    static const char word_after[] = "(?=[" WORD_ITEMS "])",
                      no_word_after[] = "(?![" WORD_ITEMS "])";
    if (c == 'b')
        buf_printf(t->out, "(?:%s%s|%s%s)", word_before, no_word_after, no_word_before, word_after);
    else if (c == 'B')
        buf_printf(t->out, "(?:%s%s|%s%s)", word_before, word_after, no_word_before, no_word_after);
    else if (strchr("AZzGKRX", (int)c) && c != 0)
        buf_printf(t->out, "\\%c", (char)c);
    else if (c == 'N')
        buf_append_str(t->out, "(?-s:.)");
    else if (c == 'O')
        buf_append_str(t->out, "(?s:.)");
    else if (c >= '1' && c <= '9')
        buf_printf(t->out, "\\g{%c}", (char)c);
    else if (c == '0')
        buf_append_str(t->out, "\\x{0}");
    else
        return refuse(t, "an unusual escape");
    return true;
}

/* (?imx-imx) and (?imx-imx:...): 'm' is PCRE2's 's'. Without a colon the options hold to the end of
 * the enclosing group, over its alternatives: Oniguruma reads a(?i)b|c as a(?i:b|c). */
static bool parse_options(struct translator *t)
{
    bool off = false;
    buf_append_str(t->out, "(?");
    for (;;) {
        if (t->p == t->end)
            return broken(t, "a group has no end");
        char c = *t->p++;
        if (c == '-' && !off) {
            off = true;
            buf_append_char(t->out, '-');
        } else if (c == 'i') {
            buf_append_char(t->out, 'i');
        } else if (c == 'm') {
            buf_append_char(t->out, 's');
        } else if (c == ':' || c == ')') {
            buf_append_char(t->out, ':');
            if (!parse_alternatives(t))
                return false;
            buf_append_char(t->out, ')');
            return c == ')' || accept(t, ")") || broken(t, "a group has no end");
        } else {
            return refuse(t, "an unusual group or option");
        }
    }
}

static bool parse_group(struct translator *t)
{
    static const char *const same[] = { "?:", "?=", "?!", "?<=", "?<!", "?>" };
    const char *open = NULL;
    for (size_t i = 0; i < sizeof same / sizeof *same && !open; i++) {
        if (accept(t, same[i]))
            open = same[i];
    }
    if (!open && accept(t, "?#")) {
        const char *close = memchr(t->p, ')', (size_t)(t->end - t->p));
        if (!close)
            return broken(t, "a comment has no end");
        t->p = close + 1;
        return true;
    }
    if (!open && accept(t, "?<")) {
        /* Only a \\k<name>, which is refused, could tell it from a plain group. */
        const char *close = memchr(t->p, '>', (size_t)(t->end - t->p));
        if (!close)
            return broken(t, "a group's name has no end");
        t->p = close + 1;
        open = "?:";
    }
    if (!open && accept(t, "?"))
        return parse_options(t);
    if (!open && at(t, "*"))
        return refuse(t, "a callout");
    buf_printf(t->out, "(%s", open ? open : "");
    if (!parse_alternatives(t))
        return false;
    buf_append_char(t->out, ')');
    return accept(t, ")") || broken(t, "a group has no end");
}

static bool parse_atom(struct translator *t)
{
    uint32_t c;
    if (accept(t, "("))
        return parse_group(t);
    if (accept(t, "["))
        return parse_class(t, t->out, NULL);
    if (accept(t, "\\"))
        return outside_escape(t);
    if (at(t, ".") || at(t, "^") || at(t, "$")) {
        buf_append_char(t->out, *t->p++);
        return true;
    }
    if (!read_char(t, &c))
        return false;
    emit_literal(t->out, c);
    return true;
}

static bool read_number(struct translator *t, long *value)
{
    *value = -1;
    while (t->p < t->end && *t->p >= '0' && *t->p <= '9') {
        *value = (*value < 0 ? 0 : *value) * 10 + (*t->p++ - '0');
        if (*value > 65535)
            return false;
    }
    return *value >= 0;
}

/* {n}, {n,}, {,m} or {n,m}; anything else is a literal brace. */
static bool read_interval(struct translator *t, char *text, size_t size)
{
    const char *start = t->p;
    long low, high;
    if (!accept(t, "{"))
        return false;
    bool has_low = read_number(t, &low), comma = accept(t, ","), has_high = false;
    if (comma)
        has_high = read_number(t, &high);
    if (!accept(t, "}") || !(has_low || (comma && has_high))) {
        t->p = start;
        return false;
    }
    if (!comma)
        snprintf(text, size, "{%ld}", low);
    else if (has_high)
        snprintf(text, size, "{%ld,%ld}", has_low ? low : 0, high);
    else
        snprintf(text, size, "{%ld,}", low);
    return true;
}

/* Puts what was emitted since `start` into a group, so that the next quantifier holds for all of
 * it. */
static void wrap(struct buf *out, size_t start)
{
    size_t len = out->len - start;
    buf_append_str(out, "(?:)");
    memmove(out->data + start + 3, out->data + start, len);
    memcpy(out->data + start, "(?:", 3);
    out->data[out->len - 1] = ')';
}

static bool parse_quantifiers(struct translator *t, size_t atom_start)
{
    char text[32];
    for (bool again = false;; again = true) {
        if (t->out->len - atom_start > 1 << 20)
            return broken(t, "it is too long");
        bool interval = false;
        if (at(t, "*") || at(t, "+") || at(t, "?")) {
            text[0] = *t->p++;
            text[1] = '\0';
        } else if (read_interval(t, text, sizeof text)) {
            interval = true;
        } else {
            return true;
        }
        if (again)
            wrap(t->out, atom_start);
        buf_append_str(t->out, text);
        /* An interval of one number is never lazy, and none is possessive: what follows it is a
         * quantifier of its own. */
        bool lazy = !interval || strchr(text, ',');
        if (lazy && accept(t, "?"))
            buf_append_char(t->out, '?');
        else if (!interval && accept(t, "+"))
            buf_append_char(t->out, '+');
    }
}

static bool parse_alternatives(struct translator *t)
{
    if (++t->depth > MAX_DEPTH)
        return broken(t, "it is nested too deeply");
    while (t->p < t->end && *t->p != ')') {
        if (accept(t, "|")) {
            buf_append_char(t->out, '|');
            continue;
        }
        size_t start = t->out->len;
        if (!parse_atom(t) || !parse_quantifiers(t, start))
            return false;
    }
    t->depth--;
    return true;
}

bool regex_translate(const char *pattern, size_t len, struct buf *out, struct status *st)
{
    struct translator t = { .p = pattern, .end = pattern + len, .out = out, .st = st };
    if (!parse_alternatives(&t))
        return false;
    return t.p == t.end || broken(&t, "a parenthesis closes nothing");
}
