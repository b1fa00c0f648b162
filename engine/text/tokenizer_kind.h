/* tokenizer_kind.h - what every kind of tokenizer file offers behind tokenizer.h, and the table of
 * ids that all kinds keep the same way. For the files of this room only. */
#ifndef INFERD_ENGINE_TEXT_TOKENIZER_KIND_H
#define INFERD_ENGINE_TEXT_TOKENIZER_KIND_H

#include "base/arena.h"
#include "engine/text/string_map.h"
#include "engine/text/tokenizer.h"

/* Where an encoder puts ids: a list that may not grow past `limit`. */
struct token_sink {
    struct token_list *list;
    size_t limit; /* list->len may reach this */
    bool full;    /* an id did not fit; encoders stop when they see it */
};

void token_sink_put_slow(struct token_sink *s, int32_t id);

static inline void token_sink_put(struct token_sink *s, int32_t id)
{
    struct token_list *l = s->list;
    if (l->len < l->cap && l->len < s->limit)
        l->ids[l->len++] = id;
    else
        token_sink_put_slow(s, id);
}

/* One id. */
struct vocab_piece {
    const char *text; /* NUL-terminated; NULL: no such id */
    uint32_t len;
    bool special, added;
};

/* Ids to pieces and back. An added token stands before a piece of the model, both ways. */
struct vocab {
    struct arena arena;         /* owns the texts */
    struct vocab_piece *pieces; /* [size] */
    int32_t size, cap;
    struct string_map model_ids, added_ids;
};

/* `id` is below TOKENIZER_MAX_ID. The text is copied; the copy is returned. */
const char *vocab_put_model(struct vocab *v, int32_t id, const char *text, size_t len);
const char *vocab_put_added(struct vocab *v, int32_t id, const char *text, size_t len,
                            bool special);
/* The id of a piece, or -1. */
int32_t vocab_find(const struct vocab *v, const char *text, size_t len);
/* How many different pieces there are. */
size_t vocab_count(const struct vocab *v);
void vocab_free(struct vocab *v);

/* A decoding in progress. Kinds put it first in a struct of their own. */
struct decode_stream {
    const struct tokenizer *tokenizer;
    bool skip_special_tokens;
};

struct tokenizer_kind {
    const char *name;
    /* `text` is valid UTF-8. */
    bool (*encode)(const struct tokenizer *t, const char *text, size_t len, bool add_special_tokens,
                   struct token_sink *sink, struct status *st);
    /* The whole list, exactly as transformers decodes it. */
    void (*decode)(const struct tokenizer *t, const int32_t *ids, size_t count,
                   bool skip_special_tokens, struct buf *out);
    /* The same as a stream: every push appends what can no longer change. */
    struct decode_stream *(*stream_open)(const struct tokenizer *t, bool skip_special_tokens);
    void (*stream_push)(struct decode_stream *s, int32_t id, struct buf *out);
    void (*stream_finish)(struct decode_stream *s, struct buf *out);
    void (*stream_close)(struct decode_stream *s);
    void (*id_bytes)(const struct tokenizer *t, int32_t id, struct buf *out);
    void (*free)(struct tokenizer *t);
};

/* The beginning of every kind's own struct. */
struct tokenizer {
    const struct tokenizer_kind *kind;
    struct vocab vocab;
    int32_t bos_id, eos_id; /* -1: none */
};

/* The piece of an id, or NULL. */
static inline const struct vocab_piece *vocab_piece(const struct vocab *v, int32_t id)
{
    return id >= 0 && id < v->size && v->pieces[id].text ? &v->pieces[id] : NULL;
}

#endif
