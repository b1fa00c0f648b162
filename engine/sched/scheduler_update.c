/* scheduler_update.c - what a step has brought is booked: counts, tokens, ends. */
#include "engine/sched/scheduler_internal.h"

#include <assert.h>
#include <string.h>

/* Appends new token `k` of what the step sampled for its sequence i, which is at `index`, and looks
 * whether that was the last one. */
static void append_token(struct scheduler *s, int32_t index, int32_t i, int32_t k,
                         const struct step_output *output)
{
    struct sequence *seq = &s->slab.slots[index];
    struct request *r = seq->request;
    const int32_t num_output_tokens = sequence_num_output_tokens(seq);
    const int32_t num_logprobs = r->params.num_logprobs;
    const size_t place = (size_t)step_output_place(output, i, k);
    if (num_logprobs >= 0) {
        size_t stride = (size_t)num_logprobs + 1;
        assert(num_logprobs < output->logprobs_stride);
        memcpy(r->logprobs + (size_t)num_output_tokens * stride,
               output->logprobs + place * (size_t)output->logprobs_stride,
               stride * sizeof *r->logprobs);
    }
    if (num_output_tokens == 0)
        r->first_token_ns = s->now_ns;
    r->token_ids[seq->num_tokens++] = output->sampled_ids[place];
    s->totals.num_generation_tokens++;
    scheduler_pending_event(s, index);
    int32_t stop_token_id = -1;
    enum finish_reason reason = sequence_check_stop(seq, s->config.max_model_len, &stop_token_id);
    if (reason == FINISH_STOP)
        r->stop_token_id = stop_token_id;
    if (reason != FINISH_NONE)
        scheduler_finish(s, index, reason);
}

/* The same for all that are new: one, and one more for each draft that was right, until the last of
 * the sequence. */
static void append_tokens(struct scheduler *s, int32_t index, int32_t i,
                          const struct step_output *output)
{
    const struct sequence *seq = &s->slab.slots[index];
    for (int32_t k = 0; k < output->num_sampled[i] && seq->status == SEQUENCE_RUNNING; k++) {
        if (output->sampled_ids[step_output_place(output, i, k)] >= 0) {
            append_token(s, index, i, k, output);
            continue;
        }
        status_set(&seq->request->error, STATUS_INTERNAL,
                   "the model's logits are not finite at position %d: the weights or this prompt "
                   "drive it out of range",
                   seq->num_tokens);
        scheduler_finish(s, index, FINISH_ERROR);
    }
}

/* Of the planned tokens those that are in the sequence now: all but the drafts that were wrong. */
static int32_t count_computed(struct scheduler *s, int32_t i, const struct step_seq *planned,
                              const struct step_output *output)
{
    const int32_t num_drafts = planned->num_draft_tokens;
    if (num_drafts == 0)
        return planned->num_scheduled_tokens;
    const int32_t num_accepted = output->num_sampled[i] - 1;
    assert(num_accepted >= 0 && num_accepted <= num_drafts);
    s->totals.num_drafts++;
    s->totals.num_draft_tokens += (uint64_t)num_drafts;
    s->totals.num_accepted_tokens += (uint64_t)num_accepted;
    for (int32_t k = 0; k < num_accepted; k++)
        s->totals.num_accepted_tokens_per_pos[k]++;
    return planned->num_scheduled_tokens - num_drafts + num_accepted;
}

/* Whether the sequence's last new token says that its logits were not finite. */
static bool has_failed(const struct step_output *output, int32_t i)
{
    return output->sampled_ids[step_output_place(output, i, output->num_sampled[i] - 1)] < 0;
}

/* Books sequence i of a step that succeeded. */
static void book(struct scheduler *s, int32_t index, int32_t i, const struct step_seq *planned,
                 const struct step_output *output)
{
    struct sequence *seq = &s->slab.slots[index];
    struct request *r = seq->request;
    const int32_t num_computed = count_computed(s, i, planned, output);
    seq->num_computed_tokens += num_computed;
    seq->num_issued_tokens -= planned->num_scheduled_tokens - num_computed;
    seq->num_pending_tokens -= planned->sample;
    int32_t num_prompt = seq->num_computed_tokens < r->num_prompt_tokens ? seq->num_computed_tokens
                                                                         : r->num_prompt_tokens;
    if (num_prompt > seq->num_counted_tokens) {
        s->totals.num_prompt_tokens += (uint64_t)(num_prompt - seq->num_counted_tokens);
        seq->num_counted_tokens = num_prompt;
    }
    if (planned->sample && has_failed(output, i)) {
        /* Whatever made the logits so may sit in the cached keys and values of this context. */
        kv_cache_manager_forget(s->kv, seq);
        append_tokens(s, index, i, output);
        return;
    }
    kv_cache_manager_register(s->kv, seq);
    kv_cache_manager_trim(s->kv, seq);
    if (!planned->sample)
        return;
    if (r->max_tokens == 0)
        scheduler_finish(s, index, FINISH_LENGTH);
    else
        append_tokens(s, index, i, output);
}

void scheduler_update(struct scheduler *s, uint64_t now_ns, const struct step *step,
                      const struct step_output *output)
{
    struct planned_step *planned = &s->steps[s->first_step];
    assert(s->num_steps > 0 && step->num_seqs == planned->num_seqs);
    s->now_ns = now_ns;
    for (int32_t i = 0; i < planned->num_seqs; i++) {
        const int32_t index = planned->seqs[i].index;
        const struct sequence *seq = &s->slab.slots[index];
        assert(planned->seqs[i].request == step->seqs[i].request);
        if (seq->status != SEQUENCE_RUNNING || seq->request != planned->seqs[i].request)
            continue; /* it ended by the step before; its slot may be another's by now */
        if (output->status.code == STATUS_OK) {
            book(s, index, i, &step->seqs[i], output);
        } else {
            seq->request->error = output->status;
            scheduler_finish(s, index, FINISH_ERROR);
        }
    }
    scheduler_release_step(planned);
    s->first_step = (s->first_step + 1) % SCHEDULER_MAX_STEPS;
    s->num_steps--;
    scheduler_compact_running(s);
}
