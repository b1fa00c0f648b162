/* token_decoder.c - the decoders of the tokenizers library in a row, each a stage. */
#include "engine/text/token_decoder.h"
#include "base/alloc.h"
#include "engine/text/json_field.h"
#include "engine/text/token_stage.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 };

void token_stage_next(struct token_decoder_stream *s, int index, const char *text, size_t len,
                      struct buf *out)
{
    if (++index == s->decoder->num_stages) {
        buf_append(out, text, len);
        return;
    }
    const struct token_stage *g = &s->decoder->stages[index];
    (g->joined ? g->kind->push_joined : g->kind->push)(s, index, text, len, out);
}

/* --- Fuse, and no decoder ------------------------------------------------------------------- */

static void join_push(struct token_decoder_stream *s, int index, const char *text, size_t len,
                      struct buf *out)
{
    if (s->states[index].count++ > 0)
        token_stage_next(s, index, " ", 1, out);
    token_stage_next(s, index, text, len, out);
}

static const struct token_stage_kind FUSE = {
    .type = "Fuse",
    .push = token_stage_next,
    .push_joined = token_stage_next,
    .joins = true,
};

static const struct token_stage_kind JOIN = {
    .push = join_push,
    .joins = true,
};

static const struct token_stage_kind *const KINDS[] = {
    &token_stage_byte_level, &token_stage_byte_fallback,
    &token_stage_metaspace,  &token_stage_replace,
    &token_stage_strip,      &token_stage_wordpiece,
    &token_stage_bpe,        &FUSE,
};

/* --- loading and running -------------------------------------------------------------------- */

static bool add_stage(struct token_decoder *d, const struct token_stage_kind *kind,
                      const json_t *spec, struct status *st)
{
    if (d->num_stages == TOKEN_STAGES_MAX)
        return status_set(st, STATUS_UNSUPPORTED, "more than %d decoders", TOKEN_STAGES_MAX);
    bool joined = d->num_stages > 0 &&
                  (d->stages[d->num_stages - 1].joined || d->stages[d->num_stages - 1].kind->joins);
    struct token_stage *g = &d->stages[d->num_stages++];
    g->kind = kind;
    g->joined = joined;
    if (kind->load && (!kind->load(g, spec, st) || st->code != STATUS_OK))
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
        if (strcmp(type, KINDS[k]->type) == 0)
            return add_stage(d, KINDS[k], spec, st);
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
    token_stage_next(s, -1, piece, len, out);
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
    for (int i = 0; s && i < TOKEN_STAGES_MAX; i++) {
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
