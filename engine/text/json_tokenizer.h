/* json_tokenizer.h - tokenizer.json, the file of the Hugging Face tokenizers library: normalizer,
 * pre-tokenizer, model, post-processor and decoder, under transformers' rules for fast tokenizers.
 */
#ifndef INFERD_ENGINE_TEXT_JSON_TOKENIZER_H
#define INFERD_ENGINE_TEXT_JSON_TOKENIZER_H

#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_config.h"

/* STATUS_NOT_FOUND where the directory has no tokenizer.json. `config` is read, not kept. */
bool json_tokenizer_load(const char *model_dir, const struct tokenizer_config *config,
                         struct tokenizer **out, struct status *st);
/* The same from the file's text; `config` may be NULL. */
bool json_tokenizer_parse(const char *text, size_t len, const struct tokenizer_config *config,
                          struct tokenizer **out, struct status *st);

#endif
