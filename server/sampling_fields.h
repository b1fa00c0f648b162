/* sampling_fields.h - from the JSON body of a generation request to what the engine is asked for.
 *
 * The scalars are walked from sampling_params.def; lists and the fields that both endpoints share
 * are read here by name. Every value is checked against vLLM's rules, `null` means the default, and
 * what is known but not offered is refused by name: nothing is silently left out. */
#ifndef INFERD_SERVER_SAMPLING_FIELDS_H
#define INFERD_SERVER_SAMPLING_FIELDS_H

#include "base/arena.h"
#include "base/hash.h"
#include "engine/sampling/sampling_params.h"
#include "server/json.h"
#include <stdatomic.h>

/* The lists that sampling_params points to, shared by the choices of one HTTP request and kept
 * alive by them: the engine may still read them when the exchange is gone. */
struct sampling_lists {
    _Atomic int32_t references;
    struct arena arena;
};

void sampling_lists_ref(struct sampling_lists *lists);
void sampling_lists_unref(void *lists);

enum generation_kind { GENERATION_COMPLETION, GENERATION_CHAT };

struct generation_params {
    struct sampling_params sampling;
    struct sampling_lists *lists; /* one reference */
    const char **stop;            /* [num_stop], in the exchange's arena */
    int32_t num_stop;
    int32_t n;
    int64_t max_tokens; /* -1: not given */
    bool stream, include_usage, continuous_usage_stats;
    bool echo;
    bool add_special_tokens;
    bool return_token_ids, tokens_as_token_ids;
    bool wants_prompt_logprobs; /* asked for by name, not by echo */
    struct hash128 cache_salt;  /* zero: none */
};

struct sampling_limits {
    const struct sampling_params *defaults;
    int32_t vocab_size, max_logprobs;
};

/* `arena` is the exchange's. On success the caller owns out->lists; on false nothing is left. */
bool sampling_fields_read(const struct json_node *body, enum generation_kind kind,
                          const struct sampling_limits *limits, struct arena *arena,
                          struct generation_params *out, struct status *st);

#endif
