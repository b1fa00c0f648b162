/* scheduler.h - who runs this step and how many tokens each gets.
 *
 * No phases: one token budget serves decode, chunked prefill and cached prefixes. Running sequences
 * come first, in order of arrival; then waiting ones, first come first served, with no skipping
 * ahead. When a running sequence gets no block, the latest running one is preempted: its blocks are
 * freed, its computed count is zeroed, it goes to the front of the waiting list and is recomputed
 * later. Nothing is admitted in a step that preempted, nor where the blocks for all known tokens of
 * the newcomer, and for those that running prompts still have to compute, are not free: a prompt
 * that is let in can finish its prefill.
 *
 * A running sequence of which only the latest token is left to compute may get drafts besides,
 * where that leaves a token of the budget and a block for each one behind it.
 *
 * Engine thread only; integers only; all memory is taken in scheduler_new. A call costs O(1) per
 * sequence it schedules, ends or sweeps, and O(1) per block it looks up, takes or releases; and
 * what the proposer takes, per sequence that gets drafts. */
#ifndef INFERD_ENGINE_SCHED_SCHEDULER_H
#define INFERD_ENGINE_SCHED_SCHEDULER_H

#include "base/hash.h"
#include "config/limits.h"
#include "engine/sched/step.h"
#include "engine/spec/proposer.h"

struct scheduler_config {
    int32_t max_num_seqs, max_num_batched_tokens, max_model_len;
    int32_t long_prefill_token_threshold; /* 0: none */
    int32_t block_size, num_blocks;
    /* Groups of the KV cache (kv_cache_groups.h); 0 stands for one that keeps everything. */
    int32_t num_kv_groups, sliding_window[LIMIT_KV_CACHE_GROUPS];
    int32_t max_waiting; /* capacity of the waiting list, beside preempted sequences */
    int32_t max_logprobs;
    bool enable_prefix_caching;
    /* Drafts tokens; NULL: nobody does. Then a step may be planned while another is under way, else
     * none may: drafts come from tokens that are known. */
    const struct proposer *proposer;
    struct proposer_config proposer_config;
    struct hash_key hash_key; /* of the prefix hashes */
};

/* What became of a request in a step: to be published to its connection. A request has at most one
 * pending event. The event carries the scheduler's reference when `reason` is not FINISH_NONE. */
struct scheduler_event {
    struct request *request;
    int32_t num_output_tokens;
    enum finish_reason reason;
};

struct scheduler_stats {
    int32_t num_running, num_waiting;
    int32_t num_blocks, num_free_blocks; /* free: not referenced, cached or not */
    uint64_t num_preemptions, prefix_cache_queries,
        prefix_cache_hits; /* the latter two in tokens, at a request's first start */
    uint64_t num_prompt_tokens,
        num_generation_tokens; /* processed so far, with cached ones; recomputation not counted */
    /* Sequences that ran with drafts, how many those were, how many of them were right, and of
     * these how many as draft i. */
    uint64_t num_drafts, num_draft_tokens, num_accepted_tokens,
        num_accepted_tokens_per_pos[LIMIT_SPECULATIVE_TOKENS];
};

struct scheduler;

/* Steps that may have been filled and not booked. */
enum { SCHEDULER_MAX_STEPS = 2 };

struct scheduler *scheduler_new(const struct scheduler_config *config);
void scheduler_free(struct scheduler *s);
/* True where a request of that size can ever run: it fits max_model_len and all the blocks. */
bool scheduler_fits(const struct scheduler_config *config, int32_t num_prompt_tokens,
                    int32_t max_tokens, struct status *st);
/* Room in the waiting list: how many scheduler_add may be called now. */
int32_t scheduler_room(const struct scheduler *s);
/* Takes over one reference; the request waits. It must fit (scheduler_fits). */
void scheduler_add(struct scheduler *s, struct request *r);
bool scheduler_has_work(const struct scheduler *s);
/* Steps that were filled and not booked; below SCHEDULER_MAX_STEPS another may be planned. */
int32_t scheduler_num_steps(const struct scheduler *s);
/* Drops cancelled and overdue sequences (they become events), then fills `step`; step->num_seqs is
 * 0 when nothing can run, and then there is nothing to book. Sets request->scheduled_ns and
 * num_cached_tokens at a first start.
 *
 * Running sequences are checked for that every step, waiting ones in turn, SCHEDULER_SWEEP of them
 * per step, and whenever they come to the front. A cancelled sequence ends with FINISH_ABORT, or
 * with FINISH_STOP where the connection has found a stop string (request->stopped). One
 * past its deadline has STATUS_TIMEOUT in request->error and ends with FINISH_ERROR where it has no
 * output yet (the client can still be given an error), else with FINISH_ABORT (its stream ends). */
enum { SCHEDULER_SWEEP = 512 };
void scheduler_schedule(struct scheduler *s, uint64_t now_ns, struct step *step);
/* Books the outcome of the earliest step that was filled and not booked: appends tokens and
 * logprobs to the requests, advances counts, finishes sequences (stop checks in vLLM's order:
 * length, EOS, stop ids; min_tokens holds the latter two off), registers full blocks for prefix
 * reuse. A failed step ends its sequences with FINISH_ERROR and its status; a sampled id below 0
 * ends that sequence with FINISH_ERROR. max_tokens 0 ends with FINISH_LENGTH once the prompt is
 * computed.
 *
 * Drafts that were wrong are as if they had not run: their slots are written over.
 *
 * A step with sequences must be booked, and one may be under way while the next is planned: that
 * takes it that no stop token comes up. What it planned for a sequence that ends after all is
 * dropped when it is booked. While a step is under way nothing is preempted or dropped that is in
 * it: where that is what planning needs, the step filled is empty, as it is where all that runs
 * may end. The device must run the steps in order, since blocks given back with one under way are
 * handed out again in the next. */
void scheduler_update(struct scheduler *s, uint64_t now_ns, const struct step *step,
                      const struct step_output *output);
/* Hands out the events gathered since the last call, in the order in which their requests came up;
 * valid until the next call of schedule, update or abort_all. */
int32_t scheduler_take_events(struct scheduler *s, struct scheduler_event **events);
/* Ends everything that runs or waits with that reason, and with *error where that is not NULL; they
 * become events. All steps must have been booked. */
void scheduler_abort_all(struct scheduler *s, enum finish_reason reason,
                         const struct status *error);
/* Forgets all cached prefixes; false while blocks are in use. */
bool scheduler_reset_prefix_cache(struct scheduler *s);
void scheduler_get_stats(const struct scheduler *s, struct scheduler_stats *out);
/* Recounts lists, references, free list and hash index; for tests. False names what is wrong. */
bool scheduler_check(const struct scheduler *s, struct status *st);

#endif
