/* unicode.h - character classes and normalisation forms as the tokenizers library has them.
 *
 * Its parts follow different versions of Unicode; unicode_tables.h holds what was measured. All
 * functions are pure. Texts are valid UTF-8. */
#ifndef INFERD_ENGINE_TEXT_UNICODE_H
#define INFERD_ENGINE_TEXT_UNICODE_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Unicode's White_Space property. */
bool unicode_is_white_space(uint32_t c);
/* What Python's str.strip() removes: White_Space and the separators U+001C .. U+001F. */
bool unicode_is_python_space(uint32_t c);
bool unicode_is_punctuation(uint32_t c); /* ASCII punctuation, symbols included, and Unicode's P */
bool unicode_is_numeric(uint32_t c);     /* Unicode's N */
bool unicode_is_word(uint32_t c);        /* a regular expression's \w */
bool unicode_is_bert_control(uint32_t c);
bool unicode_is_nonspacing_mark(uint32_t c); /* Mn */
bool unicode_is_combining_mark(uint32_t c);  /* M */

/* Lower case of one character: 1 or 2 code points. */
int unicode_lower(uint32_t c, uint32_t out[2]);

/* For a character newer than the one Unicode version PCRE2 can be relied on to know (14): an older
 * one of the same category, script and length in UTF-8. 0: the character is not newer. */
uint32_t unicode_stand_in(uint32_t c);

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };

/* Appends the text in that form, in time linear in its length. */
void unicode_normalize(enum unicode_form form, const char *text, size_t len, struct buf *out);

/* Reads the character at text[i] of valid UTF-8 and returns its length. */
static inline size_t unicode_next(const char *text, size_t i, uint32_t *c)
{
    const unsigned char *p = (const unsigned char *)text + i;
    if (p[0] < 0x80) {
        *c = p[0];
        return 1;
    }
    if (p[0] < 0xE0) {
        *c = (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
        return 2;
    }
    if (p[0] < 0xF0) {
        *c = (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
        return 3;
    }
    *c = (p[0] & 7u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    return 4;
}

/* Where the character that ends before text[i] begins; i > 0. */
static inline size_t unicode_previous(const char *text, size_t i)
{
    do
        i--;
    while (i > 0 && ((unsigned char)text[i] & 0xC0) == 0x80);
    return i;
}

void unicode_append(struct buf *out, uint32_t c);
/* Bytes of the leading characters that are in the class. */
size_t unicode_span(const char *text, size_t len, bool (*in_class)(uint32_t));
/* The length without the trailing characters that are in the class. */
size_t unicode_trim(const char *text, size_t len, bool (*in_class)(uint32_t));

#endif
