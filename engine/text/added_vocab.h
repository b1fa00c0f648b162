/* added_vocab.h - the added tokens of tokenizer.json: how they get their ids, and how they are cut
 * out of a text, as the tokenizers library's AddedVocabulary does both.
 *
 * Built once, then safe on any thread. */
#ifndef INFERD_ENGINE_TEXT_ADDED_VOCAB_H
#define INFERD_ENGINE_TEXT_ADDED_VOCAB_H

#include "engine/text/normalizer.h"
#include "engine/text/token_trie.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_kind.h"

/* A list of tokens in the order they came. */
struct added_list {
    struct added_token *tokens;
    int32_t num, cap;
};

struct added_vocab {
    struct vocab *vocab;              /* gets every token */
    int32_t model_size;               /* pieces of the model */
    struct added_list all;            /* one entry per content, the latest flags */
    struct string_map by_content;     /* content -> index in `all` */
    struct added_list special, plain; /* in the order patterns are tried; flags as first given */
    struct string_map special_names;
    struct token_trie raw, normalized; /* values are ids */
    int32_t *index_of;                 /* [vocab->size]: id -> index in `all`, -1 */
    int32_t max_id;                    /* largest id of an added token; -1: none */
};

/* Zero-initialise, set `vocab`, `model_size` and max_id = -1. Adds a token, or changes its flags.
 */
bool added_vocab_put(struct added_vocab *a, const struct added_token *token, struct status *st);
/* After the last token: builds the tries and marks special ids in the vocabulary. */
bool added_vocab_finish(struct added_vocab *a, const struct normalizer *n, struct status *st);
void added_vocab_free(struct added_vocab *a);

/* One part of a text: an added token (id >= 0) or what lies between. False stops. */
typedef bool added_vocab_part(void *context, int32_t id, const char *text, size_t start, size_t end,
                              struct status *st);
/* Cuts added tokens out of a text: those matched in raw text, or those matched in normalized. */
bool added_vocab_cut(const struct added_vocab *a, const struct token_trie *trie, const char *text,
                     size_t len, added_vocab_part *part, void *context, struct status *st);

#endif
