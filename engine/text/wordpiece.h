/* wordpiece.h - the WordPiece model (longest piece first, as BERT does it) and WordLevel (the whole
 * word or nothing). Immutable once loaded, safe on any thread. */
#ifndef INFERD_ENGINE_TEXT_WORDPIECE_H
#define INFERD_ENGINE_TEXT_WORDPIECE_H

#include "engine/text/tokenizer_kind.h"
#include <jansson.h>

struct wordpiece;

/* `spec` is the "model" of tokenizer.json; its vocabulary is in `vocab` already, which must
 * outlive the model. `whole_words`: WordLevel. */
bool wordpiece_load(const json_t *spec, const struct vocab *vocab, bool whole_words,
                    struct wordpiece **out, struct status *st);
void wordpiece_free(struct wordpiece *m);
bool wordpiece_encode(const struct wordpiece *m, const char *word, size_t len,
                      struct token_sink *sink, struct status *st);

#endif
