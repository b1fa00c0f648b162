/* bpe.h - byte-pair encoding of one word, as the tokenizers library's BPE model does it: the pair
 * of lowest rank merges first, the leftmost of equals.
 *
 * Immutable once loaded, but for hints that are set with atomics; safe on any thread. */
#ifndef INFERD_ENGINE_TEXT_BPE_H
#define INFERD_ENGINE_TEXT_BPE_H

#include "engine/text/tokenizer_kind.h"
#include <jansson.h>

struct bpe;

/* `spec` is the "model" of tokenizer.json; its vocabulary is in `vocab` already, which must
 * outlive the model. `raw_bytes`: words are bytes, while the vocabulary writes them as ByteLevel's
 * characters. */
bool bpe_load(const json_t *spec, const struct vocab *vocab, bool raw_bytes, struct bpe **out,
              struct status *st);
void bpe_free(struct bpe *m);
/* Whether the model may be loaded with raw_bytes: it puts no affixes on pieces. */
bool bpe_takes_raw_bytes(const json_t *spec);

/* Room to work in, kept over many words. Zero-initialise; free with bpe_scratch_free. */
struct bpe_scratch {
    int32_t *ids;      /* symbols of a word */
    uint32_t *offsets; /* where each begins */
    size_t num, cap;
    struct bpe_node *nodes; /* of a long word */
    size_t cap_nodes;
    uint64_t *heap;
    size_t cap_heap;
};
void bpe_scratch_free(struct bpe_scratch *s);

bool bpe_encode(const struct bpe *m, struct bpe_scratch *s, const char *word, size_t len,
                struct token_sink *sink, struct status *st);

#endif
