/* utf8.h - UTF-8 as Unicode defines it: no surrogates, no overlong forms, nothing past U+10FFFF. */
#ifndef INFERD_BASE_UTF8_H
#define INFERD_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads one character. Returns its length 1..4 and sets *code_point; 0 when the bytes can still
 * become a character but end too early; -1 when they cannot. len > 0. */
int utf8_decode(const char *text, size_t len, uint32_t *code_point);
/* Writes 1..4 bytes; returns how many. `code_point` must be a scalar value. */
int utf8_encode(uint32_t code_point, char out[4]);
bool utf8_valid(const char *text, size_t len);
/* Bytes of the longest prefix that is whole characters; what follows is invalid or unfinished. */
size_t utf8_valid_prefix(const char *text, size_t len);
/* After a decode that gave 0 or -1: how many bytes one U+FFFD replaces (the maximal subpart of
 * Unicode 15, section 3.9, as Python's errors="replace" does). */
size_t utf8_invalid_len(const char *text, size_t len);

#endif
