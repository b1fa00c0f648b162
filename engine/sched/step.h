/* step.h - all that crosses between the scheduler and the executor.
 *
 * A step knows no prefill and no decode: each sequence runs num_scheduled_tokens tokens from
 * position num_computed_tokens on. Arrays are allocated once, for max_num_seqs. Pointers into a
 * request stay valid until the step's output has been booked, those into a block table until the
 * next step is planned. */
#ifndef INFERD_ENGINE_SCHED_STEP_H
#define INFERD_ENGINE_SCHED_STEP_H

#include "engine/request.h"

struct step_seq {
    struct request *request;      /* its params, prompt length and token ids; input only */
    int32_t num_tokens;           /* prompt and output; the last id may not be known yet, see fed */
    int32_t num_computed_tokens;  /* of them in the KV cache, or on their way there */
    int32_t num_scheduled_tokens; /* to run now, >= 1, with the drafts */
    /* Guesses of what follows, the last of those to run: behind the known ids, at
     * request->token_ids[num_tokens]. */
    int32_t num_draft_tokens;
    /* One table per group of the KV cache, step.block_table_stride apart, of num_blocks entries:
     * they cover num_computed + num_scheduled tokens. Entries before the group's first block are
     * outside of its window and name no block. */
    const int32_t *block_tables;
    const int32_t *first_blocks; /* [groups] */
    int32_t num_blocks;
    /* The last token there is runs: its logits give the next one, and each draft's the one behind
     * that, which counts where the draft was right. */
    bool sample;
    /* The last id is still being sampled, by the sequence at index `previous` of the step before,
     * which has not been booked. */
    bool fed;
    int32_t previous;
};

struct step {
    int32_t num_seqs, num_tokens; /* num_tokens: sum of num_scheduled_tokens */
    struct step_seq *seqs;        /* [max_num_seqs] */
    int32_t block_table_stride;   /* from one group's table of a sequence to the next */
};

struct step_output {
    /* Per sequence with seq.sample: its new tokens, one more than the drafts that were right. -1,
     * which only the last can be: the logits were not finite. */
    int32_t *num_sampled; /* [num_seqs] */
    int32_t *sampled_ids; /* [num_seqs][max_sampled] */
    int32_t max_sampled;  /* 1 + the most drafts of a sequence */
    /* Per sequence with sample and params.num_logprobs >= 0: */
    struct token_logprob *logprobs; /* [num_seqs][max_sampled][1 + max_logprobs]: sampled, best */
    int32_t logprobs_stride;        /* 1 + max_logprobs */
    struct status status; /* not OK: the step failed as a whole and nothing above counts */
};

/* The place of a sequence's new token i in sampled_ids. */
static inline int32_t step_output_place(const struct step_output *o, int32_t seq, int32_t i)
{
    return seq * o->max_sampled + i;
}

/* Log-probabilities of prompt tokens go straight to request->prompt_logprobs by the executor, which
 * alone writes there, and only while seq.num_tokens is the prompt's length: they become visible
 * with the request's first publish, and a preempted sequence that has output must not have them
 * written anew under the reader. With max_tokens 0 the sampled id is not used. */

#endif
