/* spm_decoder.c - ids to text as LlamaTokenizer.convert_tokens_to_string and
 * SentencePieceProcessor::Decode do it, one id at a time. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/spm_internal.h"

#include <stdlib.h>
#include <string.h>

/* transformers decodes in three nested units, all of which may be open at once: the list is cut at
 * added tokens that are not special into sub-texts (joined by a space), a sub-text at special
 * tokens into runs, and a run is what SentencePiece decodes. */
struct spm_stream {
    struct decode_stream base;
    bool after_subtext;       /* some sub-text is complete: the next begins with a space */
    bool subtext_written;     /* the open sub-text has bytes */
    size_t subtext_tokens;    /* tokens in the open sub-text */
    bool in_run;              /* the last token of the open sub-text was not special */
    bool run_written;         /* the open run has bytes */
    bool run_ate_space;       /* the last piece of the open run gave its space away */
    unsigned char pending[4]; /* bytes of an unfinished character */
    size_t num_pending;
};

static const struct spm_tokenizer *spm_of(const struct tokenizer *t)
{
    return (const struct spm_tokenizer *)t;
}

static void write_text(struct spm_stream *s, const char *text, size_t len, struct buf *out)
{
    if (len == 0)
        return;
    if (!s->subtext_written && s->after_subtext)
        buf_append_char(out, ' ');
    s->subtext_written = true;
    buf_append(out, text, len);
}

static void write_run(struct spm_stream *s, const char *text, size_t len, struct buf *out)
{
    s->run_written |= len > 0;
    write_text(s, text, len, out);
}

/* Writes a piece with its underlines as spaces. */
static void write_piece(struct spm_stream *s, const char *text, size_t len, struct buf *out)
{
    while (len > 0) {
        const char *mark = memmem(text, len, SPM_UNDERLINE, SPM_UNDERLINE_LEN);
        size_t n = mark ? (size_t)(mark - text) : len;
        write_run(s, text, n, out);
        if (!mark)
            return;
        write_run(s, " ", 1, out);
        text += n + SPM_UNDERLINE_LEN;
        len -= n + SPM_UNDERLINE_LEN;
    }
}

/* Writes what the pending bytes already decide; at the end of a byte run, all of them. Bytes that
 * are no character become one U+FFFD each. */
static void drain_bytes(struct spm_stream *s, bool all, struct buf *out)
{
    while (s->num_pending > 0) {
        uint32_t c;
        int n = utf8_decode((const char *)s->pending, s->num_pending, &c);
        if (n == 0 && !all)
            return;
        if (n > 0) {
            write_run(s, (const char *)s->pending, (size_t)n, out);
        } else {
            write_run(s, "\xEF\xBF\xBD", 3, out);
            n = 1;
        }
        s->num_pending -= (size_t)n;
        memmove(s->pending, s->pending + n, s->num_pending);
    }
}

static void end_run(struct spm_stream *s, struct buf *out)
{
    drain_bytes(s, true, out);
    s->in_run = s->run_written = s->run_ate_space = false;
}

/* One piece inside a run, after SentencePieceProcessor::Decode. */
static void push_piece(struct spm_stream *s, const char *text, size_t len, enum spm_piece_kind kind,
                       struct buf *out)
{
    const struct spm_tokenizer *t = spm_of(s->base.tokenizer);
    drain_bytes(s, true, out);
    bool at_start = !s->run_written && !s->run_ate_space;
    s->run_ate_space = false;
    if (kind == SPM_CONTROL)
        return;
    if (kind == SPM_UNKNOWN) {
        write_run(s, text, len, out);
        return;
    }
    if (at_start && (t->info.add_dummy_prefix || t->info.remove_extra_whitespaces) &&
        len >= SPM_UNDERLINE_LEN && memcmp(text, SPM_UNDERLINE, SPM_UNDERLINE_LEN) == 0) {
        text += SPM_UNDERLINE_LEN;
        len -= SPM_UNDERLINE_LEN;
        s->run_ate_space = !t->info.remove_extra_whitespaces;
    }
    write_piece(s, text, len, out);
}

/* The first token of a sub-text loses its underline; what is left may not be a piece any more. */
static void push_first_piece(struct spm_stream *s, const char *text, size_t len, struct buf *out)
{
    const struct spm_tokenizer *t = spm_of(s->base.tokenizer);
    text += SPM_UNDERLINE_LEN;
    len -= SPM_UNDERLINE_LEN;
    int32_t id = string_map_get(&t->base.vocab.model_ids, text, len, -1);
    push_piece(s, text, len, id < 0 ? SPM_UNKNOWN : t->ids[id].kind, out);
}

static bool starts_with_underline(const struct vocab_piece *p)
{
    return p->len >= SPM_UNDERLINE_LEN && memcmp(p->text, SPM_UNDERLINE, SPM_UNDERLINE_LEN) == 0;
}

/* `run_closed`: a special token of the same sub-text follows the run that begins here. */
static void push_normal(struct spm_stream *s, int32_t id, bool run_closed, struct buf *out)
{
    const struct spm_tokenizer *t = spm_of(s->base.tokenizer);
    const struct vocab_piece *p = &t->base.vocab.pieces[id];
    size_t index = s->subtext_tokens++;
    bool underline = starts_with_underline(p);
    if (!s->in_run) {
        if (index == 1 && t->add_prefix_space && !underline)
            write_text(s, " ", 1, out);
        if (run_closed && t->legacy)
            write_text(s, " ", 1, out);
        s->in_run = true;
    }
    if (index == 0 && underline && t->add_prefix_space) {
        push_first_piece(s, p->text, p->len, out);
    } else if (t->ids[id].kind == SPM_BYTE) {
        s->run_ate_space = false;
        s->pending[s->num_pending++] = t->ids[id].byte;
        drain_bytes(s, false, out);
    } else if (t->ids[id].kind == SPM_UNKNOWN && !p->added) {
        push_piece(s, t->info.unk_surface, strlen(t->info.unk_surface), SPM_UNKNOWN, out);
    } else {
        push_piece(s, p->text, p->len, t->ids[id].kind, out);
    }
}

static void push_special(struct spm_stream *s, int32_t id, struct buf *out)
{
    const struct vocab_piece *p = &s->base.tokenizer->vocab.pieces[id];
    end_run(s, out);
    s->subtext_tokens++;
    write_text(s, p->text, p->len, out);
}

static void push_separator(struct spm_stream *s, int32_t id, struct buf *out)
{
    const struct vocab_piece *p = &s->base.tokenizer->vocab.pieces[id];
    end_run(s, out);
    s->after_subtext |= s->subtext_written;
    s->subtext_written = false;
    s->subtext_tokens = 0;
    if (s->after_subtext)
        buf_append_char(out, ' ');
    buf_append(out, p->text, p->len);
    s->after_subtext = true;
}

static void push(struct spm_stream *s, int32_t id, bool run_closed, struct buf *out)
{
    const struct spm_tokenizer *t = spm_of(s->base.tokenizer);
    if (!vocab_piece(&t->base.vocab, id) || (s->base.skip_special_tokens && t->ids[id].special))
        return;
    if (t->ids[id].separator)
        push_separator(s, id, out);
    else if (t->ids[id].special)
        push_special(s, id, out);
    else
        push_normal(s, id, run_closed, out);
}

struct decode_stream *spm_stream_open(const struct tokenizer *t, bool skip_special_tokens)
{
    struct spm_stream *s = xcalloc(1, sizeof *s);
    s->base = (struct decode_stream){ t, skip_special_tokens };
    return &s->base;
}

void spm_stream_push(struct decode_stream *base, int32_t id, struct buf *out)
{
    struct spm_stream *s = (struct spm_stream *)base;
    /* transformers writes the space before a run only when a special token follows it, which a
     * stream cannot know: it keeps the space wherever a special token stood before. */
    push(s, id, s->subtext_tokens > 0 && !s->in_run, out);
}

void spm_stream_finish(struct decode_stream *base, struct buf *out)
{
    struct spm_stream *s = (struct spm_stream *)base;
    bool open = s->subtext_tokens > 0;
    end_run(s, out);
    /* An empty sub-text at the end is still joined to those before it. */
    if (open && !s->subtext_written && s->after_subtext)
        buf_append_char(out, ' ');
    s->subtext_tokens = 0;
}

void spm_stream_close(struct decode_stream *s)
{
    free(s);
}

/* Whether a special token of the same sub-text follows the run that begins at ids[i]; *end is where
 * the run ends. */
static bool find_run_end(const struct spm_stream *s, const int32_t *ids, size_t count, size_t i,
                         size_t *end)
{
    const struct spm_tokenizer *t = spm_of(s->base.tokenizer);
    for (; i < count; i++) {
        const struct spm_id *d = vocab_piece(&t->base.vocab, ids[i]) ? &t->ids[ids[i]] : NULL;
        if (!d || (s->base.skip_special_tokens && d->special))
            continue;
        if (d->special || d->separator) {
            *end = i;
            return !d->separator;
        }
    }
    *end = count;
    return false;
}

void spm_decode(const struct tokenizer *t, const int32_t *ids, size_t count,
                bool skip_special_tokens, struct buf *out)
{
    struct spm_stream s = { .base = { t, skip_special_tokens } };
    size_t run_end = 0;
    bool closed = false;
    for (size_t i = 0; i < count; i++) {
        if (i >= run_end)
            closed = find_run_end(&s, ids, count, i, &run_end);
        push(&s, ids[i], closed, out);
        if (i == run_end)
            run_end++;
    }
    spm_stream_finish(&s.base, out);
}

void spm_id_bytes(const struct tokenizer *base, int32_t id, struct buf *out)
{
    const struct spm_tokenizer *t = spm_of(base);
    const struct vocab_piece *p = &base->vocab.pieces[id];
    struct spm_stream s = { .base = { base, false } };
    if (t->ids[id].kind == SPM_BYTE)
        buf_append_char(out, (char)t->ids[id].byte);
    else if (p->added || t->ids[id].kind == SPM_CONTROL)
        buf_append(out, p->text, p->len);
    else
        write_piece(&s, p->text, p->len, out);
}
