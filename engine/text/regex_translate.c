/* regex_translate.c - Oniguruma's syntax (ONIG_SYNTAX_ONIGURUMA, doc/RE of Oniguruma 6.9) to
 * PCRE2's, wherever the same characters mean different things: {n,m}+ repeats, (?m) lets a dot
 * match a newline, (?i) holds over alternatives; for classes see regex_class.c. What cannot be said
 * in PCRE2 is refused by name. */
#include "engine/text/regex_translate.h"
#include "engine/text/regex.h"

#include <string.h>

enum { MAX_REPEAT = 65535, MAX_OUTPUT = 1 << 20 };

/* --- expressions ---------------------------------------------------------------------------- */

static bool parse_alternatives(struct translator *t);

static bool outside_escape(struct translator *t)
{
    struct set set = { .negated = false };
    uint32_t c;
    buf_init(&set.items, 0);
    enum escape kind = regex_read_escape(t, &c, &set);
    if (kind == ESCAPE_CHAR)
        regex_emit_literal(t->out, c);
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
        return regex_refuse(t, "an unusual escape");
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
            return regex_broken(t, "a group has no end");
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
            return c == ')' || regex_accept(t, ")") || regex_broken(t, "a group has no end");
        } else {
            return regex_refuse(t, "an unusual group or option");
        }
    }
}

static bool parse_group(struct translator *t)
{
    static const char *const same[] = { "?:", "?=", "?!", "?<=", "?<!", "?>" };
    const char *open = NULL;
    for (size_t i = 0; i < sizeof same / sizeof *same && !open; i++) {
        if (regex_accept(t, same[i]))
            open = same[i];
    }
    if (!open && regex_accept(t, "?#")) {
        const char *close = memchr(t->p, ')', (size_t)(t->end - t->p));
        if (!close)
            return regex_broken(t, "a comment has no end");
        t->p = close + 1;
        return true;
    }
    if (!open && regex_accept(t, "?<")) {
        /* Only a \\k<name>, which is refused, could tell it from a plain group. */
        const char *close = memchr(t->p, '>', (size_t)(t->end - t->p));
        if (!close)
            return regex_broken(t, "a group's name has no end");
        t->p = close + 1;
        open = "?:";
    }
    if (!open && regex_accept(t, "?"))
        return parse_options(t);
    if (!open && regex_at(t, "*"))
        return regex_refuse(t, "a callout");
    buf_printf(t->out, "(%s", open ? open : "");
    if (!parse_alternatives(t))
        return false;
    buf_append_char(t->out, ')');
    return regex_accept(t, ")") || regex_broken(t, "a group has no end");
}

static bool parse_atom(struct translator *t)
{
    uint32_t c;
    if (regex_accept(t, "("))
        return parse_group(t);
    if (regex_accept(t, "["))
        return regex_parse_class(t, t->out, NULL);
    if (regex_accept(t, "\\"))
        return outside_escape(t);
    if (regex_at(t, ".") || regex_at(t, "^") || regex_at(t, "$")) {
        buf_append_char(t->out, *t->p++);
        return true;
    }
    if (!regex_read_char(t, &c))
        return false;
    regex_emit_literal(t->out, c);
    return true;
}

static bool read_number(struct translator *t, long *value)
{
    *value = -1;
    while (t->p < t->end && *t->p >= '0' && *t->p <= '9') {
        *value = (*value < 0 ? 0 : *value) * 10 + (*t->p++ - '0');
        if (*value > MAX_REPEAT)
            *value = MAX_REPEAT + 1; /* refused by the caller */
    }
    return *value >= 0;
}

struct interval {
    long low, high;
    bool comma, has_high;
};

/* {n}, {n,}, {,m} or {n,m}; anything else is a literal brace. */
static bool read_interval(struct translator *t, struct interval *v)
{
    const char *start = t->p;
    *v = (struct interval){ .low = 0 };
    if (!regex_accept(t, "{"))
        return false;
    bool has_low = read_number(t, &v->low);
    v->comma = regex_accept(t, ",");
    v->has_high = v->comma && read_number(t, &v->high);
    if (regex_accept(t, "}") && (has_low || v->has_high)) {
        v->low = has_low ? v->low : 0;
        return true;
    }
    t->p = start;
    return false;
}

static bool emit_interval(struct translator *t, const struct interval *v)
{
    if (v->low > MAX_REPEAT || (v->has_high && v->high > MAX_REPEAT))
        return regex_refuse(t, "a repetition beyond 65535");
    buf_printf(t->out, "{%ld", v->low);
    if (v->comma)
        buf_append_char(t->out, ',');
    if (v->has_high)
        buf_printf(t->out, "%ld", v->high);
    buf_append_char(t->out, '}');
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
    for (bool again = false;; again = true) {
        struct interval v = { .comma = true };
        char sign = regex_at(t, "*") || regex_at(t, "+") || regex_at(t, "?") ? *t->p++ : '\0';
        if (!sign && !read_interval(t, &v))
            return true;
        if (t->out->len - atom_start > MAX_OUTPUT)
            return regex_broken(t, "it is too long");
        if (again)
            wrap(t->out, atom_start);
        if (sign)
            buf_append_char(t->out, sign);
        else if (!emit_interval(t, &v))
            return false;
        /* An interval of one number is never lazy, and none is possessive: what follows it is a
         * quantifier of its own. */
        if (v.comma && regex_accept(t, "?"))
            buf_append_char(t->out, '?');
        else if (sign && regex_accept(t, "+"))
            buf_append_char(t->out, '+');
    }
}

static bool parse_alternatives(struct translator *t)
{
    if (++t->depth > REGEX_MAX_DEPTH)
        return regex_broken(t, "it is nested too deeply");
    while (t->p < t->end && *t->p != ')') {
        if (regex_accept(t, "|")) {
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
    return t.p == t.end || regex_broken(&t, "a parenthesis closes nothing");
}
