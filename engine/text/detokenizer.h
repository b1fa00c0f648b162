/* detokenizer.h - token ids, one at a time, to valid UTF-8 text deltas.
 *
 * The deltas joined are byte for byte what tokenizer_decode gives for the whole list, with two
 * exceptions where transformers' own rule would need the future. A row of byte pieces of a
 * tokenizer.json that is not UTF-8 as a whole: its characters leave one by one, and only bytes that
 * form none become U+FFFD (decoding a list, every byte of the row does). A legacy Llama
 * tokenizer.model with special tokens kept: the space behind a special token stays, whether or not
 * another follows. Bytes of an unfinished character are held back until it is whole; what can never
 * become one leaves as U+FFFD. A push costs constant time, but for the token's own length. Owned by
 * one thread.
 */
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
