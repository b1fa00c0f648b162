/* logprobs.h - log-probabilities of tokens in the two formats of the API.
 *
 * A token is shown as the text it stands for in running text or, with tokens_as_token_ids, as
 * "token_id:N". */
#ifndef INFERD_SERVER_LOGPROBS_H
#define INFERD_SERVER_LOGPROBS_H

#include "server/generation.h"

/* Completions: {text_offset, token_logprobs, tokens, top_logprobs} of the output tokens [from, to),
 * preceded by the prompt's with `with_prompt`. Advances c->text_offset, in characters. */
void logprobs_put_completion(const struct generation *g, struct choice *c, bool with_prompt,
                             int32_t from, int32_t to, struct json_writer *w);
/* Chat: {content: [{token, logprob, bytes, top_logprobs}]}. */
void logprobs_put_chat(const struct generation *g, const struct choice *c, int32_t from, int32_t to,
                       struct json_writer *w);
/* The key prompt_logprobs, null unless asked for: a list with an object per prompt token, from id
 * to {logprob, rank, decoded_token}; null for the first token. */
void logprobs_put_prompt(const struct generation *g, const struct choice *c, struct json_writer *w);

#endif
