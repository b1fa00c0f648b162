/* pipeline_tokenizer.c - runs the parts of a tokenizer in order. */
#include "engine/text/pipeline_tokenizer.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

/* --- encoding ------------------------------------------------------------------------------- */

/* One call's working room. */
struct encoder {
    const struct pipeline_tokenizer *t;
    struct pretokenizer_run words;
    struct bpe_scratch bpe;
    struct unigram_scratch unigram;
    struct buf normalized;
    struct token_sink *sink;
    bool at_start; /* the part at hand begins where the user's text does */
};

static bool encode_word(void *context, const char *word, size_t len, struct status *st)
{
    struct encoder *e = context;
    const struct pipeline_tokenizer *t = e->t;
    if (e->sink->full)
        return false;
    if (t->bpe)
        return bpe_encode(t->bpe, &e->bpe, word, len, e->sink, st);
    if (t->unigram)
        return unigram_encode(t->unigram, &e->unigram, word, len, e->sink, st);
    return wordpiece_encode(t->wordpiece, word, len, e->sink, st);
}

static bool normalized_part(void *context, int32_t id, const char *text, size_t start, size_t end,
                            struct status *st)
{
    struct encoder *e = context;
    if (id >= 0) {
        token_sink_put(e->sink, id);
        return !e->sink->full;
    }
    return pretokenizer_feed(&e->words, text + start, end - start, e->at_start && start == 0, st);
}

static bool raw_part(void *context, int32_t id, const char *text, size_t start, size_t end,
                     struct status *st)
{
    struct encoder *e = context;
    const struct pipeline_tokenizer *t = e->t;
    if (id >= 0) {
        token_sink_put(e->sink, id);
        return !e->sink->full;
    }
    e->at_start = start == 0;
    text += start;
    size_t len = end - start;
    if (t->normalizer) {
        buf_clear(&e->normalized);
        if (!normalizer_run(t->normalizer, text, len, &e->normalized, st))
            return false;
        text = buf_str(&e->normalized);
        len = e->normalized.len;
    }
    return len == 0 ||
           added_vocab_cut(&t->added, &t->added.normalized, text, len, normalized_part, e, st);
}

static bool encode(const struct tokenizer *base, const char *text, size_t len,
                   bool add_special_tokens, struct token_sink *sink, struct status *st)
{
    const struct pipeline_tokenizer *t = (const struct pipeline_tokenizer *)base;
    struct encoder e = { .t = t, .sink = sink };
    e.words.pretokenizer = t->pretokenizer;
    e.words.emit = encode_word;
    e.words.context = &e;
    buf_init(&e.normalized, 0);
    for (size_t i = 0; add_special_tokens && i < t->post_processor.before.len; i++)
        token_sink_put(sink, t->post_processor.before.ids[i]);
    /* A full sink stops everything too; the caller tells that from a failure. */
    bool ok = added_vocab_cut(&t->added, &t->added.raw, text, len, raw_part, &e, st) || sink->full;
    for (size_t i = 0; add_special_tokens && i < t->post_processor.behind.len; i++)
        token_sink_put(sink, t->post_processor.behind.ids[i]);
    pretokenizer_run_free(&e.words);
    bpe_scratch_free(&e.bpe);
    unigram_scratch_free(&e.unigram);
    buf_free(&e.normalized);
    return ok;
}

/* --- decoding ------------------------------------------------------------------------------- */

struct pipeline_stream {
    struct decode_stream base;
    struct token_decoder_stream *stream;
};

static struct decode_stream *open_stream(const struct tokenizer *base, bool skip_special_tokens,
                                         bool exact)
{
    struct pipeline_stream *s = xcalloc(1, sizeof *s);
    s->base = (struct decode_stream){ base, skip_special_tokens };
    s->stream =
        token_decoder_stream_open(((const struct pipeline_tokenizer *)base)->decoder, exact);
    return &s->base;
}

static struct decode_stream *stream_open(const struct tokenizer *base, bool skip_special_tokens)
{
    return open_stream(base, skip_special_tokens, false);
}

static void stream_push(struct decode_stream *base, int32_t id, struct buf *out)
{
    struct pipeline_stream *s = (struct pipeline_stream *)base;
    const struct vocab_piece *p = vocab_piece(&base->tokenizer->vocab, id);
    if (p && !(p->special && base->skip_special_tokens))
        token_decoder_stream_push(s->stream, p->text, p->len, out);
}

static void stream_finish(struct decode_stream *base, struct buf *out)
{
    token_decoder_stream_finish(((struct pipeline_stream *)base)->stream, out);
}

static void stream_close(struct decode_stream *base)
{
    token_decoder_stream_close(((struct pipeline_stream *)base)->stream);
    free(base);
}

static void decode(const struct tokenizer *t, const int32_t *ids, size_t count,
                   bool skip_special_tokens, struct buf *out)
{
    struct decode_stream *s = open_stream(t, skip_special_tokens, true);
    for (size_t i = 0; i < count; i++)
        stream_push(s, ids[i], out);
    stream_finish(s, out);
    stream_close(s);
}

static void id_bytes(const struct tokenizer *base, int32_t id, struct buf *out)
{
    const struct vocab_piece *p = &base->vocab.pieces[id];
    if (p->added)
        buf_append(out, p->text, p->len);
    else
        token_decoder_piece_bytes(((const struct pipeline_tokenizer *)base)->decoder, p->text,
                                  p->len, out);
}

/* --- building ------------------------------------------------------------------------------- */

void pipeline_tokenizer_free(struct pipeline_tokenizer *t)
{
    bpe_free(t->bpe);
    unigram_free(t->unigram);
    wordpiece_free(t->wordpiece);
    normalizer_free(t->normalizer);
    pretokenizer_free(t->pretokenizer);
    token_decoder_free(t->decoder);
    post_processor_free(&t->post_processor);
    added_vocab_free(&t->added);
    vocab_free(&t->base.vocab);
    free(t);
}

static void free_kind(struct tokenizer *base)
{
    pipeline_tokenizer_free((struct pipeline_tokenizer *)base);
}

static const struct tokenizer_kind PIPELINE_KIND = {
    .name = "pipeline",
    .encode = encode,
    .decode = decode,
    .stream_open = stream_open,
    .stream_push = stream_push,
    .stream_finish = stream_finish,
    .stream_close = stream_close,
    .id_bytes = id_bytes,
    .free = free_kind,
};

struct pipeline_tokenizer *pipeline_tokenizer_new(void)
{
    struct pipeline_tokenizer *t = xcalloc(1, sizeof *t);
    t->base.kind = &PIPELINE_KIND;
    t->base.bos_id = t->base.eos_id = -1;
    arena_init(&t->base.vocab.arena);
    t->added.vocab = &t->base.vocab;
    t->added.max_id = -1;
    return t;
}

bool pipeline_tokenizer_put_piece(struct pipeline_tokenizer *t, int64_t id, const char *text,
                                  size_t len, struct status *st)
{
    if (id < 0 || id >= TOKENIZER_MAX_ID)
        return status_set(st, STATUS_INVALID,
                          "the piece \"%.60s\" has the id %lld, outside 0 .. %d", text,
                          (long long)id, TOKENIZER_MAX_ID - 1);
    vocab_put_model(&t->base.vocab, (int32_t)id, text, len);
    return true;
}

static bool check_post_processor(const struct pipeline_tokenizer *t, struct status *st)
{
    const struct token_list *lists[] = { &t->post_processor.before, &t->post_processor.behind };
    for (int l = 0; l < 2; l++) {
        for (size_t i = 0; i < lists[l]->len; i++) {
            if (!vocab_piece(&t->base.vocab, lists[l]->ids[i]))
                return status_set(st, STATUS_INVALID,
                                  "the post-processor adds the id %d, which is no token",
                                  lists[l]->ids[i]);
        }
    }
    return true;
}

bool pipeline_tokenizer_finish(struct pipeline_tokenizer *t, struct status *st)
{
    return check_post_processor(t, st) && added_vocab_finish(&t->added, t->normalizer, st);
}
