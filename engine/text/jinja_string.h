/* jinja_string.h - the text value of a template: immutable UTF-8 that knows its length in code
 * points.
 *
 * Substrings share the bytes of their source. A string may own the end of a larger buffer; then
 * appending to it writes behind it in place, because nobody else sees those bytes. That keeps the
 * usual `ns.text = ns.text + more` linear in memory. */
#ifndef INFERD_ENGINE_TEXT_JINJA_STRING_H
#define INFERD_ENGINE_TEXT_JINJA_STRING_H

#include "engine/text/jinja_env.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A buffer that several strings or lists start in and at most one extends. */
struct jinja_backing {
    char *data;
    size_t used, cap; /* bytes */
};

struct jinja_string {
    const char *data; /* valid UTF-8, not terminated */
    size_t len;       /* bytes */
    size_t chars;     /* code points; equal to `len` for ASCII, where an index is an offset */
    bool markup;      /* made by `safe` or `escape`: the type Markup */
    struct jinja_backing *backing;
};

/* A growing text in the arena. */
struct jinja_sb {
    struct jinja_env *env;
    char *data;
    size_t len, cap;
};

const struct jinja_string *jinja_str(struct jinja_env *e, const char *data, size_t len);
/* Shares `data`, which must outlive the string. */
const struct jinja_string *jinja_str_view(struct jinja_env *e, const char *data, size_t len);
const struct jinja_string *jinja_str_literal(struct jinja_env *e, const char *text);
const struct jinja_string *jinja_str_concat(struct jinja_env *e, const struct jinja_string *a,
                                            const struct jinja_string *b);
/* The bytes [from, to) of `s`, which lie on character boundaries. */
const struct jinja_string *jinja_str_bytes(struct jinja_env *e, const struct jinja_string *s,
                                           size_t from, size_t to);
/* The byte offset of code point `index` (0 to chars). */
size_t jinja_str_offset(struct jinja_env *e, const struct jinja_string *s, size_t index);
/* The code points [from, to). */
const struct jinja_string *jinja_str_sub(struct jinja_env *e, const struct jinja_string *s,
                                         size_t from, size_t to);
/* How many code points the first `bytes` bytes hold. */
size_t jinja_str_index(struct jinja_env *e, const struct jinja_string *s, size_t bytes);
const struct jinja_string *jinja_str_mark(struct jinja_env *e, const struct jinja_string *s,
                                          bool markup);
bool jinja_str_equal(const struct jinja_string *a, const struct jinja_string *b);
bool jinja_str_is(const struct jinja_string *s, const char *text);
int jinja_str_compare(const struct jinja_string *a, const struct jinja_string *b);
/* The first byte offset >= from where `needle` lies within [from, to), or -1. */
int64_t jinja_str_find(struct jinja_env *e, const struct jinja_string *s,
                       const struct jinja_string *needle, size_t from, size_t to);
int64_t jinja_str_rfind(struct jinja_env *e, const struct jinja_string *s,
                        const struct jinja_string *needle, size_t from, size_t to);
/* The character at byte `at`; sets its length. */
uint32_t jinja_str_char(const struct jinja_string *s, size_t at, size_t *len);
/* The character that ends at byte `end` > 0; sets its length. */
uint32_t jinja_str_char_before(const struct jinja_string *s, size_t end, size_t *len);

void jinja_sb_init(struct jinja_sb *sb, struct jinja_env *e);
void jinja_sb_add(struct jinja_sb *sb, const char *data, size_t len);
void jinja_sb_str(struct jinja_sb *sb, const struct jinja_string *s);
void jinja_sb_text(struct jinja_sb *sb, const char *text);
void jinja_sb_char(struct jinja_sb *sb, uint32_t code_point);
void jinja_sb_fill(struct jinja_sb *sb, uint32_t code_point, size_t count);
/* The text so far as a string; the builder must not be used again. */
const struct jinja_string *jinja_sb_take(struct jinja_sb *sb);

#endif
