/* proposer.h - who guesses the next tokens of a sequence, so that a step checks several at once.
 *
 * Drafts never change an answer: a draft counts only where it is what the model's own sampling
 * gives at its place (backend.h, rejection_sample). A proposer decides how fast, not what.
 *
 * One const instance per method. Called by the engine thread, between steps. */
#ifndef INFERD_ENGINE_SPEC_PROPOSER_H
#define INFERD_ENGINE_SPEC_PROPOSER_H

#include <stdint.h>

struct proposer_config {
    int32_t num_tokens;                           /* most drafts of a sequence in a step */
    int32_t prompt_lookup_min, prompt_lookup_max; /* tokens, see ngram.h */
};

struct proposer {
    const char *name;
    /* Writes up to `max_drafts` guesses of what follows token_ids [num_tokens] to `drafts`, which
     * may lie right behind them; returns how many. */
    int32_t (*propose)(const struct proposer_config *config, const int32_t *token_ids,
                       int32_t num_tokens, int32_t max_drafts, int32_t *drafts);
};

#endif
