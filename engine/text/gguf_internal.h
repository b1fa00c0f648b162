/* gguf_internal.h - what the files that read a GGUF vocabulary share. For this room only. */
#ifndef INFERD_ENGINE_TEXT_GGUF_INTERNAL_H
#define INFERD_ENGINE_TEXT_GGUF_INTERNAL_H

#include "engine/text/gguf_vocab.h"

bool gguf_text_is(const struct gguf_text *t, const char *text);
/* What kind of token an id in 0 .. num_tokens - 1 is; one that ends answers is a control token even
 * where the file takes it for a word. */
enum gguf_token_type gguf_vocab_type(const struct gguf_vocab *v, size_t id);
/* The id where it is one of the vocabulary, else -1; llama.cpp, too, ignores such keys. */
int32_t gguf_vocab_id(const struct gguf_vocab *v, int64_t id);

#endif
