/* jinja_unicode.h - what Python's str methods ask about a character (Unicode 14 by way of
 * utf8proc). Pure functions. */
#ifndef INFERD_ENGINE_TEXT_JINJA_UNICODE_H
#define INFERD_ENGINE_TEXT_JINJA_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

/* Full case mappings without context: write 1 to 3 characters and return how many. */
int jinja_char_upper(uint32_t c, uint32_t out[3]);
int jinja_char_lower(uint32_t c, uint32_t out[3]);
int jinja_char_title(uint32_t c, uint32_t out[3]);

bool jinja_char_is_space(uint32_t c);      /* str.isspace, and \s of a regular expression */
bool jinja_char_is_line_break(uint32_t c); /* where str.splitlines splits */
bool jinja_char_is_alpha(uint32_t c);
bool jinja_char_is_decimal(uint32_t c);
bool jinja_char_is_digit(uint32_t c);
bool jinja_char_is_numeric(uint32_t c);
bool jinja_char_is_alnum(uint32_t c);
bool jinja_char_is_upper(uint32_t c);
bool jinja_char_is_lower(uint32_t c);
bool jinja_char_is_title(uint32_t c);
bool jinja_char_is_printable(uint32_t c);
bool jinja_char_is_word(uint32_t c); /* \w of a regular expression */
bool jinja_char_is_identifier(uint32_t c, bool first);

#endif
