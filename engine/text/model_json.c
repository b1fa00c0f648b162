/* model_json.c - finds NUL escapes in keys before jansson sees them. */
#include "engine/text/model_json.h"
#include "base/utf8.h"

#include <string.h>

/* Noncharacters, of which some tokenizer may well have one, but hardly all. */
enum { FIRST_STAND_IN = 0xFDD0, NUM_STAND_INS = 32 };

static int hex_value(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* The value of the \uXXXX that stands at `text`, or -1. */
static int escape_value(const char *text, const char *end)
{
    int value = 0;
    if (end - text < 6 || text[0] != '\\' || text[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        int digit = hex_value(text[i]);
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* A noncharacter that the text has neither as it is nor as an escape, or -1. */
static int free_stand_in(const char *text, size_t len)
{
    const char *end = text + len;
    uint32_t used = 0;
    for (const char *p = text; p < end; p++) {
        uint32_t c = 0;
        int value = *p == '\\' ? escape_value(p, end) : -1;
        if ((unsigned char)*p == 0xEF && utf8_decode(p, (size_t)(end - p), &c) > 0)
            value = (int)c;
        if (value >= FIRST_STAND_IN && value < FIRST_STAND_IN + NUM_STAND_INS)
            used |= 1u << (value - FIRST_STAND_IN);
    }
    for (int i = 0; i < NUM_STAND_INS; i++) {
        if (!(used & 1u << i))
            return FIRST_STAND_IN + i;
    }
    return -1;
}

/* Behind the string that begins at `p`, a quote; `end` where it does not end. */
static char *string_end(char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\' && p + 1 < end;
    return p < end ? p + 1 : p;
}

static void replace_in_key(char *p, const char *end, int stand_in)
{
    static const char digits[] = "0123456789abcdef";
    while (p < end) {
        if (escape_value(p, end) == 0) {
            for (int i = 0; i < 4; i++)
                p[2 + i] = digits[stand_in >> (12 - 4 * i) & 15];
        }
        p += *p == '\\' ? 2 : 1;
    }
}

static void replace_nul(char *text, size_t len, int stand_in)
{
    const char *end = text + len;
    for (char *p = text; p < end; p++) {
        if (*p != '"')
            continue;
        char *behind = string_end(p, end), *next = behind;
        while (next < end && strchr(" \t\r\n", *next) && *next)
            next++;
        if (next < end && *next == ':')
            replace_in_key(p + 1, behind, stand_in);
        p = behind - 1;
    }
}

static bool parse_without_nul(const char *text, size_t len, struct model_json *out,
                              json_error_t *error)
{
    struct buf copy;
    int stand_in = free_stand_in(text, len);
    if (stand_in < 0)
        return false;
    buf_init(&copy, 0);
    buf_append(&copy, text, len);
    replace_nul(copy.data, len, stand_in);
    out->nul_len = (size_t)utf8_encode((uint32_t)stand_in, out->nul);
    out->root = json_loadb(copy.data, len, JSON_ALLOW_NUL, error);
    buf_free(&copy);
    return out->root != NULL;
}

bool model_json_parse(const char *text, size_t len, struct model_json *out, struct status *st)
{
    json_error_t error;
    *out = (struct model_json){ .root = json_loadb(text, len, JSON_ALLOW_NUL, &error) };
    /* Published files give 10^30 for "no limit" (model_max_length), beyond 64 bits. */
    if (!out->root && json_error_code(&error) == json_error_numeric_overflow)
        out->root = json_loadb(text, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    if (!out->root && json_error_code(&error) == json_error_null_byte_in_key)
        parse_without_nul(text, len, out, &error);
    if (!out->root)
        return status_set(st, STATUS_INVALID, "line %d: %s", error.line, error.text);
    if (!json_is_object(out->root)) {
        json_decref(out->root);
        out->root = NULL;
        return status_set(st, STATUS_INVALID, "not a JSON object");
    }
    return true;
}

const char *model_json_key(const struct model_json *j, const char *key, size_t *len,
                           struct buf *room)
{
    *len = strlen(key);
    const char *found = j->nul_len ? memmem(key, *len, j->nul, j->nul_len) : NULL;
    if (!found)
        return key;
    buf_clear(room);
    const char *at = key, *end = key + *len;
    while (found) {
        buf_append(room, at, (size_t)(found - at));
        buf_append_char(room, '\0');
        at = found + j->nul_len;
        found = memmem(at, (size_t)(end - at), j->nul, j->nul_len);
    }
    buf_append(room, at, (size_t)(end - at));
    *len = room->len;
    return room->data;
}
