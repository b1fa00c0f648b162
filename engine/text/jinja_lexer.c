/* jinja_lexer.c - two states: text up to the next tag, and the inside of a tag. */
#include "engine/text/jinja_lexer.h"
#include "engine/text/jinja_unicode.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct lexer {
    struct jinja_env *env;
    const char *text;
    size_t len, at;
    int32_t line;
    bool line_starting; /* the last match ended a line, or nothing came before */
    struct jinja_tokens *out;
    char *closers; /* stack of the brackets that are open inside a tag */
    size_t num_closers, cap_closers;
};

static const char *const token_names[] = {
    [JINJA_T_EOF] = "end of template",
    [JINJA_T_DATA] = "template data / text",
    [JINJA_T_BLOCK_BEGIN] = "begin of statement block",
    [JINJA_T_BLOCK_END] = "end of statement block",
    [JINJA_T_VARIABLE_BEGIN] = "begin of print statement",
    [JINJA_T_VARIABLE_END] = "end of print statement",
    [JINJA_T_NAME] = "name",
    [JINJA_T_STRING] = "string",
    [JINJA_T_INTEGER] = "integer",
    [JINJA_T_FLOAT] = "float",
};

/* Longer operators first. */
static const struct {
    const char *text;
    enum jinja_token_type type;
} operators[] = {
    { "//", JINJA_T_FLOORDIV }, { "**", JINJA_T_POW },      { "==", JINJA_T_EQ },
    { "!=", JINJA_T_NE },       { ">=", JINJA_T_GE },       { "<=", JINJA_T_LE },
    { "+", JINJA_T_ADD },       { "-", JINJA_T_SUB },       { "/", JINJA_T_DIV },
    { "*", JINJA_T_MUL },       { "%", JINJA_T_MOD },       { "~", JINJA_T_TILDE },
    { "[", JINJA_T_LBRACKET },  { "]", JINJA_T_RBRACKET },  { "(", JINJA_T_LPAREN },
    { ")", JINJA_T_RPAREN },    { "{", JINJA_T_LBRACE },    { "}", JINJA_T_RBRACE },
    { ">", JINJA_T_GT },        { "<", JINJA_T_LT },        { "=", JINJA_T_ASSIGN },
    { ".", JINJA_T_DOT },       { ":", JINJA_T_COLON },     { "|", JINJA_T_PIPE },
    { ",", JINJA_T_COMMA },     { ";", JINJA_T_SEMICOLON },
};

const char *jinja_token_name(enum jinja_token_type type)
{
    if (type <= JINJA_T_FLOAT)
        return token_names[type];
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++)
        if (operators[i].type == type)
            return operators[i].text;
    return "token";
}

static void emit(struct lexer *l, enum jinja_token_type type, struct jinja_value value)
{
    struct jinja_tokens *out = l->out;
    if (out->len == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 256;
        struct jinja_token *grown = jinja_array(l->env, cap, sizeof grown[0]);
        if (out->len)
            memcpy(grown, out->at, out->len * sizeof grown[0]);
        out->at = grown;
        out->cap = cap;
    }
    out->at[out->len++] = (struct jinja_token){ type, l->line, value };
}

static void count_lines(struct lexer *l, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        l->line += l->text[i] == '\n';
}

/* Moves to `to`, counting lines. */
static void advance(struct lexer *l, size_t to)
{
    count_lines(l, l->at, to);
    l->at = to;
}

static size_t skip_space(const struct lexer *l, size_t at)
{
    while (at < l->len) {
        uint32_t c;
        int n = utf8_decode(l->text + at, l->len - at, &c);
        if (n <= 0 || !jinja_char_is_space(c))
            break;
        at += (size_t)n;
    }
    return at;
}

static size_t rstrip(const struct lexer *l, size_t from, size_t to)
{
    while (to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)l->text[at] & 0xC0) == 0x80)
            at--;
        uint32_t c;
        if (utf8_decode(l->text + at, to - at, &c) <= 0 || !jinja_char_is_space(c))
            break;
        to = at;
    }
    return to;
}

static bool starts(const struct lexer *l, size_t at, const char *text)
{
    size_t n = strlen(text);
    return l->len - at >= n && memcmp(l->text + at, text, n) == 0;
}

/* Emits the text [from, to) that a tag follows, stripped as its sign and lstrip_blocks say. */
static void emit_data(struct lexer *l, size_t from, size_t to, char sign, bool is_variable)
{
    size_t end = to;
    if (sign == '-') {
        end = rstrip(l, from, to);
    } else if (sign != '+' && !is_variable) {
        size_t line_start = to;
        while (line_start > from && l->text[line_start - 1] != '\n')
            line_start--;
        if ((line_start > from || l->line_starting) && skip_space(l, line_start) >= to)
            end = line_start;
    }
    l->env->line = l->line;
    if (end > from)
        emit(l, JINJA_T_DATA, jinja_string(jinja_str_view(l->env, l->text + from, end - from)));
    advance(l, to);
}

static char sign_at(const struct lexer *l, size_t at)
{
    char c = at < l->len ? l->text[at] : '\0';
    return c == '-' || c == '+' ? c : '\0';
}

/* Where the end tag `close` ("%}") at `at` ends, with its sign and what it swallows; 0: none. */
static size_t match_close(const struct lexer *l, size_t at, const char *close, bool plus, bool trim)
{
    if (at < l->len && l->text[at] == '-' && starts(l, at + 1, close))
        return skip_space(l, at + 1 + strlen(close));
    if (plus && at < l->len && l->text[at] == '+' && starts(l, at + 1, close))
        return at + 1 + strlen(close);
    if (!starts(l, at, close))
        return 0;
    at += strlen(close);
    return trim && at < l->len && l->text[at] == '\n' ? at + 1 : at;
}

/* Where `{% <word> %}` at `at` ends; 0: it is something else. */
static size_t match_word_tag(const struct lexer *l, size_t at, const char *word, bool opening)
{
    if (!starts(l, at, "{%"))
        return 0;
    at += 2;
    if (sign_at(l, at))
        at++;
    at = skip_space(l, at);
    if (!starts(l, at, word))
        return 0;
    at = skip_space(l, at + strlen(word));
    return match_close(l, at, "%}", !opening, !opening);
}

static void finish_tag(struct lexer *l, size_t end)
{
    advance(l, end);
    l->line_starting = l->text[end - 1] == '\n';
}

static void lex_raw(struct lexer *l, size_t body)
{
    finish_tag(l, body);
    if (l->at >= l->len)
        return; /* at the end of the source Jinja does not ask for the end tag */
    for (size_t at = body; at < l->len; at++) {
        size_t end = match_word_tag(l, at, "endraw", false);
        if (end) {
            emit_data(l, body, at, sign_at(l, at + 2), false);
            finish_tag(l, end);
            return;
        }
    }
    l->env->line = l->line;
    jinja_fail(l->env, "Missing end of raw directive");
}

static void lex_comment(struct lexer *l)
{
    l->env->line = l->line;
    if (l->at >= l->len)
        return; /* as in lex_raw */
    for (size_t at = l->at; at < l->len; at++) {
        size_t end = match_close(l, at, "#}", true, true);
        if (end) {
            finish_tag(l, end);
            return;
        }
    }
    jinja_fail(l->env, "Missing end of comment tag");
}

static size_t digits(const struct lexer *l, size_t at, const char *allowed)
{
    /* A digit, then digits each with at most one underscore before it. */
    if (at >= l->len || !strchr(allowed, l->text[at]) || l->text[at] == '\0')
        return at;
    at++;
    for (;;) {
        size_t next = at < l->len && l->text[at] == '_' ? at + 1 : at;
        if (next >= l->len || l->text[next] == '\0' || !strchr(allowed, l->text[next]))
            return at;
        at = next + 1;
    }
}

static const char decimal[] = "0123456789";

/* The end of a float at `at`, or `at`. */
static size_t match_float(const struct lexer *l, size_t at)
{
    if (at > 0 && l->text[at - 1] == '.')
        return at;
    size_t whole = digits(l, at, decimal), end = whole;
    if (whole == at)
        return at;
    if (end < l->len && l->text[end] == '.') {
        size_t fraction = digits(l, end + 1, decimal);
        if (fraction > end + 1)
            end = fraction;
    }
    if (end < l->len && (l->text[end] == 'e' || l->text[end] == 'E')) {
        size_t exponent = end + 1;
        if (exponent < l->len && (l->text[exponent] == '+' || l->text[exponent] == '-'))
            exponent++;
        size_t stop = digits(l, exponent, decimal);
        if (stop > exponent)
            return stop;
    }
    return end > whole ? end : at;
}

static size_t match_integer(const struct lexer *l, size_t at, int *base)
{
    static const struct {
        char letter;
        int base;
        const char *digits;
    } prefixes[] = { { 'b', 2, "01" },
                     { 'o', 8, "01234567" },
                     { 'x', 16, "0123456789abcdefABCDEF" } };
    *base = 10;
    if (l->text[at] != '0')
        return digits(l, at, decimal);
    for (size_t i = 0; i < 3 && at + 1 < l->len; i++) {
        if ((l->text[at + 1] | 0x20) != prefixes[i].letter)
            continue;
        size_t first = at + 2 < l->len && l->text[at + 2] == '_' ? at + 3 : at + 2;
        size_t end = digits(l, first, prefixes[i].digits);
        if (end > first) {
            *base = prefixes[i].base;
            return end;
        }
    }
    return digits(l, at, "0");
}

/* The digits without their underscores, NUL-terminated. */
static char *plain_digits(struct lexer *l, size_t from, size_t to)
{
    char *text = jinja_alloc(l->env, to - from + 1);
    size_t n = 0;
    for (size_t i = from; i < to; i++)
        if (l->text[i] != '_')
            text[n++] = l->text[i];
    return text;
}

static bool lex_number(struct lexer *l)
{
    size_t end = match_float(l, l->at);
    if (end > l->at) {
        emit(l, JINJA_T_FLOAT, jinja_float(strtod(plain_digits(l, l->at, end), NULL)));
        l->at = end;
        return true;
    }
    int base;
    end = match_integer(l, l->at, &base);
    if (end == l->at)
        return false;
    const char *text = plain_digits(l, l->at, end);
    errno = 0;
    long long value = strtoll(base == 10 ? text : text + 2, NULL, base);
    if (errno == ERANGE)
        jinja_fail(l->env, "the integer %.40s does not fit 64 bits", text);
    emit(l, JINJA_T_INTEGER, jinja_int(value));
    l->at = end;
    return true;
}

static bool lex_name(struct lexer *l)
{
    size_t end = l->at;
    while (end < l->len) {
        uint32_t c;
        int n = utf8_decode(l->text + end, l->len - end, &c);
        if (n <= 0 || !jinja_char_is_identifier(c, end == l->at))
            break;
        end += (size_t)n;
    }
    if (end == l->at)
        return false;
    emit(l, JINJA_T_NAME, jinja_string(jinja_str_view(l->env, l->text + l->at, end - l->at)));
    l->at = end;
    return true;
}

static bool lex_string(struct lexer *l)
{
    char quote = l->text[l->at];
    if (quote != '\'' && quote != '"')
        return false;
    size_t end = l->at + 1;
    while (end < l->len && l->text[end] != quote)
        end += l->text[end] == '\\' ? 2 : 1;
    if (end >= l->len)
        return false; /* reported as an unexpected character */
    const char *text = l->text + l->at + 1;
    size_t len = end - l->at - 1;
    bool plain = len == 0 || !memchr(text, '\\', len);
    emit(l, JINJA_T_STRING,
         jinja_string(plain ? jinja_str_view(l->env, text, len)
                            : jinja_unescape(l->env, text, len)));
    advance(l, end + 1);
    return true;
}

static void push_closer(struct lexer *l, char closer)
{
    if (l->num_closers == l->cap_closers) {
        size_t cap = l->cap_closers ? l->cap_closers * 2 : 64;
        char *grown = jinja_alloc(l->env, cap);
        if (l->num_closers)
            memcpy(grown, l->closers, l->num_closers);
        l->closers = grown;
        l->cap_closers = cap;
    }
    l->closers[l->num_closers++] = closer;
}

static bool lex_operator(struct lexer *l)
{
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (!starts(l, l->at, operators[i].text))
            continue;
        char c = l->text[l->at];
        if (c == '(' || c == '[' || c == '{') {
            push_closer(l, c == '(' ? ')' : c == '[' ? ']' : '}');
        } else if (c == ')' || c == ']' || c == '}') {
            if (l->num_closers == 0)
                jinja_fail(l->env, "unexpected '%c'", c);
            char expected = l->closers[--l->num_closers];
            if (expected != c)
                jinja_fail(l->env, "unexpected '%c', expected '%c'", c, expected);
        }
        emit(l, operators[i].type, jinja_missing());
        l->at += strlen(operators[i].text);
        return true;
    }
    return false;
}

/* The inside of a tag, and its end. */
static void lex_tag(struct lexer *l, const char *close, enum jinja_token_type end_type)
{
    bool block = end_type == JINJA_T_BLOCK_END;
    l->num_closers = 0;
    for (;;) {
        l->env->line = l->line;
        jinja_charge(l->env, 1);
        if (l->at >= l->len)
            return; /* the parser meets the end of the template */
        size_t end = l->num_closers ? 0 : match_close(l, l->at, close, block, block);
        if (end) {
            emit(l, end_type, jinja_missing());
            finish_tag(l, end);
            return;
        }
        size_t next = skip_space(l, l->at);
        if (next > l->at) {
            advance(l, next);
            continue;
        }
        if (lex_number(l) || lex_name(l) || lex_string(l) || lex_operator(l))
            continue;
        uint32_t c;
        int n = utf8_decode(l->text + l->at, l->len - l->at, &c);
        jinja_fail(l->env, "unexpected char '%.*s'", n > 0 ? n : 1, l->text + l->at);
    }
}

static void lex_text(struct lexer *l)
{
    size_t from = l->at;
    for (size_t at = from; at + 1 < l->len; at++) {
        if (l->text[at] != '{')
            continue;
        char kind = l->text[at + 1];
        if (kind != '%' && kind != '{' && kind != '#')
            continue;
        char sign = sign_at(l, at + 2);
        size_t raw = kind == '%' ? match_word_tag(l, at, "raw", true) : 0;
        emit_data(l, from, at, sign, kind == '{');
        if (raw) {
            lex_raw(l, raw);
            return;
        }
        l->at += sign ? 3 : 2;
        if (kind == '#') {
            lex_comment(l);
        } else if (kind == '%') {
            emit(l, JINJA_T_BLOCK_BEGIN, jinja_missing());
            lex_tag(l, "%}", JINJA_T_BLOCK_END);
        } else {
            emit(l, JINJA_T_VARIABLE_BEGIN, jinja_missing());
            lex_tag(l, "}}", JINJA_T_VARIABLE_END);
        }
        return;
    }
    emit_data(l, from, l->len, '+', false);
}

void jinja_tokenize(struct jinja_env *e, const char *source, size_t len, struct jinja_tokens *out)
{
    struct lexer l = {
        .env = e, .text = source, .len = len, .line = 1, .line_starting = true, .out = out
    };
    while (l.at < l.len)
        lex_text(&l);
    emit(&l, JINJA_T_EOF, jinja_missing());
}

/* Reads `count` hexadecimal digits, or fails as Python's codec does. */
static uint32_t hex_escape(struct jinja_env *e, const char *text, size_t len, size_t at, int count)
{
    uint32_t value = 0;
    for (int i = 0; i < count; i++) {
        char c = at + (size_t)i < len ? text[at + (size_t)i] : '\0';
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            jinja_fail(e, "truncated \\%s escape",
                       count == 2   ? "xXX"
                       : count == 4 ? "uXXXX"
                                    : "UXXXXXXXX");
        value = value << 4 | (uint32_t)digit;
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
        jinja_fail(e, "the escape for U+%04X is not a character", (unsigned)value);
    return value;
}

const struct jinja_string *jinja_unescape(struct jinja_env *e, const char *text, size_t len)
{
    static const char simple[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    struct jinja_sb sb;
    jinja_sb_init(&sb, e);
    for (size_t i = 0; i < len;) {
        if (text[i] != '\\' || i + 1 >= len) {
            const char *stop = memchr(text + i + 1, '\\', len - i - 1);
            size_t end = stop ? (size_t)(stop - text) : len;
            jinja_sb_add(&sb, text + i, end - i);
            i = end;
            continue;
        }
        char c = text[i + 1];
        i += 2;
        const char *known = c ? strchr(simple, c) : NULL;
        if (known && (known - simple) % 2 == 0) {
            jinja_sb_char(&sb, (unsigned char)known[1]);
        } else if (c == 'x' || c == 'u' || c == 'U') {
            int count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
            jinja_sb_char(&sb, hex_escape(e, text, len, i, count));
            i += (size_t)count;
        } else if (c >= '0' && c <= '7') {
            uint32_t value = (uint32_t)(c - '0');
            for (int n = 1; n < 3 && i < len && text[i] >= '0' && text[i] <= '7'; n++)
                value = value * 8 + (uint32_t)(text[i++] - '0');
            jinja_sb_char(&sb, value);
        } else if (c == 'N') {
            jinja_fail(e, "escapes by character name (\\N{...}) are not offered");
        } else if (c != '\n') {
            jinja_sb_char(&sb, '\\'); /* an unknown escape stays as it is */
            i--;
            uint32_t next;
            int n = utf8_decode(text + i, len - i, &next);
            jinja_sb_add(&sb, text + i, n > 0 ? (size_t)n : 1);
            i += n > 0 ? (size_t)n : 1;
        }
    }
    return jinja_sb_take(&sb);
}
