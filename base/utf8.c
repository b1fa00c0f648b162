/* utf8.c - decoding by the table of well-formed byte sequences (Unicode 15, table 3-7). */
#include "base/utf8.h"

/* Allowed range of the second byte for a lead byte; the others are always 80..BF. */
static int sequence_length(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0)
            *low = 0xA0;
        if (lead == 0xED)
            *high = 0x9F;
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0)
            *low = 0x90;
        if (lead == 0xF4)
            *high = 0x8F;
        return 4;
    }
    return 0;
}

/* How many leading bytes fit a well-formed sequence; *need is that sequence's length (0: none). */
static size_t match(const unsigned char *p, size_t len, int *need)
{
    unsigned char low, high;
    *need = sequence_length(p[0], &low, &high);
    if (*need == 0)
        return 0;
    size_t i = 1;
    for (; i < (size_t)*need && i < len; i++) {
        unsigned char a = i == 1 ? low : 0x80, b = i == 1 ? high : 0xBF;
        if (p[i] < a || p[i] > b)
            break;
    }
    return i;
}

int utf8_decode(const char *text, size_t len, uint32_t *code_point)
{
    static const unsigned char lead_mask[5] = { 0, 0x7F, 0x1F, 0x0F, 0x07 };
    const unsigned char *p = (const unsigned char *)text;
    int need;
    size_t got = match(p, len, &need);
    if (need == 0)
        return -1;
    if (got < (size_t)need)
        return got == len ? 0 : -1;
    uint32_t c = p[0] & lead_mask[need];
    for (int i = 1; i < need; i++)
        c = c << 6 | (p[i] & 0x3Fu);
    *code_point = c;
    return need;
}

int utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

size_t utf8_valid_prefix(const char *text, size_t len)
{
    size_t i = 0;
    uint32_t c;
    while (i < len) {
        if ((unsigned char)text[i] < 0x80) {
            i++;
            continue;
        }
        int n = utf8_decode(text + i, len - i, &c);
        if (n <= 0)
            break;
        i += (size_t)n;
    }
    return i;
}

bool utf8_valid(const char *text, size_t len)
{
    return utf8_valid_prefix(text, len) == len;
}

size_t utf8_invalid_len(const char *text, size_t len)
{
    int need;
    size_t got = match((const unsigned char *)text, len, &need);
    return got > 0 ? got : 1;
}
