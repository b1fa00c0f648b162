/* scheduler.h - who runs this step and how many tokens each gets.
 *
 * No phases: one token budget serves decode, chunked prefill and cached prefixes. Running sequences
 * come first, in order of arrival; then waiting ones, first come first served, with no skipping
 * ahead. When a running sequence gets no block, the latest running one is preempted: its blocks are
 * freed, its computed count is zeroed, it goes to the front of the waiting list and is recomputed
 * later. Engine thread only; integers only; all memory is taken in scheduler_new. */
#ifndef INFERD_ENGINE_SCHED_SCHEDULER_H
#define INFERD_ENGINE_SCHED_SCHEDULER_H

#include "base/hash.h"
#include "engine/sched/step.h"

struct scheduler_config {
    int32_t max_num_seqs, max_num_batched_tokens, max_model_len;
    int32_t long_prefill_token_threshold; /* 0: none */
    int32_t block_size, num_blocks;
    int32_t max_waiting; /* capacity of the waiting list, beside preempted sequences */
    int32_t max_logprobs;
    bool enable_prefix_caching;
    struct hash_key hash_key; /* of the prefix hashes */
};

/* What became of a request in a step: to be published to its connection. The event carries the
 * scheduler's reference when `reason` is not FINISH_NONE. */
struct scheduler_event {
    struct request *request;
    int32_t num_output_tokens;
    enum finish_reason reason;
};

struct scheduler_stats {
    int32_t num_running, num_waiting;
    int32_t num_blocks, num_free_blocks; /* free: not referenced, cached or not */
    uint64_t num_preemptions, prefix_cache_queries,
        prefix_cache_hits; /* the latter two in tokens */
    uint64_t num_prompt_tokens,
        num_generation_tokens; /* computed so far; recomputation not counted */
};

struct scheduler;

struct scheduler *scheduler_new(const struct scheduler_config *config);
void scheduler_free(struct scheduler *s);
/* True where a request of that size can ever run: it fits max_model_len and all the blocks. */
bool scheduler_fits(const struct scheduler_config *config, int32_t num_prompt_tokens,
                    int32_t max_tokens, struct status *st);
/* Room in the waiting list: how many scheduler_add may be called now. */
int32_t scheduler_room(const struct scheduler *s);
/* Takes over one reference; the request waits. */
void scheduler_add(struct scheduler *s, struct request *r);
bool scheduler_has_work(const struct scheduler *s);
/* Drops cancelled and overdue sequences (they become events), then fills `step`; step->num_seqs is
 * 0 when nothing can run. Sets request->scheduled_ns and num_cached_tokens at a first start. */
void scheduler_schedule(struct scheduler *s, uint64_t now_ns, struct step *step);
/* Books the outcome of that step: appends tokens and logprobs to the requests, advances counts,
 * finishes sequences (stop checks in vLLM's order: length, EOS, stop ids; min_tokens holds the
 * latter two off), registers full blocks for prefix reuse. A failed step ends its sequences with
 * FINISH_ERROR. */
void scheduler_update(struct scheduler *s, uint64_t now_ns, const struct step *step,
                      const struct step_output *output);
/* Hands out the events gathered so far; valid until the next call of schedule or update. */
int32_t scheduler_take_events(struct scheduler *s, struct scheduler_event **events);
/* Ends everything that runs or waits with that reason; they become events. */
void scheduler_abort_all(struct scheduler *s, enum finish_reason reason,
                         const struct status *error);
/* Forgets all cached prefixes; false while blocks are in use. */
bool scheduler_reset_prefix_cache(struct scheduler *s);
void scheduler_get_stats(const struct scheduler *s, struct scheduler_stats *out);

#endif
