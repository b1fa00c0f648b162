/* jinja_string.c - strings, substrings, search, and the builder. */
#include "engine/text/jinja_string.h"
#include "base/utf8.h"

#include <string.h>

enum { APPEND_ROOM_FROM = 256 }; /* shorter sums are copied: most are never extended */

static size_t count_chars(const char *data, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)data[i] & 0xC0) != 0x80;
    return n;
}

static struct jinja_string *make(struct jinja_env *e, const char *data, size_t len, size_t chars)
{
    struct jinja_string *s = jinja_alloc(e, sizeof *s);
    s->data = data;
    s->len = len;
    s->chars = chars;
    return s;
}

const struct jinja_string *jinja_str_view(struct jinja_env *e, const char *data, size_t len)
{
    jinja_charge_bytes(e, len);
    return make(e, data, len, count_chars(data, len));
}

const struct jinja_string *jinja_str(struct jinja_env *e, const char *data, size_t len)
{
    char *copy = jinja_alloc(e, len + 1);
    if (len)
        memcpy(copy, data, len);
    return jinja_str_view(e, copy, len);
}

const struct jinja_string *jinja_str_literal(struct jinja_env *e, const char *text)
{
    return jinja_str_view(e, text, strlen(text));
}

const struct jinja_string *jinja_str_concat(struct jinja_env *e, const struct jinja_string *a,
                                            const struct jinja_string *b)
{
    if (b->len == 0)
        return a;
    if (a->len == 0)
        return b;
    size_t len = a->len + b->len;
    struct jinja_backing *backing = a->backing;
    bool owns_end = backing && a->data + a->len == backing->data + backing->used;
    if (!owns_end || backing->cap - backing->used < b->len) {
        jinja_charge_bytes(e, len);
        size_t cap = len < APPEND_ROOM_FROM ? len : len * 2;
        char *data = jinja_alloc(e, cap);
        memcpy(data, a->data, a->len);
        backing = NULL;
        if (cap > len) {
            backing = jinja_alloc(e, sizeof *backing);
            *backing = (struct jinja_backing){ data, a->len, cap };
        }
        memcpy(data + a->len, b->data, b->len);
        if (backing)
            backing->used = len;
        struct jinja_string *s = make(e, data, len, a->chars + b->chars);
        s->backing = backing;
        return s;
    }
    jinja_charge_bytes(e, b->len);
    memcpy(backing->data + backing->used, b->data, b->len);
    backing->used += b->len;
    struct jinja_string *s = make(e, a->data, len, a->chars + b->chars);
    s->backing = backing;
    return s;
}

const struct jinja_string *jinja_str_bytes(struct jinja_env *e, const struct jinja_string *s,
                                           size_t from, size_t to)
{
    if (from == 0 && to == s->len)
        return s;
    size_t len = to - from;
    if (s->len != s->chars)
        jinja_charge_bytes(e, len);
    size_t chars = s->len == s->chars ? len : count_chars(s->data + from, len);
    struct jinja_string *sub = make(e, s->data + from, len, chars);
    sub->markup = s->markup;
    return sub;
}

size_t jinja_str_offset(struct jinja_env *e, const struct jinja_string *s, size_t index)
{
    if (s->len == s->chars)
        return index;
    if (index == s->chars)
        return s->len;
    jinja_charge_bytes(e, index);
    size_t at = 0;
    for (size_t i = 0; i < index; i++) {
        size_t n;
        jinja_str_char(s, at, &n);
        at += n;
    }
    return at;
}

const struct jinja_string *jinja_str_sub(struct jinja_env *e, const struct jinja_string *s,
                                         size_t from, size_t to)
{
    if (from >= to)
        return jinja_str_bytes(e, s, 0, 0);
    return jinja_str_bytes(e, s, jinja_str_offset(e, s, from), jinja_str_offset(e, s, to));
}

size_t jinja_str_index(struct jinja_env *e, const struct jinja_string *s, size_t bytes)
{
    if (s->len == s->chars)
        return bytes;
    jinja_charge_bytes(e, bytes);
    return count_chars(s->data, bytes);
}

const struct jinja_string *jinja_str_mark(struct jinja_env *e, const struct jinja_string *s,
                                          bool markup)
{
    if (s->markup == markup)
        return s;
    struct jinja_string *copy = make(e, s->data, s->len, s->chars);
    copy->markup = markup;
    return copy;
}

bool jinja_str_equal(const struct jinja_string *a, const struct jinja_string *b)
{
    return a->len == b->len &&
           (a->data == b->data || a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

bool jinja_str_is(const struct jinja_string *s, const char *text)
{
    if (s->len == 0 || s->data[0] != text[0]) /* most comparisons end here */
        return s->len == 0 && text[0] == '\0';
    return s->len == strlen(text) && memcmp(s->data, text, s->len) == 0;
}

/* UTF-8 orders bytes as its characters are ordered. */
int jinja_str_compare(const struct jinja_string *a, const struct jinja_string *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int order = n ? memcmp(a->data, b->data, n) : 0;
    if (order != 0)
        return order < 0 ? -1 : 1;
    return a->len == b->len ? 0 : a->len < b->len ? -1 : 1;
}

int64_t jinja_str_find(struct jinja_env *e, const struct jinja_string *s,
                       const struct jinja_string *needle, size_t from, size_t to)
{
    if (from > to || needle->len > to - from)
        return -1;
    if (needle->len == 0)
        return (int64_t)from;
    jinja_charge_bytes(e, to - from);
    const char *hit = memmem(s->data + from, to - from, needle->data, needle->len);
    return hit ? hit - s->data : -1;
}

int64_t jinja_str_rfind(struct jinja_env *e, const struct jinja_string *s,
                        const struct jinja_string *needle, size_t from, size_t to)
{
    if (from > to || needle->len > to - from)
        return -1;
    if (needle->len == 0)
        return (int64_t)to;
    for (size_t at = to - needle->len + 1; at-- > from;) {
        if (s->data[at] != needle->data[0])
            continue;
        jinja_charge_bytes(e, needle->len);
        if (memcmp(s->data + at, needle->data, needle->len) == 0) {
            jinja_charge_bytes(e, to - at);
            return (int64_t)at;
        }
    }
    jinja_charge_bytes(e, to - from);
    return -1;
}

uint32_t jinja_str_char(const struct jinja_string *s, size_t at, size_t *len)
{
    uint32_t c = 0xFFFD;
    int n = utf8_decode(s->data + at, s->len - at, &c);
    *len = n > 0 ? (size_t)n : 1;
    return c;
}

uint32_t jinja_str_char_before(const struct jinja_string *s, size_t end, size_t *len)
{
    size_t at = end - 1;
    while (at > 0 && ((unsigned char)s->data[at] & 0xC0) == 0x80)
        at--;
    uint32_t c = 0xFFFD;
    utf8_decode(s->data + at, end - at, &c);
    *len = end - at;
    return c;
}

void jinja_sb_init(struct jinja_sb *sb, struct jinja_env *e)
{
    *sb = (struct jinja_sb){ .env = e };
}

static void reserve(struct jinja_sb *sb, size_t more)
{
    if (more > sb->env->max_bytes)
        jinja_array(sb->env, more, 2); /* over the limit: fails with the limit's message */
    size_t need = sb->len + more;
    if (need <= sb->cap)
        return;
    size_t cap = sb->cap ? sb->cap * 2 : 64;
    if (cap < need)
        cap = need;
    char *data = jinja_alloc(sb->env, cap);
    if (sb->len)
        memcpy(data, sb->data, sb->len);
    sb->data = data;
    sb->cap = cap;
}

void jinja_sb_add(struct jinja_sb *sb, const char *data, size_t len)
{
    jinja_charge(sb->env, len / 16);
    reserve(sb, len);
    if (len)
        memcpy(sb->data + sb->len, data, len);
    sb->len += len;
}

void jinja_sb_str(struct jinja_sb *sb, const struct jinja_string *s)
{
    jinja_sb_add(sb, s->data, s->len);
}

void jinja_sb_text(struct jinja_sb *sb, const char *text)
{
    jinja_sb_add(sb, text, strlen(text));
}

void jinja_sb_char(struct jinja_sb *sb, uint32_t code_point)
{
    char bytes[4] = { 0 };
    jinja_sb_add(sb, bytes, (size_t)utf8_encode(code_point, bytes));
}

void jinja_sb_fill(struct jinja_sb *sb, uint32_t code_point, size_t count)
{
    char bytes[4];
    size_t n = (size_t)utf8_encode(code_point, bytes);
    if (count > sb->env->max_bytes / 4)
        jinja_array(sb->env, count, 4); /* fails */
    reserve(sb, count * n);
    for (size_t i = 0; i < count; i++)
        jinja_sb_add(sb, bytes, n);
    jinja_charge(sb->env, count / 16);
}

const struct jinja_string *jinja_sb_take(struct jinja_sb *sb)
{
    struct jinja_string *s =
        make(sb->env, sb->data ? sb->data : "", sb->len, count_chars(sb->data, sb->len));
    if (sb->len >= APPEND_ROOM_FROM) {
        struct jinja_backing *backing = jinja_alloc(sb->env, sizeof *backing);
        *backing = (struct jinja_backing){ sb->data, sb->len, sb->cap };
        s->backing = backing;
    }
    return s;
}
