/* token_stage_text.c - the stages that change text: spaces, prefixes, patterns. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/json_field.h"
#include "engine/text/token_stage.h"

#include <string.h>

enum { MAX_STRIP = 1000 };

/* Appends `text` with every `from` replaced. */
static void replace_all(const char *text, size_t len, const char *from, size_t from_len,
                        const char *to, size_t to_len, struct buf *out)
{
    while (from_len > 0 && len >= from_len) {
        const char *found = memmem(text, len, from, from_len);
        if (!found)
            break;
        buf_append(out, text, (size_t)(found - text));
        buf_append(out, to, to_len);
        len -= (size_t)(found - text) + from_len;
        text = found + from_len;
    }
    buf_append(out, text, len);
}

static void replace_in(struct buf *b, const char *from, size_t from_len, const char *to,
                       size_t to_len)
{
    if (from_len == 0 || !memmem(buf_str(b), b->len, from, from_len))
        return;
    struct buf fresh;
    buf_init(&fresh, 0);
    replace_all(b->data, b->len, from, from_len, to, to_len, &fresh);
    buf_free(b);
    *b = fresh;
}

/* --- Metaspace ------------------------------------------------------------------------------ */

static bool load_metaspace(struct token_stage *g, const json_t *spec, struct status *st)
{
    char bytes[4];
    size_t len;
    uint32_t c = json_field_char(spec, "replacement", st);
    if (st->code != STATUS_OK)
        return false;
    g->content_len = (size_t)utf8_encode(c, bytes);
    g->content = xstrndup(bytes, g->content_len);
    const char *scheme = json_field_text(spec, "prepend_scheme", &len, st);
    g->keep_first = !json_field_bool(spec, "add_prefix_space", true, st) ||
                    (scheme && strcmp(scheme, "never") == 0);
    return true;
}

static void metaspace_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                           struct buf *out)
{
    const struct token_stage *g = &s->decoder->stages[index];
    struct token_stage_state *state = &s->states[index];
    bool first = state->count++ == 0 && !g->keep_first;
    buf_clear(&state->scratch);
    replace_all(text, len, g->content, g->content_len, " ", first ? 0 : 1, &state->scratch);
    token_stage_next(s, index, buf_str(&state->scratch), state->scratch.len, out);
}

static void metaspace_bytes(const struct token_stage *g, struct buf *text)
{
    replace_in(text, g->content, g->content_len, " ", 1);
}

const struct token_stage_kind token_stage_metaspace = {
    .type = "Metaspace",
    .load = load_metaspace,
    .push = metaspace_push,
    .bytes = metaspace_bytes,
};

/* --- Replace -------------------------------------------------------------------------------- */

static bool load_replace(struct token_stage *g, const json_t *spec, struct status *st)
{
    bool is_regex;
    size_t len;
    const char *pattern = json_field_pattern(spec, &len, &is_regex, st);
    const char *content = json_field_need(spec, "content", &g->content_len, st);
    g->content = xstrndup(content, g->content_len);
    if (st->code != STATUS_OK)
        return false;
    if (is_regex || len == 0) /* the empty string matches everywhere */
        return regex_compile(pattern, len, &g->regex, st);
    g->pattern = xstrndup(pattern, len);
    g->pattern_len = len;
    return true;
}

static void replace_piece(const struct token_stage *g, const char *text, size_t len,
                          struct buf *out)
{
    if (!g->regex) {
        replace_all(text, len, g->pattern, g->pattern_len, g->content, g->content_len, out);
        return;
    }
    struct regex_scan scan = { 0 };
    struct status st = { 0 };
    size_t done = 0, start, end;
    if (len > 0)
        regex_scan_start(&scan, g->regex, text, len);
    /* A piece is short: the expression cannot run out of memory on it. */
    while (len > 0 && regex_scan_next(&scan, &start, &end, &st) > 0) {
        buf_append(out, text + done, start - done);
        buf_append(out, g->content, g->content_len);
        done = end;
    }
    buf_append(out, text + done, len - done);
    regex_scan_free(&scan);
}

static void replace_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                         struct buf *out)
{
    struct buf *scratch = &s->states[index].scratch;
    buf_clear(scratch);
    replace_piece(&s->decoder->stages[index], text, len, scratch);
    token_stage_next(s, index, buf_str(scratch), scratch->len, out);
}

/* In one long string a match may lie across two chunks: what could begin one is held back. */
static void replace_push_joined(struct token_decoder_stream *s, int index, const char *text,
                                size_t len, struct buf *out)
{
    const struct token_stage *g = &s->decoder->stages[index];
    struct buf *held = &s->states[index].held;
    buf_append(held, text, len);
    size_t i = 0;
    while (g->pattern_len > 0 && held->len - i >= g->pattern_len) {
        const char *found = memmem(held->data + i, held->len - i, g->pattern, g->pattern_len);
        if (!found)
            break;
        token_stage_next(s, index, held->data + i, (size_t)(found - held->data) - i, out);
        token_stage_next(s, index, g->content, g->content_len, out);
        i = (size_t)(found - held->data) + g->pattern_len;
    }
    size_t keep = g->pattern_len > 0 ? g->pattern_len - 1 : 0;
    if (keep > held->len - i)
        keep = held->len - i;
    while (keep > 0 && memcmp(held->data + held->len - keep, g->pattern, keep) != 0)
        keep--;
    if (held->len - keep > i)
        token_stage_next(s, index, held->data + i, held->len - keep - i, out);
    memmove(held->data, held->data + held->len - keep, keep);
    held->len = keep;
}

static void hand_on_held(struct token_decoder_stream *s, int index, struct buf *out)
{
    struct buf *held = &s->states[index].held;
    if (held->len > 0)
        token_stage_next(s, index, held->data, held->len, out);
    buf_clear(held);
}

static void replace_finish(struct token_decoder_stream *s, int index, struct buf *out)
{
    if (s->decoder->stages[index].joined)
        hand_on_held(s, index, out);
}

static void replace_bytes(const struct token_stage *g, struct buf *text)
{
    struct buf fresh;
    buf_init(&fresh, 0);
    replace_piece(g, buf_str(text), text->len, &fresh);
    buf_free(text);
    *text = fresh;
}

const struct token_stage_kind token_stage_replace = {
    .type = "Replace",
    .load = load_replace,
    .push = replace_push,
    .push_joined = replace_push_joined,
    .finish = replace_finish,
    .bytes = replace_bytes,
};

/* --- Strip ---------------------------------------------------------------------------------- */

static bool load_strip(struct token_stage *g, const json_t *spec, struct status *st)
{
    char bytes[4];
    uint32_t c = json_field_char(spec, "content", st);
    g->start = json_field_int(spec, "start", 0, st);
    g->stop = json_field_int(spec, "stop", 0, st);
    if (st->code != STATUS_OK)
        return false;
    if (g->start < 0 || g->stop < 0 || g->start > MAX_STRIP || g->stop > MAX_STRIP)
        return status_set(st, STATUS_INVALID, "the decoder Strip takes 0 to %d characters",
                          MAX_STRIP);
    g->content_len = (size_t)utf8_encode(c, bytes);
    g->content = xstrndup(bytes, g->content_len);
    return true;
}

static bool starts_with(const struct token_stage *g, const char *text, size_t len)
{
    return len >= g->content_len && memcmp(text, g->content, g->content_len) == 0;
}

static void strip_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                       struct buf *out)
{
    const struct token_stage *g = &s->decoder->stages[index];
    for (int64_t i = 0; i < g->start && starts_with(g, text, len); i++) {
        text += g->content_len;
        len -= g->content_len;
    }
    for (int64_t i = 0; i < g->stop && len >= g->content_len; i++) {
        if (!starts_with(g, text + len - g->content_len, g->content_len))
            break;
        len -= g->content_len;
    }
    token_stage_next(s, index, text, len, out);
}

static void strip_push_joined(struct token_decoder_stream *s, int index, const char *text,
                              size_t len, struct buf *out)
{
    const struct token_stage *g = &s->decoder->stages[index];
    struct token_stage_state *state = &s->states[index];
    while (!state->open && len > 0) {
        if ((int64_t)state->count < g->start && starts_with(g, text, len)) {
            state->count++;
            text += g->content_len;
            len -= g->content_len;
        } else {
            state->open = true;
        }
    }
    if (len == 0)
        return;
    /* The last `stop` occurrences are held back in case nothing follows them. */
    size_t body = len;
    int64_t run = 0;
    while (run < g->stop && body >= g->content_len &&
           starts_with(g, text + body - g->content_len, g->content_len)) {
        body -= g->content_len;
        run++;
    }
    struct buf *held = &state->held;
    if (body > 0)
        hand_on_held(s, index, out);
    size_t keep = (size_t)g->stop * g->content_len;
    buf_append(held, text + body, len - body);
    if (body > 0)
        token_stage_next(s, index, text, body, out);
    if (held->len > keep) {
        token_stage_next(s, index, held->data, held->len - keep, out);
        memmove(held->data, held->data + held->len - keep, keep);
        held->len = keep;
    }
}

const struct token_stage_kind token_stage_strip = {
    .type = "Strip",
    .load = load_strip,
    .push = strip_push,
    .push_joined = strip_push_joined,
};

/* --- WordPiece ------------------------------------------------------------------------------ */

static bool load_wordpiece(struct token_stage *g, const json_t *spec, struct status *st)
{
    const char *prefix = json_field_text(spec, "prefix", &g->pattern_len, st);
    if (!prefix) {
        prefix = "##";
        g->pattern_len = 2;
    }
    g->pattern = xstrndup(prefix, g->pattern_len);
    g->cleanup = json_field_bool(spec, "cleanup", true, st);
    return true;
}

/* The library's undoing of English tokenization, in its order. */
static void clean_up(struct buf *text)
{
    static const char *const rules[][2] = {
        { " .", "." },   { " ?", "?" },     { " !", "!" },     { " ,", "," },
        { " ' ", "'" },  { " n't", "n't" }, { " 'm", "'m" },   { " do not", " don't" },
        { " 's", "'s" }, { " 've", "'ve" }, { " 're", "'re" },
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        replace_in(text, rules[i][0], strlen(rules[i][0]), rules[i][1], strlen(rules[i][1]));
}

static void wordpiece_text(const struct token_stage *g, bool first, struct buf *text)
{
    bool continues =
        text->len >= g->pattern_len && memcmp(buf_str(text), g->pattern, g->pattern_len) == 0;
    if (!first && continues) {
        memmove(text->data, text->data + g->pattern_len, text->len - g->pattern_len);
        text->len -= g->pattern_len;
    } else if (!first) {
        buf_append_char(text, ' ');
        memmove(text->data + 1, text->data, text->len - 1);
        text->data[0] = ' ';
    }
    if (g->cleanup)
        clean_up(text);
}

static void wordpiece_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                           struct buf *out)
{
    struct token_stage_state *state = &s->states[index];
    buf_clear(&state->scratch);
    buf_append(&state->scratch, text, len);
    wordpiece_text(&s->decoder->stages[index], state->count++ == 0, &state->scratch);
    token_stage_next(s, index, buf_str(&state->scratch), state->scratch.len, out);
}

static void wordpiece_bytes(const struct token_stage *g, struct buf *text)
{
    wordpiece_text(g, false, text);
}

const struct token_stage_kind token_stage_wordpiece = {
    .type = "WordPiece",
    .load = load_wordpiece,
    .push = wordpiece_push,
    .bytes = wordpiece_bytes,
};

/* --- BPEDecoder ----------------------------------------------------------------------------- */

static bool load_bpe(struct token_stage *g, const json_t *spec, struct status *st)
{
    const char *suffix = json_field_text(spec, "suffix", &g->pattern_len, st);
    if (!suffix) {
        suffix = "</w>";
        g->pattern_len = 4;
    }
    g->pattern = xstrndup(suffix, g->pattern_len);
    return g->pattern_len > 0 ||
           status_set(st, STATUS_UNSUPPORTED, "the decoder BPEDecoder has an empty suffix");
}

static void bpe_release(struct token_decoder_stream *s, int index, bool last, struct buf *out)
{
    const struct token_stage *g = &s->decoder->stages[index];
    struct token_stage_state *state = &s->states[index];
    if (!state->open)
        return;
    buf_clear(&state->scratch);
    replace_all(buf_str(&state->held), state->held.len, g->pattern, g->pattern_len, " ",
                last ? 0 : 1, &state->scratch);
    state->open = false;
    token_stage_next(s, index, buf_str(&state->scratch), state->scratch.len, out);
}

/* The last piece of all gets no space: each waits for its successor. */
static void bpe_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                     struct buf *out)
{
    bpe_release(s, index, false, out);
    struct token_stage_state *state = &s->states[index];
    buf_clear(&state->held);
    buf_append(&state->held, text, len);
    state->open = true;
}

static void bpe_finish(struct token_decoder_stream *s, int index, struct buf *out)
{
    bpe_release(s, index, true, out);
}

static void bpe_bytes(const struct token_stage *g, struct buf *text)
{
    replace_in(text, g->pattern, g->pattern_len, " ", 1);
}

const struct token_stage_kind token_stage_bpe = {
    .type = "BPEDecoder",
    .load = load_bpe,
    .push = bpe_push,
    .finish = bpe_finish,
    .bytes = bpe_bytes,
};
