/* spm_internal.h - the struct that spm_tokenizer.c builds and spm_decoder.c reads. */
#ifndef INFERD_ENGINE_TEXT_SPM_INTERNAL_H
#define INFERD_ENGINE_TEXT_SPM_INTERNAL_H

#include "engine/text/sentencepiece_shim.h"
#include "engine/text/spm_model.h"
#include "engine/text/token_trie.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_kind.h"

/* How one id is decoded. */
struct spm_id {
    enum spm_piece_kind kind;
    bool special;   /* its text is one of all_special_tokens */
    bool separator; /* an added token that decoding sets apart with spaces */
    unsigned char byte;
};

struct spm_tokenizer {
    struct tokenizer base;
    struct spm *spm;
    struct spm_model_info info;
    struct spm_id *ids;        /* [base.vocab.size] */
    struct added_token *added; /* [num_added]; contents live in base.vocab */
    int32_t num_added, cap_added;
    struct token_trie trie; /* over `added`; values are indices */
    int32_t num_model_ids;  /* ids below are the model's */
    const char *unk_token;  /* lives in base.vocab */
    size_t num_unk_ids;     /* ids of unk_token written out */
    int32_t underline_id;   /* of the piece U+2581 alone; -1: none */
    bool legacy, add_prefix_space, add_bos, add_eos;
};

/* U+2581, which stands for a space in pieces. */
#define SPM_UNDERLINE     "\xE2\x96\x81"
#define SPM_UNDERLINE_LEN 3

void spm_decode(const struct tokenizer *t, const int32_t *ids, size_t count,
                bool skip_special_tokens, struct buf *out);
struct decode_stream *spm_stream_open(const struct tokenizer *t, bool skip_special_tokens);
void spm_stream_push(struct decode_stream *s, int32_t id, struct buf *out);
void spm_stream_finish(struct decode_stream *s, struct buf *out);
void spm_stream_close(struct decode_stream *s);
void spm_id_bytes(const struct tokenizer *t, int32_t id, struct buf *out);

#endif
