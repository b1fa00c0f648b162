/* unicode.c - look-ups in the measured tables; normalisation on top of utf8proc's properties. */
#include "engine/text/unicode.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct unicode_range {
    uint32_t first, last;
};

struct unicode_stand_in {
    uint32_t first, last, stand_in;
};

struct unicode_lower {
    uint32_t c, first, second; /* second: 0 where there is none */
};

#include "engine/text/unicode_tables.h"

#define COUNT(table)       (sizeof(table) / sizeof *(table))
#define IN_TABLE(table, c) in_ranges(table, COUNT(table), c)

static bool in_ranges(const struct unicode_range *table, size_t count, uint32_t c)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > table[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && c >= table[low].first;
}

bool unicode_is_white_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool unicode_is_python_space(uint32_t c)
{
    return (c >= 0x1C && c <= 0x1F) || unicode_is_white_space(c);
}

bool unicode_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
               (c >= '{' && c <= '~');
    return IN_TABLE(PUNCTUATION, c);
}

bool unicode_is_numeric(uint32_t c)
{
    return c < 0x80 ? c >= '0' && c <= '9' : IN_TABLE(NUMERIC, c);
}

bool unicode_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
               c == '_';
    return IN_TABLE(WORD, c);
}

bool unicode_is_bert_control(uint32_t c)
{
    return IN_TABLE(BERT_CONTROL, c);
}

bool unicode_is_nonspacing_mark(uint32_t c)
{
    return c >= 0x300 && IN_TABLE(NONSPACING_MARK, c);
}

bool unicode_is_combining_mark(uint32_t c)
{
    return c >= 0x300 && IN_TABLE(COMBINING_MARK, c);
}

int unicode_lower(uint32_t c, uint32_t out[2])
{
    if (c < 0x80) {
        out[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
        return 1;
    }
    size_t low = 0, high = COUNT(LOWER);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > LOWER[middle].c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < COUNT(LOWER) && LOWER[low].c == c) {
        out[0] = LOWER[low].first;
        out[1] = LOWER[low].second;
        return out[1] ? 2 : 1;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

uint32_t unicode_stand_in(uint32_t c)
{
    /* Most text: nothing was added to these blocks. */
    if (c < STAND_INS[0].first || (c >= 0x3400 && c < 0xA000) || (c >= 0xAC00 && c < 0xD7A4))
        return 0;
    size_t low = 0, high = COUNT(STAND_INS);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > STAND_INS[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(STAND_INS) && c >= STAND_INS[low].first ? STAND_INS[low].stand_in : 0;
}

void unicode_append(struct buf *out, uint32_t c)
{
    char bytes[4];
    buf_append(out, bytes, (size_t)utf8_encode(c, bytes));
}

size_t unicode_span(const char *text, size_t len, bool (*in_class)(uint32_t))
{
    size_t i = 0;
    uint32_t c;
    while (i < len) {
        size_t n = unicode_next(text, i, &c);
        if (!in_class(c))
            break;
        i += n;
    }
    return i;
}

size_t unicode_trim(const char *text, size_t len, bool (*in_class)(uint32_t))
{
    uint32_t c;
    while (len > 0) {
        size_t start = unicode_previous(text, len);
        unicode_next(text, start, &c);
        if (!in_class(c))
            break;
        len = start;
    }
    return len;
}

/* --- normalisation forms -------------------------------------------------------------------- */

/* A code point with its combining class in the top byte. */
struct points {
    uint32_t *at;
    size_t len, cap;
};

static const uint32_t POINT_MASK = 0x1FFFFF;

static uint32_t class_of(uint32_t point)
{
    return point >> 24;
}

static bool is_inert(uint32_t c)
{
    return IN_TABLE(NORMALIZATION_INERT, c) || unicode_stand_in(c) != 0;
}

static void push_point(struct points *p, uint32_t c, bool inert)
{
    if (p->len == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 256;
        p->at = xrealloc(p->at, p->cap * sizeof *p->at);
    }
    uint32_t combining =
        inert ? 0 : (uint32_t)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
    p->at[p->len++] = c | combining << 24;
}

static void decompose(struct points *p, const char *text, size_t len, bool compat)
{
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (compat)
        options |= UTF8PROC_COMPAT;
    uint32_t c;
    for (size_t i = 0; i < len;) {
        i += unicode_next(text, i, &c);
        if (c < 0x80 || is_inert(c)) {
            push_point(p, c, true);
            continue;
        }
        /* The longest decomposition, of U+FDFA, has 18 code points. */
        utf8proc_int32_t parts[32];
        int boundary = 0;
        utf8proc_ssize_t n =
            utf8proc_decompose_char((utf8proc_int32_t)c, parts, 32, options, &boundary);
        if (n < 1 || n > 32) {
            push_point(p, c, false);
            continue;
        }
        for (utf8proc_ssize_t k = 0; k < n; k++)
            push_point(p, (uint32_t)parts[k], is_inert((uint32_t)parts[k]));
    }
}

/* Sorts a run of marks by class, keeping the order of equals: by insertion while it is short, by
 * counting when a hostile text makes it long. */
static void sort_run(uint32_t *run, size_t len)
{
    if (len <= 32) {
        for (size_t i = 1; i < len; i++) {
            uint32_t point = run[i];
            size_t k = i;
            for (; k > 0 && class_of(run[k - 1]) > class_of(point); k--)
                run[k] = run[k - 1];
            run[k] = point;
        }
        return;
    }
    size_t start[257] = { 0 };
    for (size_t i = 0; i < len; i++)
        start[class_of(run[i]) + 1]++;
    for (size_t k = 1; k < 257; k++)
        start[k] += start[k - 1];
    uint32_t *sorted = xmalloc(len * sizeof *sorted);
    for (size_t i = 0; i < len; i++)
        sorted[start[class_of(run[i])]++] = run[i];
    memcpy(run, sorted, len * sizeof *run);
    free(sorted);
}

static void reorder(struct points *p)
{
    for (size_t i = 0; i < p->len;) {
        if (class_of(p->at[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i;
        while (end < p->len && class_of(p->at[end]) != 0)
            end++;
        sort_run(p->at + i, end - i);
        i = end;
    }
}

/* The character two compose to, or 0. */
static uint32_t compose_pair(uint32_t a, uint32_t b)
{
    if (b < 0x300 || is_inert(a) || is_inert(b))
        return 0;
    utf8proc_int32_t pair[2] = { (utf8proc_int32_t)a, (utf8proc_int32_t)b };
    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_STABLE | UTF8PROC_COMPOSE) != 1)
        return 0;
    return is_inert((uint32_t)pair[0]) ? 0 : (uint32_t)pair[0];
}

/* Unicode 15, section 3.11, D117: a character joins the last starter unless one of the same or a
 * higher class stands between them. */
static void compose(struct points *p)
{
    size_t out = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < p->len; i++) {
        uint32_t point = p->at[i], combining = class_of(point);
        bool adjacent = starter != SIZE_MAX && out - 1 == starter;
        if (adjacent || (starter != SIZE_MAX && class_of(p->at[out - 1]) < combining)) {
            uint32_t joined = compose_pair(p->at[starter] & POINT_MASK, point & POINT_MASK);
            if (joined) {
                p->at[starter] = joined;
                continue;
            }
        }
        if (combining == 0)
            starter = out;
        p->at[out++] = point;
    }
    p->len = out;
}

/* Whether the text is in the form already, judged by single characters; false may be a false alarm.
 */
static bool is_safe(enum unicode_form form, const char *text, size_t len)
{
    uint32_t c;
    uint32_t first = form == UNICODE_NFC ? 0x300 : form == UNICODE_NFD ? 0xC0 : 0xA0;
    for (size_t i = 0; i < len;) {
        if ((unsigned char)text[i] < 0x80) {
            i++;
            continue;
        }
        i += unicode_next(text, i, &c);
        if (c >= first && (form != UNICODE_NFC || IN_TABLE(NFC_UNSAFE, c)))
            return false;
    }
    return true;
}

void unicode_normalize(enum unicode_form form, const char *text, size_t len, struct buf *out)
{
    if (is_safe(form, text, len)) {
        buf_append(out, text, len);
        return;
    }
    struct points p = { 0 };
    decompose(&p, text, len, form == UNICODE_NFKC || form == UNICODE_NFKD);
    reorder(&p);
    if (form == UNICODE_NFC || form == UNICODE_NFKC)
        compose(&p);
    for (size_t i = 0; i < p.len; i++)
        unicode_append(out, p.at[i] & POINT_MASK);
    free(p.at);
}
