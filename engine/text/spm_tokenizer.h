/* spm_tokenizer.h - tokenizer.model (SentencePiece), by the rules of transformers' LlamaTokenizer,
 * legacy or not. */
#ifndef INFERD_ENGINE_TEXT_SPM_TOKENIZER_H
#define INFERD_ENGINE_TEXT_SPM_TOKENIZER_H

#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_config.h"

/* STATUS_NOT_FOUND where the directory has no tokenizer.model. `config` is read, not kept. */
bool spm_tokenizer_load(const char *model_dir, const struct tokenizer_config *config,
                        struct tokenizer **out, struct status *st);

#endif
