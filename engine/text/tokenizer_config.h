/* tokenizer_config.h - what tokenizer_config.json, special_tokens_map.json and added_tokens.json
 * say, merged by the rules of transformers' PreTrainedTokenizerBase._from_pretrained: with an
 * added_tokens_decoder in tokenizer_config.json the other two files are not read; without one,
 * special_tokens_map.json overrides, and added_tokens.json adds. */
#ifndef INFERD_ENGINE_TEXT_TOKENIZER_CONFIG_H
#define INFERD_ENGINE_TEXT_TOKENIZER_CONFIG_H

#include "base/arena.h"
#include "base/status.h"
#include "engine/text/string_map.h"
#include <stdint.h>

/* One token beyond the model's own vocabulary, or one of it that is treated apart. */
struct added_token {
    const char *content; /* NULL: none */
    uint32_t len;
    int32_t id;       /* -1: not known yet */
    bool special;     /* left out when decoding with skip_special_tokens */
    bool lstrip;      /* takes the white space on its left with it */
    bool rstrip;      /* and on its right */
    bool normalized;  /* looked for in the normalised text, not in the raw one */
    bool single_word; /* only where no word character touches it */
};

/* The named special tokens, in the order in which transformers adds missing ones. */
enum special_role {
    SPECIAL_BOS,
    SPECIAL_EOS,
    SPECIAL_UNK,
    SPECIAL_SEP,
    SPECIAL_PAD,
    SPECIAL_CLS,
    SPECIAL_MASK,
    NUM_SPECIAL_ROLES
};

enum tristate { UNSET = -1, NO = 0, YES = 1 };

struct tokenizer_config {
    struct arena arena;          /* owns every string */
    bool present;                /* tokenizer_config.json is there */
    const char *tokenizer_class; /* without a final "Fast"; NULL: not said */
    struct added_token special[NUM_SPECIAL_ROLES];
    bool special_null[NUM_SPECIAL_ROLES]; /* given as null: none, not even the class's default */
    struct added_token *additional;       /* [num_additional]: additional_special_tokens */
    int32_t num_additional;
    struct added_token *added; /* [num_added], by rising id */
    int32_t num_added;
    struct string_map specials; /* contents of the named and the additional special tokens */
    enum tristate add_bos_token, add_eos_token, legacy, add_prefix_space;
};

/* Limits on what a tokenizer file may ask for. */
enum {
    TOKENIZER_MAX_ID = 1 << 24,           /* ids in use reach 260,000 */
    TOKENIZER_MAX_PIECE_BYTES = 16 * 1024 /* of one added token */
};

bool tokenizer_config_load(const char *model_dir, struct tokenizer_config *c, struct status *st);
void tokenizer_config_free(struct tokenizer_config *c);
/* Whether `content` is one of the named or additional special tokens. */
bool tokenizer_config_is_special(const struct tokenizer_config *c, const char *content, size_t len);

#endif
