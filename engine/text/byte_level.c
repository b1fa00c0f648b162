/* byte_level.c - after bytes_to_unicode() of GPT-2's encoder.py. */
#include "engine/text/byte_level.h"
#include "engine/text/unicode.h"

static bool is_printable(unsigned char b)
{
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

uint32_t byte_level_char(unsigned char b)
{
    if (is_printable(b))
        return b;
    if (b <= 0x20) /* 0 .. 0x20 are the first 33 */
        return 0x100u + b;
    return b == 0xAD ? 0x143u : 0x121u + (b - 0x7Fu); /* 0x7F .. 0xA0, then 0xAD */
}

int byte_level_byte(uint32_t c)
{
    if (c < 0x100)
        return is_printable((unsigned char)c) ? (int)c : -1;
    if (c <= 0x120)
        return (int)(c - 0x100);
    if (c <= 0x142)
        return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

void byte_level_encode(const char *text, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len; i++)
        unicode_append(out, byte_level_char((unsigned char)text[i]));
}

bool byte_level_decode(const char *text, size_t len, struct buf *out)
{
    size_t before = out->len;
    uint32_t c;
    for (size_t i = 0; i < len;) {
        i += unicode_next(text, i, &c);
        int byte = byte_level_byte(c);
        if (byte < 0) {
            out->len = before;
            buf_append(out, text, len);
            return false;
        }
        buf_append_char(out, (char)byte);
    }
    return true;
}
