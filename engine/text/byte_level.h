/* byte_level.h - GPT-2's writing of bytes as printable characters: bytes that are printable in
 * Latin-1 stand for themselves, the other 68 for U+0100 onwards. */
#ifndef INFERD_ENGINE_TEXT_BYTE_LEVEL_H
#define INFERD_ENGINE_TEXT_BYTE_LEVEL_H

#include "base/buf.h"
#include <stdint.h>

/* The character of a byte. */
uint32_t byte_level_char(unsigned char byte);
/* The byte of a character, or -1. */
int byte_level_byte(uint32_t c);
/* Appends the characters of the bytes. */
void byte_level_encode(const char *text, size_t len, struct buf *out);
/* Appends the bytes of the characters and returns true; where one is not such a character, appends
 * the text as it is and returns false. `text` is valid UTF-8. */
bool byte_level_decode(const char *text, size_t len, struct buf *out);

#endif
