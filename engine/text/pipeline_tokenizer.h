/* pipeline_tokenizer.h - the tokenizer of the Hugging Face tokenizers library, whatever file it was
 * read from: added tokens are cut out, the rest is normalized, cut into words, encoded by a model,
 * and decoded by a row of decoders.
 *
 * A loader makes one, fills the parts in any order and finishes it; from then on it is immutable.
 * For the files of this room only. */
#ifndef INFERD_ENGINE_TEXT_PIPELINE_TOKENIZER_H
#define INFERD_ENGINE_TEXT_PIPELINE_TOKENIZER_H

#include "engine/text/added_vocab.h"
#include "engine/text/bpe.h"
#include "engine/text/normalizer.h"
#include "engine/text/post_processor.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/token_decoder.h"
#include "engine/text/tokenizer_kind.h"
#include "engine/text/unigram.h"
#include "engine/text/wordpiece.h"

struct pipeline_tokenizer {
    struct tokenizer base;
    struct added_vocab added;
    struct normalizer *normalizer; /* NULL: none; likewise below */
    struct pretokenizer *pretokenizer;
    struct token_decoder *decoder;
    struct post_processor post_processor;
    struct bpe *bpe; /* one of the three models */
    struct unigram *unigram;
    struct wordpiece *wordpiece;
};

struct pipeline_tokenizer *pipeline_tokenizer_new(void);
/* One piece of the model's vocabulary. */
bool pipeline_tokenizer_put_piece(struct pipeline_tokenizer *t, int64_t id, const char *text,
                                  size_t len, struct status *st);
/* After the last part: checks what the parts say about each other, builds the look-ups. */
bool pipeline_tokenizer_finish(struct pipeline_tokenizer *t, struct status *st);
void pipeline_tokenizer_free(struct pipeline_tokenizer *t);

#endif
