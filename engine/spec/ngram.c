/* ngram.c - one walk back over the sequence, which is a comparison for each token of it. */
#include "engine/spec/ngram.h"

#include <assert.h>

/* Tokens that stand alike before `a` and before `b`, a < b; at most `most`. */
static int32_t common_suffix(const int32_t *ids, int32_t a, int32_t b, int32_t most)
{
    int32_t n = 0;
    while (n < most && n < a && ids[a - 1 - n] == ids[b - 1 - n])
        n++;
    return n;
}

/* Where what followed begins; 0: the latest tokens are new. */
static int32_t find(const struct proposer_config *config, const int32_t *ids, int32_t num_tokens)
{
    const int32_t last = ids[num_tokens - 1];
    int32_t best = 0, longest = config->prompt_lookup_min - 1;
    for (int32_t at = num_tokens - 1; at > longest; at--) {
        if (ids[at - 1] != last)
            continue;
        const int32_t n = common_suffix(ids, at, num_tokens, config->prompt_lookup_max);
        if (n <= longest)
            continue;
        best = at;
        longest = n;
        if (n == config->prompt_lookup_max)
            break;
    }
    return best;
}

static int32_t propose(const struct proposer_config *config, const int32_t *token_ids,
                       int32_t num_tokens, int32_t max_drafts, int32_t *drafts)
{
    assert(config->prompt_lookup_min >= 1 && num_tokens >= 1 && max_drafts >= 0);
    const int32_t begin = find(config, token_ids, num_tokens);
    if (begin == 0)
        return 0;
    for (int32_t i = 0; i < max_drafts; i++) {
        const int32_t from = begin + i;
        drafts[i] = from < num_tokens ? token_ids[from] : drafts[from - num_tokens];
    }
    return max_drafts;
}

const struct proposer proposer_ngram = { .name = "ngram", .propose = propose };
