/* token_stage_bytes.c - the stages that turn pieces into bytes, and bytes into characters. */
#include "base/utf8.h"
#include "engine/text/byte_level.h"
#include "engine/text/token_stage.h"

#include <string.h>

/* --- ByteLevel ------------------------------------------------------------------------------ */

/* Hands on whole characters; what can never be one leaves as U+FFFD. */
static void drain_utf8(struct token_decoder_stream *s, int index, bool all, struct buf *out)
{
    struct buf *held = &s->states[index].held;
    size_t i = 0;
    while (i < held->len) {
        size_t n = utf8_valid_prefix(held->data + i, held->len - i);
        if (n > 0)
            token_stage_next(s, index, held->data + i, n, out);
        i += n;
        uint32_t c;
        if (i == held->len || (!all && utf8_decode(held->data + i, held->len - i, &c) == 0))
            break;
        token_stage_next(s, index, TOKEN_STAGE_REPLACEMENT, 3, out);
        i += utf8_invalid_len(held->data + i, held->len - i);
    }
    memmove(held->data, held->data + i, held->len - i);
    held->len -= i;
}

static void byte_level_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                            struct buf *out)
{
    byte_level_decode(text, len, &s->states[index].held);
    if (s->states[index].held.len > 0)
        drain_utf8(s, index, false, out);
}

static void byte_level_finish(struct token_decoder_stream *s, int index, struct buf *out)
{
    if (s->states[index].held.len > 0)
        drain_utf8(s, index, true, out);
}

static void byte_level_bytes(const struct token_stage *g, struct buf *text)
{
    (void)g;
    struct buf bytes;
    buf_init(&bytes, 0);
    byte_level_decode(buf_str(text), text->len, &bytes);
    buf_free(text);
    *text = bytes;
}

const struct token_stage_kind token_stage_byte_level = {
    .type = "ByteLevel",
    .push = byte_level_push,
    .finish = byte_level_finish,
    .bytes = byte_level_bytes,
    .joins = true,
};

/* --- ByteFallback --------------------------------------------------------------------------- */

/* The byte of a piece <0xNN>, or -1. */
static int byte_of_piece(const char *text, size_t len)
{
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The row of bytes has ended. */
static void end_bytes(struct token_decoder_stream *s, int index, struct buf *out)
{
    struct buf *held = &s->states[index].held;
    if (held->len == 0)
        return;
    if (utf8_valid(held->data, held->len)) {
        token_stage_next(s, index, held->data, held->len, out);
    } else {
        for (size_t i = 0; i < held->len; i++)
            token_stage_next(s, index, TOKEN_STAGE_REPLACEMENT, 3, out);
    }
    buf_clear(held);
}

/* Hands on what the held bytes already decide: whole characters, and bytes that form none. */
static void drain_bytes(struct token_decoder_stream *s, int index, struct buf *out)
{
    struct buf *held = &s->states[index].held;
    while (held->len > 0) {
        uint32_t c;
        int n = utf8_decode(held->data, held->len, &c);
        if (n == 0)
            return;
        if (n > 0)
            token_stage_next(s, index, held->data, (size_t)n, out);
        else
            token_stage_next(s, index, TOKEN_STAGE_REPLACEMENT, 3, out);
        size_t used = n > 0 ? (size_t)n : 1;
        memmove(held->data, held->data + used, held->len - used);
        held->len -= used;
    }
}

static void byte_fallback_push(struct token_decoder_stream *s, int index, const char *text,
                               size_t len, struct buf *out)
{
    int byte = byte_of_piece(text, len);
    if (byte < 0) {
        end_bytes(s, index, out);
        token_stage_next(s, index, text, len, out);
        return;
    }
    buf_append_char(&s->states[index].held, (char)byte);
    if (!s->exact)
        drain_bytes(s, index, out);
}

static void byte_fallback_bytes(const struct token_stage *g, struct buf *text)
{
    (void)g;
    int byte = byte_of_piece(buf_str(text), text->len);
    if (byte >= 0) {
        buf_clear(text);
        buf_append_char(text, (char)byte);
    }
}

const struct token_stage_kind token_stage_byte_fallback = {
    .type = "ByteFallback",
    .push = byte_fallback_push,
    .finish = end_bytes,
    .bytes = byte_fallback_bytes,
};
