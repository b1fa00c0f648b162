/* scheduler.c - plans steps: running sequences in an array by arrival, waiting ones in a list, and
 * one pass over each per step. */
#include "engine/sched/scheduler_internal.h"

#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What is left to hand out while a step is being filled. */
struct plan {
    int32_t budget;   /* tokens */
    int64_t promised; /* free blocks that running prompts still need for their known tokens */
    bool preempted;
};

static struct kv_cache_groups groups_of(const struct scheduler_config *config)
{
    return kv_cache_groups_make(config->sliding_window, config->num_kv_groups, config->block_size,
                                config->max_num_batched_tokens,
                                config->long_prefill_token_threshold);
}

struct scheduler *scheduler_new(const struct scheduler_config *config)
{
    assert(config->max_num_seqs > 0 && config->max_num_batched_tokens > 0);
    assert(config->max_waiting > 0 && config->max_model_len > 0);
    struct scheduler *s = xcalloc(1, sizeof *s);
    s->config = *config;
    s->kv = kv_cache_manager_new(
        &(struct kv_cache_config){ .groups = groups_of(config),
                                   .num_blocks = config->num_blocks,
                                   .max_num_seqs = config->max_num_seqs,
                                   .max_model_len = config->max_model_len,
                                   .enable_prefix_caching = config->enable_prefix_caching,
                                   .hash_key = config->hash_key });
    sequence_slab_init(&s->slab, config->max_waiting + config->max_num_seqs);
    sequence_list_init(&s->waiting);
    s->running = xcalloc((size_t)config->max_num_seqs, sizeof *s->running);
    for (int32_t i = 0; i < SCHEDULER_MAX_STEPS; i++)
        s->steps[i].seqs = xcalloc((size_t)config->max_num_seqs, sizeof *s->steps[i].seqs);
    s->max_events = 2 * s->slab.capacity;
    s->events = xcalloc((size_t)s->max_events, sizeof *s->events);
    s->event_epoch = 1;
    s->stuck = SEQUENCE_NONE;
    return s;
}

void scheduler_release_step(struct planned_step *step)
{
    for (int32_t i = 0; i < step->num_seqs; i++)
        request_unref(step->seqs[i].request);
    step->num_seqs = 0;
}

void scheduler_free(struct scheduler *s)
{
    if (!s)
        return;
    for (int32_t i = 0; i < s->slab.num_touched; i++)
        if (s->slab.slots[i].status != SEQUENCE_FREE)
            request_unref(s->slab.slots[i].request);
    for (int32_t i = 0; i < s->num_events; i++)
        if (s->events[i].reason != FINISH_NONE)
            request_unref(s->events[i].request);
    for (int32_t i = 0; i < SCHEDULER_MAX_STEPS; i++) {
        scheduler_release_step(&s->steps[i]);
        free(s->steps[i].seqs);
    }
    kv_cache_manager_free(s->kv);
    sequence_slab_free(&s->slab);
    free(s->running);
    free(s->events);
    free(s);
}

bool scheduler_fits(const struct scheduler_config *config, int32_t num_prompt_tokens,
                    int32_t max_tokens, struct status *st)
{
    if (num_prompt_tokens < 1) {
        status_set(st, STATUS_INVALID, "the prompt has no tokens: it needs at least one");
        return status_detail(st, "prompt", NULL);
    }
    if (max_tokens < 0) {
        status_set(st, STATUS_INVALID, "max_tokens is %d: it must not be negative", max_tokens);
        return status_detail(st, "max_tokens", NULL);
    }
    int64_t num_tokens = (int64_t)num_prompt_tokens + max_tokens;
    if (num_tokens > config->max_model_len) {
        status_set(st, STATUS_INVALID,
                   "this model's maximum context length is %d tokens, and %lld were requested (%d "
                   "in the prompt, %d in the completion): shorten the prompt or lower max_tokens",
                   config->max_model_len, (long long)num_tokens, num_prompt_tokens, max_tokens);
        return status_detail(st, "prompt", "context_length_exceeded");
    }
    /* The last token is never computed, only returned. */
    int64_t num_computed = max_tokens > 0 ? num_tokens - 1 : num_tokens;
    struct kv_cache_groups groups = groups_of(config);
    if (kv_cache_groups_blocks(&groups, (int32_t)num_computed) > config->num_blocks) {
        int32_t longest =
            kv_cache_groups_longest(&groups, config->num_blocks, config->max_model_len);
        status_set(st, STATUS_INVALID,
                   "the KV cache holds %d tokens of one sequence, and %lld were requested (%d in "
                   "the prompt, %d "
                   "in the completion): shorten the prompt or lower max_tokens",
                   longest, (long long)num_tokens, num_prompt_tokens, max_tokens);
        return status_detail(st, "prompt", "context_length_exceeded");
    }
    return true;
}

int32_t scheduler_room(const struct scheduler *s)
{
    int32_t room = s->config.max_waiting - (s->waiting.count - s->num_preempted);
    int32_t room_events = s->max_events - s->num_final_events - s->slab.num_used;
    return room < room_events ? room : room_events;
}

void scheduler_add(struct scheduler *s, struct request *r)
{
    assert(scheduler_room(s) > 0);
    assert(r->num_prompt_tokens > 0 && r->max_tokens >= 0);
    sequence_list_push_back(&s->waiting, &s->slab, sequence_slab_take(&s->slab, r));
}

bool scheduler_has_work(const struct scheduler *s)
{
    return s->num_running + s->waiting.count > 0;
}

int32_t scheduler_num_steps(const struct scheduler *s)
{
    return s->num_steps;
}

/* --- events and ends ---------------------------------------------------------------------------*/

struct scheduler_event *scheduler_pending_event(struct scheduler *s, int32_t index)
{
    struct sequence *seq = &s->slab.slots[index];
    if (seq->event_epoch != s->event_epoch) {
        assert(s->num_events < s->max_events);
        seq->event_epoch = s->event_epoch;
        seq->event = s->num_events++;
        s->events[seq->event] = (struct scheduler_event){ .request = seq->request };
    }
    struct scheduler_event *event = &s->events[seq->event];
    event->num_output_tokens = sequence_num_output_tokens(seq);
    return event;
}

void scheduler_finish(struct scheduler *s, int32_t index, enum finish_reason reason)
{
    struct sequence *seq = &s->slab.slots[index];
    struct scheduler_event *event = scheduler_pending_event(s, index);
    event->reason = reason;
    s->num_final_events++;
    /* Something that came since the last step may be ended before the next. */
    seq->request->finished_ns =
        s->now_ns > seq->request->arrival_ns ? s->now_ns : seq->request->arrival_ns;
    if (seq->status == SEQUENCE_RUNNING) {
        kv_cache_manager_release(s->kv, seq);
    } else {
        sequence_list_remove(&s->waiting, &s->slab, index);
        s->num_preempted -= seq->status == SEQUENCE_PREEMPTED;
    }
    if (s->stuck == index)
        s->stuck = SEQUENCE_NONE;
    sequence_slab_put(&s->slab, index);
}

static bool is_under_way(const struct sequence *seq)
{
    return seq->num_issued_tokens > seq->num_computed_tokens;
}

static bool is_unwanted(const struct scheduler *s, const struct request *r)
{
    return request_cancelled(r) || (r->deadline_ns != 0 && s->now_ns >= r->deadline_ns);
}

static bool finish_if_unwanted(struct scheduler *s, int32_t index)
{
    const struct sequence *seq = &s->slab.slots[index];
    struct request *r = seq->request;
    if (!is_unwanted(s, r) || is_under_way(seq))
        return false;
    if (request_cancelled(r)) {
        bool stopped = atomic_load_explicit(&r->stopped, memory_order_relaxed);
        scheduler_finish(s, index, stopped ? FINISH_STOP : FINISH_ABORT);
        return true;
    }
    double seconds =
        r->deadline_ns > r->arrival_ns ? (double)(r->deadline_ns - r->arrival_ns) * 1e-9 : 0.0;
    int32_t num_output_tokens = sequence_num_output_tokens(seq);
    if (num_output_tokens == 0)
        status_set(&r->error, STATUS_TIMEOUT,
                   "the request had no token after its time limit of %.3g s: try again later",
                   seconds);
    else
        status_set(&r->error, STATUS_TIMEOUT,
                   "the request was ended at its time limit of %.3g s, after %d tokens", seconds,
                   num_output_tokens);
    scheduler_finish(s, index, num_output_tokens == 0 ? FINISH_ERROR : FINISH_ABORT);
    return true;
}

void scheduler_compact_running(struct scheduler *s)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < s->num_running; i++)
        if (s->slab.slots[s->running[i]].status == SEQUENCE_RUNNING)
            s->running[kept++] = s->running[i];
    s->num_running = kept;
}

static void drop_unwanted(struct scheduler *s)
{
    bool any = false;
    for (int32_t i = 0; i < s->num_running; i++)
        any |= finish_if_unwanted(s, s->running[i]);
    if (any)
        scheduler_compact_running(s);
    int32_t count = s->slab.num_touched < SCHEDULER_SWEEP ? s->slab.num_touched : SCHEDULER_SWEEP;
    for (int32_t i = 0; i < count; i++) {
        if (s->sweep_next >= s->slab.num_touched)
            s->sweep_next = 0;
        int32_t index = s->sweep_next++;
        enum sequence_status status = s->slab.slots[index].status;
        if (status == SEQUENCE_WAITING || status == SEQUENCE_PREEMPTED)
            finish_if_unwanted(s, index);
    }
}

/* --- schedule ----------------------------------------------------------------------------------*/

static int32_t chunk_of(const struct scheduler *s, const struct plan *plan, int32_t num_remaining)
{
    int32_t n = num_remaining < plan->budget ? num_remaining : plan->budget;
    int32_t threshold = s->config.long_prefill_token_threshold;
    return threshold > 0 && n > threshold ? threshold : n;
}

/* Ids there will be once what is under way is done. */
static int32_t num_tokens_to_come(const struct sequence *seq)
{
    return seq->num_tokens + seq->num_pending_tokens;
}

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Drafts for the running sequence `at`, which lacks only its latest token. Those behind it come
 * first: each keeps a token of the budget, and a block of every group. Nor are there more than it
 * may still get tokens, of which the last is never computed. */
static int32_t propose(const struct scheduler *s, const struct plan *plan, int32_t at)
{
    const struct sequence *seq = &s->slab.slots[s->running[at]];
    const struct request *r = seq->request;
    const struct proposer *proposer = s->config.proposer;
    const int32_t num_tokens = seq->num_tokens, num_behind = s->num_running - at - 1;
    if (!proposer || seq->num_issued_tokens + 1 != num_tokens)
        return 0;
    int32_t most = least(s->config.proposer_config.num_tokens, plan->budget - num_behind - 1);
    most = least(most, r->max_tokens - sequence_num_output_tokens(seq) - 1);
    most = least(most, s->config.max_model_len - num_tokens - 1);
    if (most < 1 || (most = chunk_of(s, plan, 1 + most) - 1) < 1)
        return 0;
    const int64_t num_blocks = num_behind + most / s->config.block_size + 2;
    const int32_t num_groups = s->config.num_kv_groups > 0 ? s->config.num_kv_groups : 1;
    if (num_blocks * num_groups > kv_cache_manager_num_free(s->kv))
        return 0;
    return proposer->propose(&s->config.proposer_config, r->token_ids, num_tokens, most,
                             r->token_ids + num_tokens);
}

static void add_to_step(struct scheduler *s, struct step *step, struct plan *plan, int32_t index,
                        int32_t num_scheduled, int32_t num_drafts)
{
    struct sequence *seq = &s->slab.slots[index];
    struct planned_step *planned = &s->steps[(s->first_step + s->num_steps) % SCHEDULER_MAX_STEPS];
    const int32_t num_tokens = num_tokens_to_come(seq);
    const int32_t num_after = seq->num_issued_tokens + num_scheduled;
    const bool sample = num_after == num_tokens + num_drafts;
    assert(num_scheduled > 0 && num_scheduled <= plan->budget);
    assert(num_after <= num_tokens + num_drafts && (sample || num_drafts == 0));
    plan->budget -= num_scheduled;
    plan->promised += kv_cache_manager_missing(s->kv, seq);
    planned->seqs[planned->num_seqs++] =
        (struct planned_seq){ .index = index, .request = request_ref(seq->request) };
    step->seqs[step->num_seqs] =
        (struct step_seq){ .request = seq->request,
                           .num_tokens = num_tokens,
                           .num_computed_tokens = seq->num_issued_tokens,
                           .num_scheduled_tokens = num_scheduled,
                           .num_draft_tokens = num_drafts,
                           .block_tables = kv_cache_manager_tables(s->kv, seq),
                           .first_blocks = kv_cache_manager_firsts(s->kv, seq),
                           .num_blocks = seq->num_blocks,
                           .sample = sample,
                           .fed = seq->num_pending_tokens > 0,
                           .previous = seq->step_index };
    seq->num_issued_tokens = num_after;
    seq->num_pending_tokens += sample;
    seq->step_index = step->num_seqs++;
    step->num_tokens += num_scheduled;
}

/* Takes the blocks of the latest running sequence; it waits, before all others. */
static int32_t preempt_latest(struct scheduler *s)
{
    int32_t index = s->running[--s->num_running];
    struct sequence *seq = &s->slab.slots[index];
    assert(!is_under_way(seq));
    kv_cache_manager_release(s->kv, seq);
    seq->num_issued_tokens = 0;
    seq->status = SEQUENCE_PREEMPTED;
    seq->request->num_preemptions++;
    sequence_list_push_front(&s->waiting, &s->slab, index);
    s->num_preempted++;
    s->totals.num_preemptions++;
    return index;
}

/* Whether it will have ended, for all one knows, when what is under way is done. */
static bool is_ending(const struct scheduler *s, const struct sequence *seq)
{
    if (!is_under_way(seq))
        return false;
    const int32_t num_output_tokens = num_tokens_to_come(seq) - seq->request->num_prompt_tokens;
    const bool ends =
        seq->num_pending_tokens > 0 && (num_output_tokens >= seq->request->max_tokens ||
                                        num_tokens_to_come(seq) >= s->config.max_model_len);
    return ends || is_unwanted(s, seq->request);
}

static void schedule_running(struct scheduler *s, struct step *step, struct plan *plan)
{
    for (int32_t i = 0; i < s->num_running && plan->budget > 0; i++) {
        int32_t index = s->running[i];
        struct sequence *seq = &s->slab.slots[index];
        if (is_ending(s, seq))
            continue;
        int32_t n = chunk_of(s, plan, num_tokens_to_come(seq) - seq->num_issued_tokens);
        const int32_t num_drafts = propose(s, plan, i);
        n += num_drafts;
        /* Those preempted come later in the array, so none of them is in the step yet. */
        while (!kv_cache_manager_grow(s->kv, seq, seq->num_issued_tokens + n)) {
            plan->preempted = true;
            s->must_book = s->num_steps > 0; /* blocks may come free by what is under way */
            if (s->must_book || preempt_latest(s) == index)
                return;
        }
        add_to_step(s, step, plan, index, n, num_drafts);
    }
}

/* Books that a sequence starts to run, for the first time or again. */
static void start(struct scheduler *s, int32_t index, const struct kv_cache_hit *hit)
{
    struct sequence *seq = &s->slab.slots[index];
    sequence_list_remove(&s->waiting, &s->slab, index);
    s->running[s->num_running++] = index;
    if (seq->status == SEQUENCE_PREEMPTED) {
        s->num_preempted--;
    } else {
        seq->request->scheduled_ns = s->now_ns;
        seq->request->num_cached_tokens = hit->num_tokens;
        if (kv_cache_manager_looks_up(s->kv, seq)) {
            s->totals.prefix_cache_queries += (uint64_t)seq->num_tokens;
            s->totals.prefix_cache_hits += (uint64_t)hit->num_tokens;
        }
    }
    seq->num_issued_tokens = hit->num_tokens;
    seq->status = SEQUENCE_RUNNING;
}

static void schedule_waiting(struct scheduler *s, struct step *step, struct plan *plan)
{
    while (s->waiting.count > 0 && s->num_running < s->config.max_num_seqs && plan->budget > 0) {
        int32_t index = s->waiting.head;
        if (finish_if_unwanted(s, index))
            continue;
        struct sequence *seq = &s->slab.slots[index];
        int64_t available = kv_cache_manager_num_free(s->kv) - plan->promised;
        if (index == s->stuck && available <= s->stuck_available)
            return;
        struct kv_cache_hit hit = kv_cache_manager_lookup(s->kv, seq);
        if (hit.num_missing + hit.num_free > available) {
            s->stuck = index;
            s->stuck_available = available;
            return;
        }
        s->stuck = SEQUENCE_NONE;
        int32_t n = chunk_of(s, plan, seq->num_tokens - hit.num_tokens);
        start(s, index, &hit);
        kv_cache_manager_admit(s->kv, seq, &hit, hit.num_tokens + n);
        add_to_step(s, step, plan, index, n, 0);
    }
}

void scheduler_schedule(struct scheduler *s, uint64_t now_ns, struct step *step)
{
    assert(s->num_steps < (s->config.proposer ? 1 : SCHEDULER_MAX_STEPS));
    s->now_ns = now_ns;
    step->num_seqs = step->num_tokens = 0;
    step->block_table_stride = kv_cache_manager_stride(s->kv);
    drop_unwanted(s);
    if (s->must_book && s->num_steps > 0)
        return;
    s->must_book = false;
    struct plan plan = { .budget = s->config.max_num_batched_tokens };
    schedule_running(s, step, &plan);
    if (!plan.preempted)
        schedule_waiting(s, step, &plan);
    s->num_steps += step->num_seqs > 0;
}

int32_t scheduler_take_events(struct scheduler *s, struct scheduler_event **events)
{
    int32_t count = s->num_events;
    *events = s->events;
    s->num_events = s->num_final_events = 0;
    s->event_epoch++;
    return count;
}

void scheduler_abort_all(struct scheduler *s, enum finish_reason reason, const struct status *error)
{
    assert(reason != FINISH_NONE && s->num_steps == 0);
    for (int32_t i = 0; i < s->slab.num_touched; i++) {
        if (s->slab.slots[i].status == SEQUENCE_FREE)
            continue;
        if (error)
            s->slab.slots[i].request->error = *error;
        scheduler_finish(s, i, reason);
    }
    s->num_running = 0;
}

bool scheduler_reset_prefix_cache(struct scheduler *s)
{
    return kv_cache_manager_reset(s->kv);
}

void scheduler_get_stats(const struct scheduler *s, struct scheduler_stats *out)
{
    *out = s->totals;
    out->num_running = s->num_running;
    out->num_waiting = s->waiting.count;
    out->num_blocks = s->config.num_blocks;
    out->num_free_blocks = kv_cache_manager_num_free(s->kv);
}

bool scheduler_check(const struct scheduler *s, struct status *st)
{
    int32_t counts[SEQUENCE_RUNNING + 1] = { 0 };
    for (int32_t i = 0; i < s->slab.num_touched; i++)
        counts[s->slab.slots[i].status]++;
    int32_t num_listed = 0;
    for (int32_t i = s->waiting.head; i != SEQUENCE_NONE && num_listed <= s->waiting.count;
         i = s->slab.slots[i].next)
        num_listed++;
    if (counts[SEQUENCE_RUNNING] != s->num_running ||
        counts[SEQUENCE_PREEMPTED] != s->num_preempted || num_listed != s->waiting.count ||
        counts[SEQUENCE_WAITING] + counts[SEQUENCE_PREEMPTED] != s->waiting.count)
        return status_set(st, STATUS_INTERNAL, "the lists do not hold the live sequences");
    for (int32_t i = 0; i < s->num_running; i++)
        if (s->slab.slots[s->running[i]].status != SEQUENCE_RUNNING)
            return status_set(st, STATUS_INTERNAL, "a sequence that does not run is listed so");
    return kv_cache_manager_check(s->kv, &s->slab, st);
}
