/* gguf_text.h - a GGUF's keys about text, handed from its reader (engine/model) to the tokenizer
 * (engine/text): the one place that knows both. */
#ifndef INFERD_ENGINE_GGUF_TEXT_H
#define INFERD_ENGINE_GGUF_TEXT_H

#include "engine/model/gguf.h"
#include "engine/text/gguf_vocab.h"

/* Tokenizer, chat template (NULL where there is none; `override` as in chat_template_load) and the
 * ids that end an answer, appended to `ends`. */
bool gguf_text_load(const struct gguf *g, const char *override, struct tokenizer **tokenizer,
                    struct chat_template **template, struct token_list *ends, struct status *st);

#endif
