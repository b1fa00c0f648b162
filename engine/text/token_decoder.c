/* token_decoder.c - one push function per decoder of the tokenizers library.
 *
 * In the library every decoder maps a list of strings to a list of strings. Here a stage gets the
 * strings one by one. Behind ByteLevel and Fuse there is only one string left, which arrives in
 * chunks: stages there ("joined") must not care where a chunk ends. */
#include "engine/text/token_decoder.h"
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_level.h"
#include "engine/text/json_field.h"
#include "engine/text/regex.h"
#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STAGES = 16, MAX_DEPTH = 16, MAX_STRIP = 1000 };

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; /* U+FFFD */

struct stage;
struct stage_state;
typedef void push_function(struct token_decoder_stream *s, int index, const char *text, size_t len,
                           struct buf *out);
typedef void finish_function(struct token_decoder_stream *s, int index, struct buf *out);
/* The piece alone, in running text. */
typedef void bytes_function(const struct stage *g, struct buf *text);

struct stage_kind {
    const char *type;
    bool (*load)(struct stage *g, const json_t *spec, struct status *st);
    push_function *push, *push_joined; /* NULL: cannot stand behind ByteLevel or Fuse */
    finish_function *finish;           /* NULL: holds nothing back */
    bytes_function *bytes;             /* NULL: leaves a lone piece as it is */
    bool joins;
};

struct stage {
    const struct stage_kind *kind;
    bool joined;
    char *pattern, *content; /* owned; content: Strip's character, Metaspace's replacement */
    size_t pattern_len, content_len;
    struct regex *regex;
    int64_t start, stop; /* Strip */
    bool keep_first;     /* Metaspace: the first piece keeps its spaces */
    bool cleanup;        /* WordPiece */
};

struct token_decoder {
    struct stage stages[MAX_STAGES];
    int num_stages;
};

struct stage_state {
    size_t count; /* strings seen; Strip: characters taken from the front */
    bool open;    /* Strip: the front is done; BPEDecoder: a string is held */
    struct buf held;
    struct buf scratch;
};

struct token_decoder_stream {
    const struct token_decoder *decoder;
    bool exact;
    struct stage_state states[MAX_STAGES];
};

static void next(struct token_decoder_stream *s, int index, const char *text, size_t len,
                 struct buf *out)
{
    if (++index == s->decoder->num_stages) {
        buf_append(out, text, len);
        return;
    }
    const struct stage *g = &s->decoder->stages[index];
    (g->joined ? g->kind->push_joined : g->kind->push)(s, index, text, len, out);
}

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

/* --- ByteLevel ------------------------------------------------------------------------------ */

/* Hands on whole characters; what can never be one leaves as U+FFFD. */
static void drain_utf8(struct token_decoder_stream *s, int index, bool all, struct buf *out)
{
    struct buf *held = &s->states[index].held;
    size_t i = 0;
    while (i < held->len) {
        size_t n = utf8_valid_prefix(held->data + i, held->len - i);
        if (n > 0)
            next(s, index, held->data + i, n, out);
        i += n;
        uint32_t c;
        if (i == held->len || (!all && utf8_decode(held->data + i, held->len - i, &c) == 0))
            break;
        next(s, index, REPLACEMENT, 3, out);
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

static void byte_level_bytes(const struct stage *g, struct buf *text)
{
    (void)g;
    struct buf bytes;
    buf_init(&bytes, 0);
    byte_level_decode(buf_str(text), text->len, &bytes);
    buf_free(text);
    *text = bytes;
}

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
        next(s, index, held->data, held->len, out);
    } else {
        for (size_t i = 0; i < held->len; i++)
            next(s, index, REPLACEMENT, 3, out);
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
            next(s, index, held->data, (size_t)n, out);
        else
            next(s, index, REPLACEMENT, 3, out);
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
        next(s, index, text, len, out);
        return;
    }
    buf_append_char(&s->states[index].held, (char)byte);
    if (!s->exact)
        drain_bytes(s, index, out);
}

static void byte_fallback_bytes(const struct stage *g, struct buf *text)
{
    (void)g;
    int byte = byte_of_piece(buf_str(text), text->len);
    if (byte >= 0) {
        buf_clear(text);
        buf_append_char(text, (char)byte);
    }
}

/* --- Metaspace ------------------------------------------------------------------------------ */

static bool load_metaspace(struct stage *g, const json_t *spec, struct status *st)
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
    const struct stage *g = &s->decoder->stages[index];
    struct stage_state *state = &s->states[index];
    bool first = state->count++ == 0 && !g->keep_first;
    buf_clear(&state->scratch);
    replace_all(text, len, g->content, g->content_len, " ", first ? 0 : 1, &state->scratch);
    next(s, index, buf_str(&state->scratch), state->scratch.len, out);
}

static void metaspace_bytes(const struct stage *g, struct buf *text)
{
    replace_in(text, g->content, g->content_len, " ", 1);
}

/* --- Replace -------------------------------------------------------------------------------- */

static bool load_replace(struct stage *g, const json_t *spec, struct status *st)
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

static void replace_piece(const struct stage *g, const char *text, size_t len, struct buf *out)
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
    next(s, index, buf_str(scratch), scratch->len, out);
}

/* In one long string a match may lie across two chunks: what could begin one is held back. */
static void replace_push_joined(struct token_decoder_stream *s, int index, const char *text,
                                size_t len, struct buf *out)
{
    const struct stage *g = &s->decoder->stages[index];
    struct buf *held = &s->states[index].held;
    buf_append(held, text, len);
    size_t i = 0;
    while (g->pattern_len > 0 && held->len - i >= g->pattern_len) {
        const char *found = memmem(held->data + i, held->len - i, g->pattern, g->pattern_len);
        if (!found)
            break;
        next(s, index, held->data + i, (size_t)(found - held->data) - i, out);
        next(s, index, g->content, g->content_len, out);
        i = (size_t)(found - held->data) + g->pattern_len;
    }
    size_t keep = g->pattern_len > 0 ? g->pattern_len - 1 : 0;
    if (keep > held->len - i)
        keep = held->len - i;
    while (keep > 0 && memcmp(held->data + held->len - keep, g->pattern, keep) != 0)
        keep--;
    if (held->len - keep > i)
        next(s, index, held->data + i, held->len - keep - i, out);
    memmove(held->data, held->data + held->len - keep, keep);
    held->len = keep;
}

static void hand_on_held(struct token_decoder_stream *s, int index, struct buf *out)
{
    struct buf *held = &s->states[index].held;
    if (held->len > 0)
        next(s, index, held->data, held->len, out);
    buf_clear(held);
}

static void replace_finish(struct token_decoder_stream *s, int index, struct buf *out)
{
    if (s->decoder->stages[index].joined)
        hand_on_held(s, index, out);
}

static void replace_bytes(const struct stage *g, struct buf *text)
{
    struct buf fresh;
    buf_init(&fresh, 0);
    replace_piece(g, buf_str(text), text->len, &fresh);
    buf_free(text);
    *text = fresh;
}

/* --- Strip ---------------------------------------------------------------------------------- */

static bool load_strip(struct stage *g, const json_t *spec, struct status *st)
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

static bool starts_with(const struct stage *g, const char *text, size_t len)
{
    return len >= g->content_len && memcmp(text, g->content, g->content_len) == 0;
}

static void strip_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                       struct buf *out)
{
    const struct stage *g = &s->decoder->stages[index];
    for (int64_t i = 0; i < g->start && starts_with(g, text, len); i++) {
        text += g->content_len;
        len -= g->content_len;
    }
    for (int64_t i = 0; i < g->stop && len >= g->content_len; i++) {
        if (!starts_with(g, text + len - g->content_len, g->content_len))
            break;
        len -= g->content_len;
    }
    next(s, index, text, len, out);
}

static void strip_push_joined(struct token_decoder_stream *s, int index, const char *text,
                              size_t len, struct buf *out)
{
    const struct stage *g = &s->decoder->stages[index];
    struct stage_state *state = &s->states[index];
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
        next(s, index, text, body, out);
    if (held->len > keep) {
        next(s, index, held->data, held->len - keep, out);
        memmove(held->data, held->data + held->len - keep, keep);
        held->len = keep;
    }
}

/* --- WordPiece ------------------------------------------------------------------------------ */

static bool load_wordpiece(struct stage *g, const json_t *spec, struct status *st)
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

static void wordpiece_text(const struct stage *g, bool first, struct buf *text)
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
    struct stage_state *state = &s->states[index];
    buf_clear(&state->scratch);
    buf_append(&state->scratch, text, len);
    wordpiece_text(&s->decoder->stages[index], state->count++ == 0, &state->scratch);
    next(s, index, buf_str(&state->scratch), state->scratch.len, out);
}

static void wordpiece_bytes(const struct stage *g, struct buf *text)
{
    wordpiece_text(g, false, text);
}

/* --- BPEDecoder ----------------------------------------------------------------------------- */

static bool load_bpe(struct stage *g, const json_t *spec, struct status *st)
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
    const struct stage *g = &s->decoder->stages[index];
    struct stage_state *state = &s->states[index];
    if (!state->open)
        return;
    buf_clear(&state->scratch);
    replace_all(buf_str(&state->held), state->held.len, g->pattern, g->pattern_len, " ",
                last ? 0 : 1, &state->scratch);
    state->open = false;
    next(s, index, buf_str(&state->scratch), state->scratch.len, out);
}

/* The last piece of all gets no space: each waits for its successor. */
static void bpe_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                     struct buf *out)
{
    bpe_release(s, index, false, out);
    struct stage_state *state = &s->states[index];
    buf_clear(&state->held);
    buf_append(&state->held, text, len);
    state->open = true;
}

static void bpe_finish(struct token_decoder_stream *s, int index, struct buf *out)
{
    bpe_release(s, index, true, out);
}

static void bpe_bytes(const struct stage *g, struct buf *text)
{
    replace_in(text, g->pattern, g->pattern_len, " ", 1);
}

/* --- Fuse, and no decoder ------------------------------------------------------------------- */

static bool load_plain(struct stage *g, const json_t *spec, struct status *st)
{
    (void)g;
    (void)spec;
    (void)st;
    return true;
}

static void join_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                      struct buf *out)
{
    if (s->states[index].count++ > 0)
        next(s, index, " ", 1, out);
    next(s, index, text, len, out);
}

static const struct stage_kind KINDS[] = {
    { "ByteLevel", load_plain, byte_level_push, NULL, byte_level_finish, byte_level_bytes, true },
    { "ByteFallback", load_plain, byte_fallback_push, NULL, end_bytes, byte_fallback_bytes, false },
    { "Metaspace", load_metaspace, metaspace_push, NULL, NULL, metaspace_bytes, false },
    { "Replace", load_replace, replace_push, replace_push_joined, replace_finish, replace_bytes,
      false },
    { "Strip", load_strip, strip_push, strip_push_joined, NULL, NULL, false },
    { "WordPiece", load_wordpiece, wordpiece_push, NULL, NULL, wordpiece_bytes, false },
    { "BPEDecoder", load_bpe, bpe_push, NULL, bpe_finish, bpe_bytes, false },
    { "Fuse", load_plain, next, next, NULL, NULL, true },
};

static const struct stage_kind JOIN = { "", load_plain, join_push, NULL, NULL, NULL, true };

/* --- loading and running -------------------------------------------------------------------- */

static bool add_stage(struct token_decoder *d, const struct stage_kind *kind, const json_t *spec,
                      struct status *st)
{
    if (d->num_stages == MAX_STAGES)
        return status_set(st, STATUS_UNSUPPORTED, "more than %d decoders", MAX_STAGES);
    bool joined = d->num_stages > 0 &&
                  (d->stages[d->num_stages - 1].joined || d->stages[d->num_stages - 1].kind->joins);
    struct stage *g = &d->stages[d->num_stages++];
    g->kind = kind;
    g->joined = joined;
    if (!kind->load(g, spec, st) || st->code != STATUS_OK)
        return false;
    if (joined && (!kind->push_joined || g->regex))
        return status_set(st, STATUS_UNSUPPORTED,
                          "the decoder %s is not supported behind ByteLevel or Fuse", kind->type);
    return true;
}

static bool load_stages(struct token_decoder *d, const json_t *spec, int depth, struct status *st)
{
    const char *type = json_field_type(spec);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(spec, "decoders");
        if (!json_is_array(list) || depth == MAX_DEPTH)
            return status_set(st, STATUS_INVALID, "the decoder Sequence has no proper list");
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (!load_stages(d, json_array_get(list, i), depth + 1, st))
                return false;
        }
        return true;
    }
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
        if (strcmp(type, KINDS[k].type) == 0)
            return add_stage(d, &KINDS[k], spec, st);
    }
    return json_field_unknown("decoder", spec, st);
}

bool token_decoder_load(const json_t *spec, struct token_decoder **out, struct status *st)
{
    struct token_decoder *d = xcalloc(1, sizeof *d);
    *out = NULL;
    bool ok =
        spec && !json_is_null(spec) ? load_stages(d, spec, 0, st) : add_stage(d, &JOIN, NULL, st);
    if (!ok) {
        token_decoder_free(d);
        return false;
    }
    *out = d;
    return true;
}

void token_decoder_free(struct token_decoder *d)
{
    for (int i = 0; d && i < d->num_stages; i++) {
        free(d->stages[i].pattern);
        free(d->stages[i].content);
        regex_free(d->stages[i].regex);
    }
    free(d);
}

struct token_decoder_stream *token_decoder_stream_open(const struct token_decoder *d, bool exact)
{
    struct token_decoder_stream *s = xcalloc(1, sizeof *s);
    s->decoder = d;
    s->exact = exact;
    return s;
}

void token_decoder_stream_push(struct token_decoder_stream *s, const char *piece, size_t len,
                               struct buf *out)
{
    next(s, -1, piece, len, out);
}

void token_decoder_stream_finish(struct token_decoder_stream *s, struct buf *out)
{
    for (int i = 0; i < s->decoder->num_stages; i++) {
        if (s->decoder->stages[i].kind->finish)
            s->decoder->stages[i].kind->finish(s, i, out);
    }
}

void token_decoder_stream_close(struct token_decoder_stream *s)
{
    for (int i = 0; s && i < MAX_STAGES; i++) {
        buf_free(&s->states[i].held);
        buf_free(&s->states[i].scratch);
    }
    free(s);
}

void token_decoder_piece_bytes(const struct token_decoder *d, const char *piece, size_t len,
                               struct buf *out)
{
    struct buf text;
    buf_init(&text, 0);
    buf_append(&text, piece, len);
    for (int i = 0; i < d->num_stages; i++) {
        if (d->stages[i].kind->bytes && !d->stages[i].joined)
            d->stages[i].kind->bytes(&d->stages[i], &text);
    }
    buf_append(out, buf_str(&text), text.len);
    buf_free(&text);
}
