/* ngram.h - drafts from the sequence itself: what followed the last time that its latest tokens
 * stood there (prompt lookup decoding: Saxena, 2023). Answers that quote their prompt, and code,
 * repeat themselves often; it needs no second model and no device.
 *
 * Of the places where at least prompt_lookup_min of the latest tokens stand, the one where the most
 * stand is taken, up to prompt_lookup_max, and of equal ones the latest. (vLLM takes the earliest;
 * what was said last is the better guess, and found first from behind.) Where the guess reaches the
 * sequence's end it goes on with itself, as copies of LZ77 do: so a period is drafted in full. */
#ifndef INFERD_ENGINE_SPEC_NGRAM_H
#define INFERD_ENGINE_SPEC_NGRAM_H

#include "engine/spec/proposer.h"

extern const struct proposer proposer_ngram;

#endif
