/* sequence.h - engine-private progress of one request: counts, status, its place in the lists.
 *
 * A sequence lives from scheduler_add to its end, in a slab taken at startup, and is named by its
 * index there. Only while it runs does it hold a block table. Engine thread only. */
#ifndef INFERD_ENGINE_SCHED_SEQUENCE_H
#define INFERD_ENGINE_SCHED_SEQUENCE_H

#include "base/hash.h"
#include "engine/request.h"

enum { SEQUENCE_NONE = -1 };

enum sequence_status {
    SEQUENCE_FREE,      /* the slot is not in use */
    SEQUENCE_WAITING,   /* never ran */
    SEQUENCE_PREEMPTED, /* ran, lost its blocks, waits to be recomputed */
    SEQUENCE_RUNNING
};

struct sequence {
    enum sequence_status status;
    struct request *request;     /* one reference, the scheduler's */
    int32_t num_tokens;          /* known ids: prompt and output */
    int32_t num_computed_tokens; /* of them in the KV cache; 0 unless running */
    /* With a step under way: computed once it is done, and how many ids it will append (0 or 1);
     * and the sequence's index in the step that was planned last. */
    int32_t num_issued_tokens, num_pending_tokens;
    int32_t step_index;
    int32_t num_counted_tokens; /* prompt tokens in the statistics; never falls */
    /* Block table, the KV cache manager's half: */
    int32_t table;            /* row of the table, or -1 */
    int32_t num_blocks;       /* blocks held, from the first token on */
    int32_t num_keyed_blocks; /* of them hashed: registered, or found by their hash */
    struct hash128 last_hash; /* of the last keyed block, or the root */
    /* Bookkeeping of the scheduler: */
    uint64_t event_epoch; /* the epoch in which `event` counts */
    int32_t event;        /* index of its pending event */
    int32_t prev, next;   /* in the waiting list; next also in the slab's list of free slots */
};

static inline int32_t sequence_num_output_tokens(const struct sequence *seq)
{
    return seq->num_tokens - seq->request->num_prompt_tokens;
}

struct sequence_slab {
    struct sequence *slots; /* [capacity] */
    int32_t capacity, num_used;
    int32_t num_touched; /* slots below it have been in use at some time */
    int32_t free_head;
};

void sequence_slab_init(struct sequence_slab *slab, int32_t capacity);
void sequence_slab_free(struct sequence_slab *slab);
/* A slot for the request, in state WAITING; the slab must not be full. O(1). */
int32_t sequence_slab_take(struct sequence_slab *slab, struct request *r);
void sequence_slab_put(struct sequence_slab *slab, int32_t index);

/* Sequences in an order, linked through their slots: O(1) at both ends and at any member. */
struct sequence_list {
    int32_t head, tail, count;
};

void sequence_list_init(struct sequence_list *list);
void sequence_list_push_back(struct sequence_list *list, struct sequence_slab *slab, int32_t index);
void sequence_list_push_front(struct sequence_list *list, struct sequence_slab *slab,
                              int32_t index);
void sequence_list_remove(struct sequence_list *list, struct sequence_slab *slab, int32_t index);

/* Whether the token just appended ends the sequence, checked in vLLM's order: length, then, once
 * min_tokens are there, EOS (unless ignore_eos) and the stop token ids. With FINISH_STOP sets
 * *stop_token_id to the stop token, or -1 for an EOS. */
enum finish_reason sequence_check_stop(const struct sequence *seq, int32_t max_model_len,
                                       int32_t *stop_token_id);

#endif
