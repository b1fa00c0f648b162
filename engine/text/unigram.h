/* unigram.h - the Unigram model: of all ways to cut a word into pieces, the one with the highest
 * sum of scores (Kudo, "Subword Regularization", 2018; Viterbi), as the tokenizers library has it.
 *
 * Immutable once loaded, safe on any thread. */
#ifndef INFERD_ENGINE_TEXT_UNIGRAM_H
#define INFERD_ENGINE_TEXT_UNIGRAM_H

#include "engine/text/tokenizer_kind.h"
#include <jansson.h>

struct unigram;

/* Room to work in, kept over many words. Zero-initialise; free with unigram_scratch_free. */
struct unigram_scratch {
    struct unigram_node *nodes;
    size_t cap;
    struct token_list list;
};
void unigram_scratch_free(struct unigram_scratch *s);

/* `spec` is the "model" of tokenizer.json; its vocabulary is in `vocab` already, which must
 * outlive the model. */
bool unigram_load(const json_t *spec, const struct vocab *vocab, struct unigram **out,
                  struct status *st);
void unigram_free(struct unigram *m);
bool unigram_encode(const struct unigram *m, struct unigram_scratch *s, const char *word,
                    size_t len, struct token_sink *sink, struct status *st);

#endif
