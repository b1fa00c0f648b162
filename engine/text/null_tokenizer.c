/* null_tokenizer.c - the kind that stands in where a model has no tokenizer files (random weights
 * for measurements): it has no ids, encodes nothing and decodes to nothing. */
#include "base/alloc.h"
#include "engine/text/tokenizer_kind.h"

#include <stdlib.h>

static bool none_encode(const struct tokenizer *t, const char *text, size_t len,
                        bool add_special_tokens, struct token_sink *sink, struct status *st)
{
    (void)t;
    (void)text;
    (void)len;
    (void)add_special_tokens;
    (void)sink;
    return status_set(st, STATUS_UNSUPPORTED,
                      "this server has no tokenizer; send the prompt as token ids");
}

static void none_decode(const struct tokenizer *t, const int32_t *ids, size_t count,
                        bool skip_special_tokens, struct buf *out)
{
    (void)t;
    (void)ids;
    (void)count;
    (void)skip_special_tokens;
    (void)out;
}

static struct decode_stream *none_stream_open(const struct tokenizer *t, bool skip_special_tokens)
{
    struct decode_stream *s = xcalloc(1, sizeof *s);
    *s = (struct decode_stream){ t, skip_special_tokens };
    return s;
}

static void none_stream_push(struct decode_stream *s, int32_t id, struct buf *out)
{
    (void)s;
    (void)id;
    (void)out;
}

static void none_stream_finish(struct decode_stream *s, struct buf *out)
{
    (void)s;
    (void)out;
}

static void none_stream_close(struct decode_stream *s)
{
    free(s);
}

static void none_id_bytes(const struct tokenizer *t, int32_t id, struct buf *out)
{
    (void)t;
    (void)id;
    (void)out;
}

static void none_free(struct tokenizer *t)
{
    vocab_free(&t->vocab);
    free(t);
}

static const struct tokenizer_kind none_kind = {
    .name = "none",
    .encode = none_encode,
    .decode = none_decode,
    .stream_open = none_stream_open,
    .stream_push = none_stream_push,
    .stream_finish = none_stream_finish,
    .stream_close = none_stream_close,
    .id_bytes = none_id_bytes,
    .free = none_free,
};

struct tokenizer *tokenizer_none(void)
{
    struct tokenizer *t = xcalloc(1, sizeof *t);
    t->kind = &none_kind;
    t->bos_id = t->eos_id = -1;
    return t;
}
