/* regex_translate.h - what the two halves of the translator share. For these two files only. */
#ifndef INFERD_ENGINE_TEXT_REGEX_TRANSLATE_H
#define INFERD_ENGINE_TEXT_REGEX_TRANSLATE_H

#include "base/buf.h"
#include "base/status.h"
#include <stdint.h>

enum { REGEX_MAX_DEPTH = 100 };

/* Oniguruma's sets, as the inside of a PCRE2 class. Inside a class \w is CLASS_WORD_ITEMS; outside
 * one, Oniguruma also counts Latin-1's superscripts and fractions in. */
#define SPACE_ITEMS      "\\p{wspace}"
#define CLASS_WORD_ITEMS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD_ITEMS       CLASS_WORD_ITEMS "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

struct translator {
    const char *p, *end;
    struct buf *out;
    struct status *st;
    int depth;
    bool in_class; /* the escape being read is inside a class */
};

/* A set of characters: the inside of a class, and whether it is the complement that is meant. */
struct set {
    struct buf items;
    bool negated;
};

enum escape { ESCAPE_ERROR, ESCAPE_CHAR, ESCAPE_SET, ESCAPE_OTHER };

/* Both set the status and return false. */
bool regex_refuse(struct translator *t, const char *what);
bool regex_broken(struct translator *t, const char *what);
bool regex_at(const struct translator *t, const char *text);
/* Steps over `text` where it stands next. */
bool regex_accept(struct translator *t, const char *text);
bool regex_read_char(struct translator *t, uint32_t *c);
void regex_emit_literal(struct buf *out, uint32_t c);
/* Reads what follows a backslash, where it means the same inside and outside a class.
 * ESCAPE_OTHER: it does not; *c is the character, already read. */
enum escape regex_read_escape(struct translator *t, uint32_t *c, struct set *set);
/* After '['. Appends an expression for one character to `out`; where the class is nothing but a
 * list of items, these go to `plain_items` as well (NULL: not wanted). */
bool regex_parse_class(struct translator *t, struct buf *out, struct buf *plain_items);

#endif
