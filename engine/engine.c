/* engine.c - the facade servers see, and the loop that makes every token. */
#include "engine/engine_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A device that fails this many steps in a row will not recover: the engine gives up, so that the
 * supervisor restarts the daemon. A single failed step only ends its own requests. */
enum { MAX_FAILED_STEPS = 3 };

/* --- the loop ------------------------------------------------------------------------------- */

static void end_unadmitted(struct engine *e, struct request *r, enum finish_reason reason)
{
    r->finished_ns = clock_now_ns();
    request_publish(r, 0, reason);
    metrics_request_finished(e->metrics, r);
    request_queue_started(e->queue, r);
    request_unref(r);
    atomic_fetch_sub(&e->num_unfinished, 1);
}

/* Ends everything there is; what arrives later is refused by the queue or ended likewise. */
static void abort_everything(struct engine *e, enum finish_reason reason, const struct status *why)
{
    while (request_queue_drain(e->queue, e->drained, 1, false) > 0) {
        if (why)
            e->drained[0]->error = *why;
        end_unadmitted(e, e->drained[0], reason);
    }
    scheduler_abort_all(e->scheduler, reason, why);
}

/* Records the latencies of new tokens before their count becomes visible. */
static void observe_tokens(struct engine *e, struct request *r, int32_t num_new, uint64_t now_ns)
{
    if (num_new <= 0)
        return;
    if (r->last_token_ns == 0) {
        metrics_observe(&e->metrics->time_to_first_token,
                        clock_seconds_between(r->arrival_ns, now_ns));
    } else {
        double each = clock_seconds_between(r->last_token_ns, now_ns) / num_new;
        metrics_observe(&e->metrics->time_per_output_token, each);
        metrics_observe(&e->metrics->inter_token_latency, each);
    }
    r->last_token_ns = now_ns;
}

/* Wakes the clients for what the last update brought. */
static void engine_publish(struct engine *e)
{
    struct scheduler_event *events;
    int32_t count = scheduler_take_events(e->scheduler, &events);
    uint64_t now_ns = count > 0 ? clock_now_ns() : 0;
    for (int32_t i = 0; i < count; i++) {
        struct request *r = events[i].request;
        observe_tokens(e, r, events[i].num_output_tokens - request_num_output_tokens(r), now_ns);
        if (events[i].reason == FINISH_NONE) {
            request_publish(r, events[i].num_output_tokens, FINISH_NONE);
            continue;
        }
        if (r->scheduled_ns == 0)
            request_queue_started(e->queue, r);
        request_publish(r, events[i].num_output_tokens, events[i].reason);
        metrics_request_finished(e->metrics, r);
        request_unref(r);
        atomic_fetch_sub(&e->num_unfinished, 1);
    }
}

static void log_stats(struct engine *e, uint64_t now_ns)
{
    double seconds = clock_seconds_between(e->logged_ns, now_ns);
    if (seconds < 10.0)
        return;
    const struct scheduler_stats *now = &e->stats, *old = &e->logged_stats;
    uint64_t prompt = now->num_prompt_tokens - old->num_prompt_tokens;
    uint64_t generated = now->num_generation_tokens - old->num_generation_tokens;
    uint64_t queries = now->prefix_cache_queries - old->prefix_cache_queries;
    uint64_t hits = now->prefix_cache_hits - old->prefix_cache_hits;
    if (e->config->log_stats && (prompt || generated))
        log_info("prompt %.1f tok/s, generation %.1f tok/s, running %d, waiting %d, "
                 "KV cache %.1f %%, prefix hits %.1f %%",
                 (double)prompt / seconds, (double)generated / seconds, now->num_running,
                 now->num_waiting,
                 100.0 * (double)(now->num_blocks - now->num_free_blocks) / now->num_blocks,
                 queries ? 100.0 * (double)hits / (double)queries : 0.0);
    uint64_t drafted = now->num_draft_tokens - old->num_draft_tokens;
    uint64_t accepted = now->num_accepted_tokens - old->num_accepted_tokens;
    if (e->config->log_stats && drafted > 0)
        log_info("drafts %.1f tok/s, accepted %.1f tok/s, %.1f %%", (double)drafted / seconds,
                 (double)accepted / seconds, 100.0 * (double)accepted / (double)drafted);
    e->logged_ns = now_ns;
    e->logged_stats = *now;
}

static void count_deltas(struct engine *e, const struct scheduler_stats *old)
{
    const struct scheduler_stats *now = &e->stats;
    struct metrics *m = e->metrics;
    metrics_count(&m->num_preemptions, now->num_preemptions - old->num_preemptions);
    metrics_count(&m->prompt_tokens, now->num_prompt_tokens - old->num_prompt_tokens);
    metrics_count(&m->generation_tokens, now->num_generation_tokens - old->num_generation_tokens);
    uint64_t queries = now->prefix_cache_queries - old->prefix_cache_queries;
    uint64_t hits = now->prefix_cache_hits - old->prefix_cache_hits;
    metrics_count(&m->prefix_cache_queries, queries);
    metrics_count(&m->gpu_prefix_cache_queries, queries);
    metrics_count(&m->prefix_cache_hits, hits);
    metrics_count(&m->gpu_prefix_cache_hits, hits);
    metrics_count(&m->num_drafts, now->num_drafts - old->num_drafts);
    metrics_count(&m->num_draft_tokens, now->num_draft_tokens - old->num_draft_tokens);
    metrics_count(&m->num_accepted_tokens, now->num_accepted_tokens - old->num_accepted_tokens);
    for (int32_t i = 0; i < m->num_speculative_tokens; i++)
        metrics_count(&m->num_accepted_tokens_per_pos[i],
                      now->num_accepted_tokens_per_pos[i] - old->num_accepted_tokens_per_pos[i]);
}

static void update_stats(struct engine *e)
{
    struct scheduler_stats old = e->stats;
    scheduler_get_stats(e->scheduler, &e->stats);
    count_deltas(e, &old);
    double usage = 1.0 - (double)e->stats.num_free_blocks / (double)e->stats.num_blocks;
    metrics_gauge_set(&e->metrics->num_requests_running, e->stats.num_running);
    metrics_gauge_set(&e->metrics->num_requests_waiting, e->stats.num_waiting);
    metrics_gauge_set(&e->metrics->kv_cache_usage_perc, usage);
    metrics_gauge_set(&e->metrics->gpu_cache_usage_perc, usage);
    pthread_mutex_lock(&e->stats_mutex);
    e->published = (struct engine_stats){
        .num_running = e->stats.num_running,
        .num_waiting = e->stats.num_waiting,
        .kv_cache_usage = usage,
        .num_steps = atomic_load(&e->num_steps),
        .prompt_tokens = e->stats.num_prompt_tokens,
        .generation_tokens = e->stats.num_generation_tokens,
        .prefix_cache_queries = e->stats.prefix_cache_queries,
        .prefix_cache_hits = e->stats.prefix_cache_hits,
        .preemptions = e->stats.num_preemptions,
    };
    pthread_mutex_unlock(&e->stats_mutex);
    log_stats(e, clock_now_ns());
}

/* A request that runs for the first time no longer counts as queued. */
static void leave_queue(struct engine *e, const struct step *step, uint64_t now_ns)
{
    for (int32_t i = 0; i < step->num_seqs; i++)
        if (step->seqs[i].request->scheduled_ns == now_ns)
            request_queue_started(e->queue, step->seqs[i].request);
}

static void give_up(struct engine *e, const struct status *why)
{
    log_error("the engine gives up after %d failed steps in a row: %s", e->num_failed_steps,
              why->message);
    pthread_mutex_lock(&e->stats_mutex);
    e->failure = *why;
    pthread_mutex_unlock(&e->stats_mutex);
    atomic_store(&e->state, ENGINE_FAILED);
    request_queue_close(e->queue);
    abort_everything(e, FINISH_ERROR, why);
}

static void note_outcome(struct engine *e, int32_t num_seqs)
{
    if (e->output.status.code == STATUS_OK) {
        e->num_failed_steps = 0;
        return;
    }
    log_error("a step of %d sequences failed: %s", num_seqs, e->output.status.message);
    if (++e->num_failed_steps >= MAX_FAILED_STEPS)
        give_up(e, &e->output.status);
}

/* The earliest that was planned and not booked. */
static struct step *step_under_way(struct engine *e)
{
    const int32_t num_under_way = scheduler_num_steps(e->scheduler);
    return &e->steps[(e->next_turn + e->num_turns - num_under_way) % e->num_turns];
}

static void book_step(struct engine *e)
{
    const struct step *step = step_under_way(e);
    scheduler_update(e->scheduler, clock_now_ns(), step, &e->output);
    atomic_fetch_add(&e->num_steps, 1);
    metrics_observe(&e->metrics->iteration_tokens, step->num_tokens);
}

/* Waits for the earliest step under way and books it. One that follows a failed step was fed from
 * it, so it fails with it. */
static void engine_collect(struct engine *e)
{
    const int32_t num_seqs = step_under_way(e)->num_seqs;
    executor_collect(&e->executor, &e->output);
    const struct status outcome = e->output.status;
    const int32_t num_booked = outcome.code == STATUS_OK ? 1 : scheduler_num_steps(e->scheduler);
    for (int32_t i = 1; i < num_booked; i++)
        executor_collect(&e->executor, &e->output);
    e->output.status = outcome;
    for (int32_t i = 0; i < num_booked; i++)
        book_step(e);
    note_outcome(e, num_seqs);
    update_stats(e);
}

/* Afterwards nothing is under way. */
static void engine_settle(struct engine *e)
{
    while (scheduler_num_steps(e->scheduler) > 0)
        engine_collect(e);
}

/* Takes in what is new. With nothing to run it publishes what is left and sleeps. False when the
 * engine is to stop or has failed. */
static bool engine_admit(struct engine *e)
{
    bool idle = !scheduler_has_work(e->scheduler) && scheduler_num_steps(e->scheduler) == 0;
    if (idle) {
        engine_publish(e);
        update_stats(e);
        atomic_store(&e->idle, true);
    }
    int32_t room = scheduler_room(e->scheduler);
    int32_t count = request_queue_drain(e->queue, e->drained, room, idle);
    atomic_store(&e->idle, false);
    atomic_fetch_add(&e->heartbeat, 1);
    for (int32_t i = 0; i < count; i++)
        scheduler_add(e->scheduler, e->drained[i]);
    if (atomic_exchange(&e->abort_all, false)) {
        engine_settle(e);
        abort_everything(e, FINISH_ABORT, NULL);
    }
    return !atomic_load(&e->stopping) && engine_state(e) != ENGINE_FAILED;
}

void *engine_main(void *arg)
{
    struct engine *e = arg;
    e->logged_ns = clock_now_ns();
    while (engine_admit(e)) {
        uint64_t now_ns = clock_now_ns();
        struct step *step = &e->steps[e->next_turn];
        scheduler_schedule(e->scheduler, now_ns, step);
        if (step->num_seqs > 0) {
            leave_queue(e, step, now_ns);
            executor_submit(&e->executor, step);
            e->next_turn = (e->next_turn + 1) % e->num_turns;
        }
        engine_publish(e); /* tokens of the steps before, while the workers compute */
        int32_t num_under_way = scheduler_num_steps(e->scheduler);
        if (num_under_way == e->num_turns || (num_under_way > 0 && step->num_seqs == 0))
            engine_collect(e);
        else if (num_under_way == 0) /* all that was left had been cancelled */
            update_stats(e);
    }
    engine_settle(e);
    abort_everything(e, FINISH_ABORT, NULL);
    engine_publish(e);
    update_stats(e);
    return NULL;
}

/* --- the facade ----------------------------------------------------------------------------- */

struct engine *engine_new(const struct config *config)
{
    struct engine *e = xcalloc(1, sizeof *e);
    e->config = config;
    pthread_mutex_init(&e->stats_mutex, NULL);
    atomic_init(&e->state, ENGINE_LOADING);
    e->info.model_path = config->model;
    return e;
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    pthread_mutex_destroy(&e->stats_mutex);
    free(e);
}

enum engine_state engine_state(struct engine *e)
{
    return (enum engine_state)atomic_load(&e->state);
}

void engine_on_progress(struct engine *e, void (*told)(void *arg, const char *text), void *arg)
{
    e->on_progress = told;
    e->on_progress_arg = arg;
}

void engine_set_progress(struct engine *e, const char *text)
{
    pthread_mutex_lock(&e->stats_mutex);
    snprintf(e->progress, sizeof e->progress, "%s", text);
    pthread_mutex_unlock(&e->stats_mutex);
    if (e->on_progress && text[0] != '\0')
        e->on_progress(e->on_progress_arg, text);
}

void engine_get_progress(struct engine *e, char *out, size_t size)
{
    pthread_mutex_lock(&e->stats_mutex);
    snprintf(out, size, "%s", e->progress);
    pthread_mutex_unlock(&e->stats_mutex);
}

const char *engine_local_path(struct engine *e)
{
    return e->model_path;
}

const struct engine_info *engine_info(struct engine *e)
{
    return &e->info;
}

struct metrics *engine_metrics(struct engine *e)
{
    return e->metrics;
}

void engine_get_stats(struct engine *e, struct engine_stats *out)
{
    pthread_mutex_lock(&e->stats_mutex);
    *out = e->published;
    pthread_mutex_unlock(&e->stats_mutex);
}

void engine_get_failure(struct engine *e, struct status *out)
{
    pthread_mutex_lock(&e->stats_mutex);
    *out = e->failure;
    pthread_mutex_unlock(&e->stats_mutex);
}

bool engine_check_length(struct engine *e, int32_t num_prompt_tokens, int32_t max_tokens,
                         struct status *st)
{
    return scheduler_fits(&e->scheduler_config, num_prompt_tokens, max_tokens, st);
}

bool engine_submit(struct engine *e, struct request *const *requests, int32_t count,
                   struct status *st)
{
    switch (engine_state(e)) {
    case ENGINE_READY:
        break;
    case ENGINE_LOADING:
        return status_set(st, STATUS_UNAVAILABLE, "the model is loading");
    case ENGINE_FAILED:
        return status_set(st, STATUS_UNAVAILABLE, "the engine has failed");
    default:
        return status_set(st, STATUS_UNAVAILABLE, "the server is shutting down");
    }
    for (int32_t i = 0; i < count; i++)
        if (!engine_check_length(e, requests[i]->num_prompt_tokens, requests[i]->max_tokens, st))
            return false;
    /* Counted before the push, so that the engine thread never takes off what is not on yet. */
    atomic_fetch_add(&e->num_unfinished, count);
    if (!request_queue_push(e->queue, requests, count, st)) {
        atomic_fetch_sub(&e->num_unfinished, count);
        return false;
    }
    return true;
}

int32_t engine_num_unfinished(struct engine *e)
{
    return atomic_load(&e->num_unfinished);
}

void engine_drain(struct engine *e)
{
    int32_t ready = ENGINE_READY;
    atomic_compare_exchange_strong(&e->state, &ready, ENGINE_DRAINING);
}

void engine_abort_all(struct engine *e)
{
    if (!e->queue)
        return;
    atomic_store(&e->abort_all, true);
    request_queue_wake(e->queue);
}

uint64_t engine_heartbeat(struct engine *e)
{
    if (engine_state(e) == ENGINE_FAILED)
        return atomic_load(&e->heartbeat);
    return atomic_load(&e->idle) ? clock_now_ns() : atomic_load(&e->heartbeat);
}

void engine_describe_plan(struct engine *e, bool json, struct buf *out)
{
    memory_plan_describe(&e->plan, json, out);
}
