/* token_stage.h - the stages of a token decoder: what one decoder of the tokenizers library is
 * here. For token_decoder.c and the files with the stages alone.
 *
 * In the library every decoder maps a list of strings to a list of strings. Here a stage gets the
 * strings one by one. Behind ByteLevel and Fuse there is only one string left, which arrives in
 * chunks: stages there ("joined") must not care where a chunk ends. */
#ifndef INFERD_ENGINE_TEXT_TOKEN_STAGE_H
#define INFERD_ENGINE_TEXT_TOKEN_STAGE_H

#include "base/buf.h"
#include "base/status.h"
#include "engine/text/regex.h"
#include "engine/text/token_decoder.h"

enum { TOKEN_STAGES_MAX = 16 };

/* What can never be a character. */
#define TOKEN_STAGE_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

struct token_stage;
typedef void token_stage_push(struct token_decoder_stream *s, int index, const char *text,
                              size_t len, struct buf *out);
typedef void token_stage_finish(struct token_decoder_stream *s, int index, struct buf *out);
/* The piece alone, in running text. */
typedef void token_stage_bytes(const struct token_stage *g, struct buf *text);

struct token_stage_kind {
    const char *type; /* in tokenizer.json */
    /* NULL: it has no fields */
    bool (*load)(struct token_stage *g, const json_t *spec, struct status *st);
    token_stage_push *push, *push_joined; /* NULL: cannot stand behind ByteLevel or Fuse */
    token_stage_finish *finish;           /* NULL: holds nothing back */
    token_stage_bytes *bytes;             /* NULL: leaves a lone piece as it is */
    bool joins;
};

struct token_stage {
    const struct token_stage_kind *kind;
    bool joined;
    char *pattern, *content; /* owned; content: Strip's character, Metaspace's replacement */
    size_t pattern_len, content_len;
    struct regex *regex;
    int64_t start, stop; /* Strip */
    bool keep_first;     /* Metaspace: the first piece keeps its spaces */
    bool cleanup;        /* WordPiece */
};

struct token_decoder {
    struct token_stage stages[TOKEN_STAGES_MAX];
    int num_stages;
};

struct token_stage_state {
    size_t count; /* strings seen; Strip: characters taken from the front */
    bool open;    /* Strip: the front is done; BPEDecoder: a string is held */
    struct buf held;
    struct buf scratch;
};

struct token_decoder_stream {
    const struct token_decoder *decoder;
    bool exact;
    struct token_stage_state states[TOKEN_STAGES_MAX];
};

/* Hands text on from stage `index`, -1 for the stream's input, to the one behind it or to `out`. */
token_stage_push token_stage_next;

/* token_stage_bytes.c */
extern const struct token_stage_kind token_stage_byte_level, token_stage_byte_fallback;
/* token_stage_text.c */
extern const struct token_stage_kind token_stage_metaspace, token_stage_replace, token_stage_strip,
    token_stage_wordpiece, token_stage_bpe;

#endif
