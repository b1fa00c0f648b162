/* prompts.h - from the prompt of a request to token ids. */
#ifndef INFERD_SERVER_PROMPTS_H
#define INFERD_SERVER_PROMPTS_H

#include "server/generation.h"

/* Encodes one text into `out`, in the exchange's arena. A prompt that no answer would fit after is
 * refused, as is an empty one. With `keep_text` the text is kept, for echo. */
bool prompts_encode(struct exchange *x, const char *text, size_t len, bool add_special_tokens,
                    bool keep_text, const struct json_node *at, struct prompt *out,
                    struct status *st);
/* Reads the `prompt` of a completion: a text, a list of texts, a list of ids or a list of lists. */
bool prompts_read(struct exchange *x, const struct json_node *body,
                  const struct generation_params *params, struct prompt **prompts, int32_t *count,
                  struct status *st);
/* Reads a list of ids that the model knows. */
bool prompts_read_ids(struct exchange *x, const struct json_node *list, const int32_t **ids,
                      int32_t *count, struct status *st);

#endif
