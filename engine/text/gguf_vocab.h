/* gguf_vocab.h - what the metadata of a GGUF file says about text, as its reader hands it over:
 * the keys `tokenizer.*`, brought into one plain struct.
 *
 * The reader fills it and owns all that it points to, for the length of the call that it is given
 * to; nothing is kept. It need not be checked beforehand: whoever takes it looks at lengths, ids
 * and types, and names the key at fault. */
#ifndef INFERD_ENGINE_TEXT_GGUF_VOCAB_H
#define INFERD_ENGINE_TEXT_GGUF_VOCAB_H

#include "base/status.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include <stddef.h>
#include <stdint.h>

/* Bytes as they stand in the file, not NUL-terminated. data == NULL: the key is not there. */
struct gguf_text {
    const char *data;
    size_t len;
};

/* The values of `tokenizer.ggml.token_type`. */
enum gguf_token_type {
    GGUF_TOKEN_NORMAL = 1,
    GGUF_TOKEN_UNKNOWN = 2,
    GGUF_TOKEN_CONTROL = 3,
    GGUF_TOKEN_USER_DEFINED = 4,
    GGUF_TOKEN_UNUSED = 5,
    GGUF_TOKEN_BYTE = 6
};

/* A flag that may be missing. */
enum gguf_flag { GGUF_FLAG_UNSET = -1, GGUF_FLAG_FALSE = 0, GGUF_FLAG_TRUE = 1 };

struct gguf_vocab {
    const char *file;               /* for messages */
    struct gguf_text model;         /* tokenizer.ggml.model: "gpt2" or "llama" */
    struct gguf_text pre;           /* tokenizer.ggml.pre */
    struct gguf_text name;          /* general.name: some models' tokens strip spaces by it */
    const struct gguf_text *tokens; /* [num_tokens] tokenizer.ggml.tokens */
    size_t num_tokens;
    const float *scores; /* [num_scores] tokenizer.ggml.scores; NULL: not there */
    size_t num_scores;
    const int32_t *types; /* [num_types] tokenizer.ggml.token_type; NULL: not there */
    size_t num_types;
    const struct gguf_text *merges; /* [num_merges] tokenizer.ggml.merges; NULL: not there */
    size_t num_merges;
    /* tokenizer.ggml.<...>_token_id; -1: not there. "unk" is unknown_token_id, "sep"
     * seperator_token_id (as the format spells it). */
    int64_t bos_id, eos_id, unk_id, sep_id, pad_id, cls_id, mask_id, eot_id, eom_id;
    /* tokenizer.ggml.add_bos_token, add_eos_token, add_space_prefix */
    enum gguf_flag add_bos, add_eos, add_space_prefix;
    struct gguf_text chat_template;          /* tokenizer.chat_template */
    struct gguf_text chat_template_tool_use; /* tokenizer.chat_template.tool_use */
};

/* All keys missing. */
void gguf_vocab_init(struct gguf_vocab *v);

/* The tokenizer that the metadata describes. Ids are those of llama.cpp for a text in which special
 * tokens are parsed, but for two things: words are cut as the model's own tokenizer.json cuts them
 * where llama.cpp only approximates that (gguf_pre.c), and of two special tokens that overlap in a
 * text the one that begins first is taken, not the longest. No Unicode normalization is applied:
 * the metadata has none. A `pre` or `model` that is not known is an error that lists those that
 * are. */
bool gguf_tokenizer_load(const struct gguf_vocab *v, struct tokenizer **out, struct status *st);

/* Appends every id that ends an answer, as llama.cpp finds them: EOS, EOT, EOM, and tokens known by
 * their text. */
void gguf_vocab_eog_ids(const struct gguf_vocab *v, struct token_list *out);

/* The model's chat template, with bos_token and the like from the vocabulary; `override` as in
 * chat_template_load. *out is NULL (and the result true) when there is none. */
bool gguf_chat_template_load(const struct gguf_vocab *v, const char *override,
                             struct chat_template **out, struct status *st);

#endif
