/* detokenizer.c - a decoding stream that has read the prompt first. */
#include "engine/text/detokenizer.h"
#include "base/alloc.h"
#include "engine/text/tokenizer_kind.h"

#include <stdlib.h>

struct detokenizer {
    const struct tokenizer *tokenizer;
    struct decode_stream *stream;
};

struct detokenizer *detokenizer_new(const struct tokenizer *t, const int32_t *prompt_ids,
                                    size_t num_prompt_ids, bool skip_special_tokens)
{
    struct detokenizer *d = xcalloc(1, sizeof *d);
    struct buf discarded;
    buf_init(&discarded, 0);
    d->tokenizer = t;
    d->stream = t->kind->stream_open(t, skip_special_tokens);
    for (size_t i = 0; i < num_prompt_ids; i++) {
        t->kind->stream_push(d->stream, prompt_ids[i], &discarded);
        buf_clear(&discarded);
    }
    buf_free(&discarded);
    return d;
}

void detokenizer_push(struct detokenizer *d, int32_t id, struct buf *out)
{
    d->tokenizer->kind->stream_push(d->stream, id, out);
}

void detokenizer_finish(struct detokenizer *d, struct buf *out)
{
    d->tokenizer->kind->stream_finish(d->stream, out);
}

void detokenizer_free(struct detokenizer *d)
{
    if (!d)
        return;
    d->tokenizer->kind->stream_close(d->stream);
    free(d);
}
