/* request.h - one user request (one choice of it): frozen input, published output.
 *
 * Shared by two threads, reference-counted: the connection that made it and the engine. The input
 * half is frozen at submit. The engine alone writes the output half; it appends to token_ids and
 * the logprob arrays first and then publishes the count with a release store, so that the
 * connection reads everything below the count it has seen without a lock. The mutex is for
 * sleeping only. To cancel, the connection sets one flag; the engine drops the sequence at its
 * next step. */
#ifndef INFERD_ENGINE_REQUEST_H
#define INFERD_ENGINE_REQUEST_H

#include "base/hash.h"
#include "base/status.h"
#include "engine/sampling/sampling_params.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum finish_reason {
    FINISH_NONE,   /* still running */
    FINISH_STOP,   /* EOS or a stop token */
    FINISH_LENGTH, /* max_tokens or max_model_len */
    FINISH_ABORT,  /* cancelled, or the server shut down */
    FINISH_ERROR   /* see request->error */
};

/* One token's log-probability and the alternatives beside it. */
struct token_logprob {
    int32_t token_id;
    int32_t rank;
    float logprob;
};

struct request {
    /* --- input: frozen at submit --- */
    char id[64]; /* for the log */
    int32_t num_prompt_tokens;
    int32_t max_tokens; /* >= 0; 0 only computes the prompt (its logprobs) */
    struct sampling_params params;
    uint64_t arrival_ns, deadline_ns; /* deadline 0: none */
    struct hash128 cache_salt;        /* part of the prefix hash; zero: none */
    bool wakes_at_end_only;           /* publications before the end wake nobody */
    uint64_t seed;    /* of the generator: params.seed or one drawn for the request */
    void *owner_data; /* freed with the request, see request_new */
    void (*free_owner_data)(void *);
    size_t bytes; /* of the struct and its arrays, see request_bytes */

    /* --- output: written by the engine --- */
    int32_t *token_ids;             /* [num_prompt_tokens + max_tokens]: prompt, then output */
    struct token_logprob *logprobs; /* [max_tokens][1 + num_logprobs]: sampled, best ones */
    struct token_logprob *prompt_logprobs; /* [num_prompt_tokens][1 + n]; entry 0 has no meaning */
    uint64_t scheduled_ns, first_token_ns, finished_ns; /* 0: not yet; valid once published */
    uint64_t last_token_ns;                             /* of the latest published output token */
    int32_t num_cached_tokens; /* prompt tokens found in the prefix cache */
    int32_t num_preemptions;
    int32_t stop_token_id; /* with FINISH_STOP: the id of a stop token, -1 for an EOS */
    struct status error;   /* with FINISH_ERROR; code STATUS_TIMEOUT where a deadline ended it */

    /* --- published: release stores by the engine, acquire loads by the connection --- */
    _Atomic int32_t num_output_tokens;
    _Atomic int32_t finish_reason; /* enum finish_reason; stored last */

    /* --- requests from the connection --- */
    _Atomic bool cancelled;
    _Atomic bool stopped; /* cancelled because its text is complete: ends with FINISH_STOP */

    /* --- sleeping and lifetime --- */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct request *leader;    /* the group's first request, one reference; NULL: itself */
    uint32_t num_publications; /* of the whole group; guarded by the leader's mutex */
    _Atomic int32_t references;
};

/* A request with one reference, its arrays sized by the arguments and `prompt_ids` copied in.
 * `params` is copied; the lists it points to must be kept alive by `owner_data`, which is released
 * by `free_owner_data` when the last reference goes (either may be NULL). arrival_ns is set to now,
 * seed to params->seed; the caller may replace them, and sets the other inputs, before submitting.
 * NULL where the system has no memory for it (owner_data stays the caller's then): the sizes are a
 * client's. Large arrays cost memory only as far as they are written. */
struct request *request_new(const int32_t *prompt_ids, int32_t num_prompt_tokens,
                            int32_t max_tokens, const struct sampling_params *params,
                            void *owner_data, void (*free_owner_data)(void *));
struct request *request_ref(struct request *r);
void request_unref(struct request *r);
/* Bytes that request_new would reserve for such sizes; SIZE_MAX: more than there can be. */
size_t request_bytes(int32_t num_prompt_tokens, int32_t max_tokens,
                     const struct sampling_params *params);

static inline int32_t request_num_output_tokens(const struct request *r)
{
    return atomic_load_explicit(&r->num_output_tokens, memory_order_acquire);
}
static inline enum finish_reason request_finish_reason(const struct request *r)
{
    return (enum finish_reason)atomic_load_explicit(&r->finish_reason, memory_order_acquire);
}
static inline void request_cancel(struct request *r)
{
    /* After whatever says why, see request_stop. */
    atomic_store_explicit(&r->cancelled, true, memory_order_release);
}
static inline bool request_cancelled(const struct request *r)
{
    return atomic_load_explicit(&r->cancelled, memory_order_acquire);
}
/* The connection has found a stop string: what it has is the whole answer. */
static inline void request_stop(struct request *r)
{
    atomic_store_explicit(&r->stopped, true, memory_order_relaxed);
    request_cancel(r);
}

/* Makes one connection thread able to sleep on several requests: whatever is published in `r` from
 * now on also counts as a publication of `leader`, whose group it joins. Before submit. */
void request_wake_with(struct request *r, struct request *leader);
/* How often anything was published in the group so far, to be read before looking at its members.
 */
uint32_t request_group_publications(struct request *leader);
/* Sleeps until that number is no longer `seen`, or `timeout_ms` passed. */
void request_group_wait(struct request *leader, uint32_t seen, int32_t timeout_ms);
/* Connection side: sleeps until there are more than `seen_tokens` output tokens, the request has
 * finished, or `timeout_ms` passed (false then). 0 only looks; below 0: no time limit. */
bool request_wait(struct request *r, int32_t seen_tokens, int32_t timeout_ms);
/* Engine side: makes the tokens appended so far and, with it, the end visible; wakes the waiter.
 * Does nothing where neither is new. The caller holds a reference. */
void request_publish(struct request *r, int32_t num_output_tokens, enum finish_reason reason);

#endif
