/* unicode.c - see unicode.h. */
#include "engine/text/unicode.h"
#include "base/utf8.h"

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

size_t unicode_python_space_prefix(const char *text, size_t len)
{
    size_t i = 0;
    uint32_t c;
    while (i < len) {
        int n = utf8_decode(text + i, len - i, &c);
        if (n <= 0 || !unicode_is_python_space(c))
            break;
        i += (size_t)n;
    }
    return i;
}

size_t unicode_python_space_suffix(const char *text, size_t len)
{
    while (len > 0) {
        size_t start = len - 1;
        while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80)
            start--;
        uint32_t c;
        if (utf8_decode(text + start, len - start, &c) <= 0 || !unicode_is_python_space(c))
            break;
        len = start;
    }
    return len;
}
