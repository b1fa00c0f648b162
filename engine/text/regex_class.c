/* regex_class.c - characters, escapes and bracketed classes of Oniguruma in PCRE2's terms: classes
 * nest and intersect, and \s, \w, \h and the properties are other sets. */
#include "engine/text/regex_translate.h"
#include "base/utf8.h"

#include <string.h>

/* Alphabetic as of Unicode 16, where it took in some marks. */
#define ALPHA_ITEMS                                                                                \
    "\\p{Alphabetic}\\x{363}-\\x{36F}\\x{C04}\\x{F82}\\x{F83}\\x{1DD3}-\\x{1DE6}\\x{11080}"        \
    "\\x{11081}"
#define HEX_ITEMS "0-9A-Fa-f"

bool regex_refuse(struct translator *t, const char *what)
{
    return status_set(t->st, STATUS_UNSUPPORTED,
                      "the regular expression uses %s, which is not "
                      "supported",
                      what);
}

bool regex_broken(struct translator *t, const char *what)
{
    return status_set(t->st, STATUS_INVALID, "the regular expression is broken: %s", what);
}

bool regex_at(const struct translator *t, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(t->end - t->p) >= n && memcmp(t->p, text, n) == 0;
}

bool regex_accept(struct translator *t, const char *text)
{
    if (!regex_at(t, text))
        return false;
    t->p += strlen(text);
    return true;
}

void regex_emit_literal(struct buf *out, uint32_t c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == ' ')
        buf_append_char(out, (char)c);
    else
        buf_printf(out, "\\x{%X}", c);
}

bool regex_read_char(struct translator *t, uint32_t *c)
{
    int n = t->p < t->end ? utf8_decode(t->p, (size_t)(t->end - t->p), c) : 0;
    if (n <= 0)
        return regex_broken(t, "it ends too early or is not UTF-8");
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
    *negated = regex_accept(t, "^");
    size_t n = 0;
    while (!regex_at(t, close)) {
        if (t->p == t->end || n + 1 >= size)
            return regex_broken(t, "a character property has no end");
        char c = *t->p++;
        if (c == ' ' || c == '_' || c == '-')
            continue;
        if (c >= 'A' && c <= 'Z')
            c = (char)(c + 32);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')))
            return regex_refuse(t, "an unusual character property");
        name[n++] = c;
    }
    name[n] = '\0';
    t->p += strlen(close);
    return n > 0 || regex_broken(t, "a character property has no name");
}

/* --- escapes -------------------------------------------------------------------------------- */

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
    return n > 0 || regex_broken(t, "a hexadecimal escape has no digits");
}

static enum escape hex_escape(struct translator *t, uint32_t *c)
{
    if (regex_accept(t, "{")) {
        if (!read_hex(t, 8, c))
            return ESCAPE_ERROR;
        if (!regex_accept(t, "}"))
            return regex_refuse(t, "a list of code points") ? ESCAPE_CHAR : ESCAPE_ERROR;
    } else {
        if (!read_hex(t, 2, c))
            return ESCAPE_ERROR;
        if (*c >= 0x80) {
            regex_refuse(t, "a single byte above 7F");
            return ESCAPE_ERROR;
        }
    }
    if (*c > 0x10FFFF || (*c >= 0xD800 && *c < 0xE000)) {
        regex_broken(t, "an escape is no character");
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
    if (!regex_accept(t, "{")) {
        regex_broken(t, "\\p has no {");
        return ESCAPE_ERROR;
    }
    if (!read_name(t, "}", name, sizeof name, &again))
        return ESCAPE_ERROR;
    append_property(&set->items, name);
    set->negated = negated != again;
    return ESCAPE_SET;
}

enum escape regex_read_escape(struct translator *t, uint32_t *c, struct set *set)
{
    if (!regex_read_char(t, c))
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

/* [:alpha:] inside a class; false when what follows is none. */
static bool posix_bracket(struct translator *t, struct class_parts *p, bool *ok)
{
    const char *start = t->p;
    char name[32];
    struct set set = { .negated = false };
    if (!regex_at(t, "[:"))
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
        *ok = regex_refuse(t, "[:graph:] or [:print:]");
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
    if (!regex_read_char(t, c))
        return false;
    if (*c != '\\')
        return true;
    t->in_class = true;
    enum escape kind = regex_read_escape(t, c, set);
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
        return regex_refuse(t, "an unusual escape inside a class");
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
    if (regex_accept(t, "[")) {
        struct buf nested, plain;
        buf_init(&nested, 0);
        buf_init(&plain, 0);
        ok = regex_parse_class(t, &nested, &plain);
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
        bool range = regex_at(t, "-") && t->end - t->p > 1 && t->p[1] != ']' && t->p[1] != '[' &&
                     !(t->p[1] == '&' && t->end - t->p > 2 && t->p[2] == '&');
        regex_emit_literal(&p->items, first);
        if (range) {
            t->p++;
            ok = class_member(t, &last, &set, &is_set);
            if (ok && (is_set || last < first))
                ok = regex_broken(t, "a range in a class ends before it begins");
            if (ok) {
                buf_append_char(&p->items, '-');
                regex_emit_literal(&p->items, last);
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
            return regex_broken(t, "a class has no end");
        if (!first && regex_accept(t, "]"))
            return true;
        if (regex_accept(t, "&&")) {
            struct class_parts right = { .items = { .len = 0 } };
            struct buf both;
            buf_init(&both, 0);
            if (p->items.len + p->others.len == 0) {
                parts_free(p);
                return regex_broken(t, "nothing stands before && in a class");
            }
            ok = parse_intersection(t, &right);
            if (ok && right.items.len + right.others.len == 0)
                ok = regex_broken(t, "nothing stands behind && in a class");
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

bool regex_parse_class(struct translator *t, struct buf *out, struct buf *plain_items)
{
    if (++t->depth > REGEX_MAX_DEPTH)
        return regex_broken(t, "it is nested too deeply");
    struct class_parts parts = { .items = { .len = 0 } };
    bool negated = regex_accept(t, "^");
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
