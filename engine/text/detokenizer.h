/* detokenizer.h - token ids, one at a time, to valid UTF-8 text deltas.
 *
 * The deltas joined are byte for byte what tokenizer_decode gives for the whole list. Bytes of an
 * unfinished character are held back until it is whole; what can never become one leaves as
 * U+FFFD. Owned by one thread. */
#ifndef INFERD_ENGINE_TEXT_DETOKENIZER_H
#define INFERD_ENGINE_TEXT_DETOKENIZER_H

#include "engine/text/tokenizer.h"

struct detokenizer;

/* `prompt_ids` give the context the first output token is joined to (a leading space is kept when
 * something stands before it); they produce no text themselves. */
struct detokenizer *detokenizer_new(const struct tokenizer *t, const int32_t *prompt_ids,
                                    size_t num_prompt_ids, bool skip_special_tokens);
/* Appends the text that `id` completes, possibly none. */
void detokenizer_push(struct detokenizer *d, int32_t id, struct buf *out);
/* Appends what was held back; an unfinished character leaves as U+FFFD. */
void detokenizer_finish(struct detokenizer *d, struct buf *out);
void detokenizer_free(struct detokenizer *d);

#endif
