/* unicode.h - character classes that tokenizers are defined by, where the C library's differ. */
#ifndef INFERD_ENGINE_TEXT_UNICODE_H
#define INFERD_ENGINE_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Unicode's White_Space property. */
bool unicode_is_white_space(uint32_t c);
/* What Python's str.strip() removes: White_Space and the separators U+001C .. U+001F. */
bool unicode_is_python_space(uint32_t c);

/* Bytes of leading Python white space in valid UTF-8. */
size_t unicode_python_space_prefix(const char *text, size_t len);
/* The length without trailing Python white space. */
size_t unicode_python_space_suffix(const char *text, size_t len);

#endif
