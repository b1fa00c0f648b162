/* tokenizer.h - text to token ids and back, one interface over every kind of tokenizer file.
 *
 * A tokenizer is immutable after tokenizer_load and safe on any thread. Rules for special tokens
 * (what is added, what is recognised inside text) are those of transformers' tokenizer classes. */
#ifndef INFERD_ENGINE_TEXT_TOKENIZER_H
#define INFERD_ENGINE_TEXT_TOKENIZER_H

#include "base/buf.h"
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* A growing list of ids; zero-initialise, free with token_list_free. */
struct token_list {
    int32_t *ids;
    size_t len, cap;
};
void token_list_append(struct token_list *list, const int32_t *ids, size_t count);
void token_list_free(struct token_list *list);

/* Reads tokenizer.json, else tokenizer.model, with tokenizer_config.json, special_tokens_map.json
 * and added_tokens.json beside it. `st` names the file at fault. */
bool tokenizer_load(const char *model_dir, struct tokenizer **out, struct status *st);
/* Stands in where there are no tokenizer files: refuses to encode, decodes to nothing. */
struct tokenizer *tokenizer_none(void);
void tokenizer_free(struct tokenizer *t);

/* Appends the ids of `text`, which may hold any bytes: what is not UTF-8 is replaced by U+FFFD
 * first. `add_special_tokens` adds what the model expects around a text (a BOS, say). Special
 * tokens written in the text are recognised. Fails when more than `max_tokens` ids would come out.
 */
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                      bool add_special_tokens, size_t max_tokens, struct token_list *out,
                      struct status *st);

/* Appends the decoded bytes of a whole list, as transformers' decode does; special tokens are left
 * out with `skip_special_tokens`. Ids out of range are skipped. clean_up_tokenization_spaces is not
 * applied: it would make text depend on what follows, and streams could not follow it. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t count,
                      bool skip_special_tokens, struct buf *out);

/* Number of ids: the largest id plus one. The model's vocab_size may be larger (padding). */
int32_t tokenizer_vocab_size(const struct tokenizer *t);
/* The piece as the vocabulary writes it (NUL-terminated, owned by the tokenizer), NULL if none. */
const char *tokenizer_id_to_piece(const struct tokenizer *t, int32_t id);
/* -1 where the vocabulary has no such piece. */
int32_t tokenizer_piece_to_id(const struct tokenizer *t, const char *piece);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
/* The bytes that one id stands for in running text, as OpenAI's logprobs report them: a leading
 * space kept, byte pieces as the byte, a special token as its text. Appends to `out`. */
void tokenizer_id_bytes(const struct tokenizer *t, int32_t id, struct buf *out);
int32_t tokenizer_bos_id(const struct tokenizer *t); /* -1: none; likewise below */
int32_t tokenizer_eos_id(const struct tokenizer *t);
/* What a text must pass through to be decoded piece by piece; see detokenizer.h. */

#endif
