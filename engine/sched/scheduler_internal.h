/* scheduler_internal.h - the scheduler's state, for the two files that are the scheduler:
 * scheduler.c plans steps, scheduler_update.c books them. */
#ifndef INFERD_ENGINE_SCHED_SCHEDULER_INTERNAL_H
#define INFERD_ENGINE_SCHED_SCHEDULER_INTERNAL_H

#include "engine/sched/kv_cache_manager.h"
#include "engine/sched/scheduler.h"
#include "engine/sched/sequence.h"

struct scheduler {
    struct scheduler_config config;
    struct kv_cache_manager *kv;
    struct sequence_slab slab;
    struct sequence_list waiting; /* preempted ones in front, then by arrival */
    int32_t num_preempted;        /* of those that wait */
    int32_t *running;             /* [max_num_seqs] slab indices, by arrival */
    int32_t num_running;
    /* The steps that were filled and not booked, the earliest at first_step. */
    struct planned_step {
        struct planned_seq {
            int32_t index;           /* in the slab */
            struct request *request; /* one reference: whoever computes may read it */
        } * seqs;                    /* [max_num_seqs] */
        int32_t num_seqs;
    } steps[SCHEDULER_MAX_STEPS];
    int32_t first_step, num_steps;
    bool must_book; /* planning found that it can go on only when nothing is under way */
    /* Pending events: at most one per live sequence, and one for each ended since the last take. */
    struct scheduler_event *events; /* [max_events] */
    int32_t max_events, num_events, num_final_events;
    uint64_t event_epoch;
    int32_t sweep_next; /* slab index at which the next sweep of waiting sequences begins */
    /* The first in line that found too few blocks, and how many were available then: it is not
     * looked up again before there are more. */
    int32_t stuck;
    int64_t stuck_available;
    uint64_t now_ns; /* of the latest call */
    struct scheduler_stats totals;
};

/* --- scheduler.c ---------------------------------------------------------------------------------
 */

/* The event that will tell of the sequence at `index`, brought up to date. */
struct scheduler_event *scheduler_pending_event(struct scheduler *s, int32_t index);
/* Ends a sequence: blocks and slot are free again, the reference goes to the event. A running one
 * stays in the array of running sequences until scheduler_compact_running. */
void scheduler_finish(struct scheduler *s, int32_t index, enum finish_reason reason);
/* Takes ended sequences out of the running array; the others keep their order. */
void scheduler_compact_running(struct scheduler *s);
/* Gives back the references that a step has held. */
void scheduler_release_step(struct planned_step *step);

#endif
