/* test_scheduler.c - each rule of the scheduler on a case small enough to follow by hand; the
 * simulator (tests/sim) tries them together. `--bench` times schedule and update. */
#include "base/alloc.h"
#include "base/clock.h"
#include "engine/sched/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SECOND = 1000000000 };
static const int32_t eos_ids[] = { 2 };

/* A scheduler and the arrays around it. */
struct rig {
    struct scheduler_config config;
    struct scheduler *s;
    struct step step;
    struct step_output output;
    uint64_t now_ns;
};

static void rig_open(struct rig *rig, struct scheduler_config config)
{
    size_t n = (size_t)config.max_num_seqs;
    *rig = (struct rig){ .config = config, .s = scheduler_new(&config), .now_ns = 1 };
    rig->step.seqs = xcalloc(n, sizeof *rig->step.seqs);
    const size_t max_sampled = 1 + (size_t)config.proposer_config.num_tokens;
    rig->output.max_sampled = (int32_t)max_sampled;
    rig->output.num_sampled = xcalloc(n, sizeof *rig->output.num_sampled);
    for (size_t i = 0; i < n; i++)
        rig->output.num_sampled[i] = 1;
    rig->output.sampled_ids = xcalloc(n * max_sampled, sizeof *rig->output.sampled_ids);
    rig->output.logprobs_stride = config.max_logprobs + 1;
    rig->output.logprobs = xcalloc(n * max_sampled * (size_t)rig->output.logprobs_stride,
                                   sizeof *rig->output.logprobs);
}

static void rig_close(struct rig *rig)
{
    struct status st;
    if (!scheduler_check(rig->s, &st))
        fail_msg("%s", st.message);
    scheduler_free(rig->s);
    free(rig->step.seqs);
    free(rig->output.num_sampled);
    free(rig->output.sampled_ids);
    free(rig->output.logprobs);
}

static struct scheduler_config small_config(void)
{
    return (struct scheduler_config){ .max_num_seqs = 4,
                                      .max_num_batched_tokens = 16,
                                      .max_model_len = 64,
                                      .block_size = 4,
                                      .num_blocks = 16,
                                      .max_waiting = 8,
                                      .max_logprobs = 2,
                                      .enable_prefix_caching = true,
                                      .hash_key = { 3, 4 } };
}

/* A request whose prompt is first, first + 1, ... The caller and the scheduler hold a reference. */
static struct request *add(struct rig *rig, int32_t first, int32_t num_prompt, int32_t max_tokens)
{
    struct sampling_params params;
    sampling_params_defaults(&params);
    params.eos_token_ids = eos_ids;
    params.num_eos_token_ids = 1;
    int32_t *ids = xcalloc((size_t)num_prompt, sizeof *ids);
    for (int32_t i = 0; i < num_prompt; i++)
        ids[i] = first + i;
    struct request *r = request_new(ids, num_prompt, max_tokens, &params, NULL, NULL);
    free(ids);
    r->arrival_ns = rig->now_ns;
    scheduler_add(rig->s, request_ref(r));
    return r;
}

static void schedule(struct rig *rig)
{
    rig->now_ns += SECOND;
    scheduler_schedule(rig->s, rig->now_ns, &rig->step);
}

/* Every sequence that samples gets `id`. */
static void update(struct rig *rig, int32_t id)
{
    for (int32_t i = 0; i < rig->step.num_seqs; i++)
        rig->output.sampled_ids[step_output_place(&rig->output, i, 0)] = id;
    scheduler_update(rig->s, rig->now_ns, &rig->step, &rig->output);
}

static void turn(struct rig *rig, int32_t id)
{
    schedule(rig);
    update(rig, id);
}

/* Publishes what is pending; returns how many events there were. */
static int32_t publish(struct rig *rig)
{
    struct scheduler_event *events;
    int32_t count = scheduler_take_events(rig->s, &events);
    for (int32_t i = 0; i < count; i++) {
        request_publish(events[i].request, events[i].num_output_tokens, events[i].reason);
        if (events[i].reason != FINISH_NONE)
            request_unref(events[i].request);
    }
    return count;
}

static void assert_planned(const struct rig *rig, int32_t i, const struct request *r,
                           int32_t num_computed, int32_t num_scheduled)
{
    assert_true(i < rig->step.num_seqs);
    assert_ptr_equal(rig->step.seqs[i].request, r);
    assert_int_equal(rig->step.seqs[i].num_computed_tokens, num_computed);
    assert_int_equal(rig->step.seqs[i].num_scheduled_tokens, num_scheduled);
}

static void test_budget_and_chunks(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, small_config());
    struct request *a = add(&rig, 100, 10, 5), *b = add(&rig, 200, 10, 5),
                   *c = add(&rig, 300, 3, 5);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 2);
    assert_int_equal(rig.step.num_tokens, 16);
    assert_planned(&rig, 0, a, 0, 10);
    assert_true(rig.step.seqs[0].sample);
    assert_planned(&rig, 1, b, 0, 6);
    assert_false(rig.step.seqs[1].sample);
    update(&rig, 50);
    /* Running ones first: a's next token, the rest of b; then c. */
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 3);
    assert_planned(&rig, 0, a, 10, 1);
    assert_int_equal(rig.step.seqs[0].num_tokens, 11);
    assert_planned(&rig, 1, b, 6, 4);
    assert_true(rig.step.seqs[1].sample);
    assert_planned(&rig, 2, c, 0, 3);
    update(&rig, 51);
    assert_int_equal(publish(&rig), 3);
    assert_int_equal(request_num_output_tokens(a), 2);
    assert_int_equal(a->token_ids[10], 50);
    assert_int_equal(a->token_ids[11], 51);
    assert_int_equal(request_num_output_tokens(b), 1);
    assert_true(a->scheduled_ns == 1 + SECOND && c->scheduled_ns == 1 + 2 * SECOND);
    assert_true(b->first_token_ns == 1 + 2 * SECOND);
    request_unref(a);
    request_unref(b);
    request_unref(c);
    rig_close(&rig);
}

static void test_long_prefill_threshold(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_config config = small_config();
    config.long_prefill_token_threshold = 5;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 12, 5), *b = add(&rig, 200, 4, 5);
    schedule(&rig);
    assert_planned(&rig, 0, a, 0, 5);
    assert_planned(&rig, 1, b, 0, 4);
    update(&rig, 50);
    schedule(&rig);
    assert_planned(&rig, 0, a, 5, 5);
    assert_planned(&rig, 1, b, 4, 1);
    request_unref(a);
    request_unref(b);
    rig_close(&rig);
}

static void test_max_num_seqs(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, small_config());
    struct request *r[6];
    for (int32_t i = 0; i < 6; i++)
        r[i] = add(&rig, 100 * i, 1, 2);
    turn(&rig, 50);
    assert_int_equal(rig.step.num_seqs, 4);
    turn(&rig, 50); /* the first four end */
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 2);
    assert_planned(&rig, 0, r[4], 0, 1);
    for (int32_t i = 0; i < 6; i++)
        request_unref(r[i]);
    publish(&rig);
    rig_close(&rig);
}

/* The latest running one gives way, nothing is admitted in that step, and it comes back first. */
static void test_preemption(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_config config = small_config();
    config.num_blocks = 4;
    config.enable_prefix_caching = false;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 8, 8), *b = add(&rig, 200, 7, 2), *c = add(&rig, 300, 1, 2);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 2); /* c finds no block */
    update(&rig, 50);
    schedule(&rig); /* a needs its third block */
    assert_int_equal(rig.step.num_seqs, 1);
    assert_planned(&rig, 0, a, 8, 1);
    struct scheduler_stats stats;
    scheduler_get_stats(rig.s, &stats);
    assert_int_equal(stats.num_preemptions, 1);
    assert_int_equal(b->num_preemptions, 1);
    assert_int_equal(stats.num_waiting, 2);
    update(&rig, 51);
    for (int32_t i = 0; i < 3; i++) {
        schedule(&rig); /* b stands in front of c and needs two blocks, one is free */
        assert_int_equal(rig.step.num_seqs, 1);
        update(&rig, 52);
    }
    /* a takes the last block, then ends; b is recomputed, its token included. */
    while (rig.step.num_seqs == 1 && rig.step.seqs[0].request == a)
        turn(&rig, 53);
    assert_planned(&rig, 0, b, 0, 8);
    assert_planned(&rig, 1, c, 0, 1);
    publish(&rig);
    assert_int_equal(request_finish_reason(a), FINISH_LENGTH);
    assert_int_equal(request_finish_reason(b), FINISH_LENGTH);
    assert_int_equal(b->token_ids[7], 50);
    scheduler_get_stats(rig.s, &stats);
    assert_int_equal(stats.num_prompt_tokens, 8 + 7 + 1); /* recomputed ones count once */
    request_unref(a);
    request_unref(b);
    request_unref(c);
    rig_close(&rig);
}

/* A newcomer is let in only where the prompts that already run can be finished as well. */
static void test_running_prompts_keep_their_blocks(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_config config = small_config();
    config.num_blocks = 8;
    config.long_prefill_token_threshold = 4;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 24, 1), *b = add(&rig, 200, 12, 1),
                   *c = add(&rig, 300, 4, 1);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 1); /* 6 + 3 blocks are more than 8 */
    for (int32_t i = 0; i < 6; i++) {
        update(&rig, 50);
        schedule(&rig);
    }
    assert_planned(&rig, 0, b, 0, 4);
    assert_planned(&rig, 1, c, 0, 4);
    struct scheduler_stats stats;
    scheduler_get_stats(rig.s, &stats);
    assert_int_equal(stats.num_preemptions, 0);
    request_unref(a);
    request_unref(b);
    request_unref(c);
    publish(&rig);
    rig_close(&rig);
}

static void test_prefix_hits(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, small_config());
    struct request *a = add(&rig, 100, 9, 1);
    turn(&rig, 50);
    struct request *b = add(&rig, 100, 11, 1);
    schedule(&rig);
    assert_planned(&rig, 0, b, 8, 3);
    assert_int_equal(b->num_cached_tokens, 8);
    update(&rig, 50);
    struct scheduler_stats stats;
    scheduler_get_stats(rig.s, &stats);
    assert_int_equal(stats.prefix_cache_queries, 20);
    assert_int_equal(stats.prefix_cache_hits, 8);
    assert_int_equal(stats.num_prompt_tokens, 20); /* cached ones are processed too */
    assert_true(scheduler_reset_prefix_cache(rig.s));
    struct request *c = add(&rig, 100, 11, 1);
    turn(&rig, 50);
    assert_int_equal(c->num_cached_tokens, 0);
    publish(&rig);
    request_unref(a);
    request_unref(b);
    request_unref(c);
    rig_close(&rig);
}

static void test_failed_step_leaves_nothing_behind(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, small_config());
    struct request *a = add(&rig, 100, 9, 3);
    schedule(&rig);
    status_set(&rig.output.status, STATUS_INTERNAL, "the device is gone");
    update(&rig, 50);
    status_clear(&rig.output.status);
    assert_false(scheduler_has_work(rig.s));
    assert_int_equal(publish(&rig), 1);
    assert_int_equal(request_finish_reason(a), FINISH_ERROR);
    assert_string_equal(a->error.message, "the device is gone");
    assert_int_equal(request_num_output_tokens(a), 0);
    struct request *b = add(&rig, 100, 9, 3);
    schedule(&rig);
    assert_planned(&rig, 0, b, 0, 9);
    update(&rig, 50);
    request_unref(a);
    request_unref(b);
    rig_close(&rig);
}

static void test_logits_not_finite(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_config config = small_config();
    config.max_num_batched_tokens = 8;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 9, 3);
    turn(&rig, 50); /* 8 tokens: two blocks are registered */
    turn(&rig, -1);
    assert_int_equal(publish(&rig), 1);
    assert_int_equal(request_finish_reason(a), FINISH_ERROR);
    assert_int_equal(a->error.code, STATUS_INTERNAL);
    assert_non_null(strstr(a->error.message, "logits are not finite"));
    struct request *b = add(&rig, 100, 9, 3); /* does not inherit what may have caused it */
    schedule(&rig);
    assert_planned(&rig, 0, b, 0, 8);
    request_unref(a);
    request_unref(b);
    rig_close(&rig);
}

static void test_ends(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, small_config());
    struct request *prompt_only = add(&rig, 100, 3, 0), *eos = add(&rig, 200, 3, 9),
                   *held = add(&rig, 300, 3, 9);
    held->params.min_tokens = 2;
    turn(&rig, 2);
    publish(&rig);
    assert_int_equal(request_finish_reason(prompt_only), FINISH_LENGTH);
    assert_int_equal(request_num_output_tokens(prompt_only), 0);
    assert_int_equal(request_finish_reason(eos), FINISH_STOP);
    assert_int_equal(eos->stop_token_id, -1);
    assert_int_equal(request_num_output_tokens(eos), 1);
    assert_int_equal(request_finish_reason(held), FINISH_NONE);
    turn(&rig, 2);
    publish(&rig);
    assert_int_equal(request_finish_reason(held), FINISH_STOP);
    request_unref(prompt_only);
    request_unref(eos);
    request_unref(held);
    rig_close(&rig);
}

static void test_logprobs(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, small_config());
    struct request *plain = add(&rig, 100, 2, 2);
    struct sampling_params params = plain->params;
    params.num_logprobs = 1;
    struct request *r = request_new((int32_t[]){ 7 }, 1, 2, &params, NULL, NULL);
    scheduler_add(rig.s, request_ref(r));
    for (int32_t t = 0; t < 2; t++) {
        for (int32_t i = 0; i < 6; i++)
            rig.output.logprobs[i] = (struct token_logprob){ .token_id = 10 * t + i };
        turn(&rig, 50);
    }
    publish(&rig);
    for (int32_t t = 0; t < 2; t++)
        for (int32_t i = 0; i < 2; i++)
            assert_int_equal(r->logprobs[2 * t + i].token_id, 10 * t + 3 + i);
    request_unref(plain);
    request_unref(r);
    rig_close(&rig);
}

static void test_cancel_and_deadline(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_config config = small_config();
    config.max_num_seqs = 3;
    rig_open(&rig, config);
    struct request *gone = add(&rig, 100, 3, 9), *stopped = add(&rig, 200, 3, 9),
                   *late = add(&rig, 300, 3, 9), *starved = add(&rig, 400, 3, 9),
                   *left = add(&rig, 500, 3, 9);
    late->deadline_ns = starved->deadline_ns = 1 + 2 * (uint64_t)SECOND;
    turn(&rig, 50);
    request_cancel(gone);
    request_stop(stopped);
    request_cancel(left);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 0);
    assert_int_equal(publish(&rig), 5);
    assert_int_equal(request_finish_reason(gone), FINISH_ABORT);
    assert_int_equal(gone->error.code, STATUS_OK);
    assert_int_equal(request_num_output_tokens(gone), 1);
    assert_int_equal(request_finish_reason(stopped), FINISH_STOP);
    assert_int_equal(request_finish_reason(late), FINISH_ABORT);
    assert_int_equal(late->error.code, STATUS_TIMEOUT);
    assert_int_equal(request_finish_reason(starved), FINISH_ERROR);
    assert_int_equal(starved->error.code, STATUS_TIMEOUT);
    assert_true(starved->scheduled_ns == 0 && starved->finished_ns > 0);
    assert_int_equal(request_finish_reason(left), FINISH_ABORT);
    struct scheduler_stats stats;
    scheduler_get_stats(rig.s, &stats);
    assert_int_equal(stats.num_free_blocks, stats.num_blocks);
    assert_false(scheduler_has_work(rig.s));
    struct request *all[] = { gone, stopped, late, starved, left };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        request_unref(all[i]);
    rig_close(&rig);
}

/* Waiting requests are looked at in turn: one that was cancelled far back in line is gone, and its
 * place free, after a bounded number of steps. */
static void test_waiting_are_swept(void **state)
{
    (void)state;
    enum { WAITING = 4 * SCHEDULER_SWEEP };
    struct rig rig;
    struct scheduler_config config = small_config();
    config.max_num_seqs = 1;
    config.max_waiting = WAITING;
    rig_open(&rig, config);
    struct request *r[WAITING];
    for (int32_t i = 0; i < WAITING; i++)
        r[i] = add(&rig, 100, 1, 60);
    assert_int_equal(scheduler_room(rig.s), 0);
    for (int32_t i = WAITING / 2; i < WAITING; i++)
        request_cancel(r[i]);
    for (int32_t i = 0; i < WAITING / SCHEDULER_SWEEP + 1; i++) {
        turn(&rig, 50);
        publish(&rig);
    }
    for (int32_t i = WAITING / 2; i < WAITING; i++)
        assert_int_equal(request_finish_reason(r[i]), FINISH_ABORT);
    assert_int_equal(scheduler_room(rig.s), WAITING / 2 + 1);
    for (int32_t i = 0; i < WAITING; i++)
        request_unref(r[i]);
    rig_close(&rig);
}

/* One that comes to the front of the line cancelled is dropped then, swept or not. */
static void test_cancelled_at_the_front(void **state)
{
    (void)state;
    enum { WAITING = SCHEDULER_SWEEP + 2 };
    struct rig rig;
    struct scheduler_config config = small_config();
    config.max_waiting = WAITING;
    rig_open(&rig, config);
    struct request *r[WAITING];
    for (int32_t i = 0; i < WAITING; i++)
        r[i] = add(&rig, 100, 1, 2);
    for (int32_t i = 0; i < WAITING; i++)
        if (i != WAITING - 2)
            request_cancel(r[i]);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 1);
    assert_planned(&rig, 0, r[WAITING - 2], 0, 1);
    request_cancel(r[WAITING - 2]);
    update(&rig, 50);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 0);
    assert_int_equal(publish(&rig), WAITING);
    for (int32_t i = 0; i < WAITING; i++) {
        assert_int_equal(request_finish_reason(r[i]), FINISH_ABORT);
        request_unref(r[i]);
    }
    rig_close(&rig);
}

/* A step planned while the one before is under way takes it that sequences go on, but for those
 * that will have all their tokens; what it planned for one that ended after all is dropped. */
static void test_a_step_ahead(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, small_config());
    struct request *ends = add(&rig, 100, 3, 9), *last = add(&rig, 200, 3, 1),
                   *cancelled = add(&rig, 300, 2, 9);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 3);
    assert_false(rig.step.seqs[0].fed);
    request_cancel(cancelled);
    struct step first = rig.step;
    struct step_seq seqs[3] = { first.seqs[0], first.seqs[1], first.seqs[2] };
    first.seqs = seqs;
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 1);
    assert_planned(&rig, 0, ends, 3, 1);
    assert_int_equal(rig.step.seqs[0].num_tokens, 4);
    assert_true(rig.step.seqs[0].fed && rig.step.seqs[0].sample);
    assert_int_equal(rig.step.seqs[0].previous, 0);
    assert_int_equal(scheduler_num_steps(rig.s), 2);
    assert_int_equal(publish(&rig), 0); /* who is under way does not end in planning */
    const int32_t ids[3] = { eos_ids[0], 51, 52 };
    memcpy(rig.output.sampled_ids, ids, sizeof ids);
    scheduler_update(rig.s, rig.now_ns, &first, &rig.output);
    assert_int_equal(publish(&rig), 3);
    assert_int_equal(request_finish_reason(ends), FINISH_STOP);
    assert_int_equal(request_finish_reason(last), FINISH_LENGTH);
    struct request *next = add(&rig, 400, 2, 1); /* where the slot of one that ended may be */
    update(&rig, 53);
    assert_int_equal(publish(&rig), 0);
    assert_int_equal(request_num_output_tokens(ends), 1);
    turn(&rig, 54);
    assert_planned(&rig, 0, next, 0, 2);
    publish(&rig);
    assert_int_equal(request_finish_reason(cancelled), FINISH_ABORT);
    assert_int_equal(request_num_output_tokens(cancelled), 1);
    assert_int_equal(request_finish_reason(next), FINISH_LENGTH);
    request_unref(ends);
    request_unref(last);
    request_unref(cancelled);
    request_unref(next);
    rig_close(&rig);
}

/* A step as an executor has it while the next is planned. */
static struct step keep_step(const struct rig *rig, struct step_seq *seqs)
{
    struct step step = rig->step;
    memcpy(seqs, step.seqs, (size_t)step.num_seqs * sizeof *seqs);
    step.seqs = seqs;
    return step;
}

/* Blocks that run out with a step under way: nothing is preempted before that is booked, and those
 * that did find blocks do not go on for ever meanwhile. */
static void test_a_step_ahead_without_blocks(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_config config = small_config();
    config.num_blocks = 3;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 4, 9), *b = add(&rig, 200, 2, 5);
    struct step_seq seqs[2][2];
    struct step steps[2];
    int32_t turn = 0, last_num_seqs = 2;
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 2);
    steps[0] = keep_step(&rig, seqs[0]);
    for (;;) {
        schedule(&rig);
        if (rig.step.num_seqs == 0)
            break;
        assert_int_equal(last_num_seqs, 2); /* b has not been left out before */
        last_num_seqs = rig.step.num_seqs;
        steps[!turn] = keep_step(&rig, seqs[!turn]);
        rig.output.sampled_ids[0] = rig.output.sampled_ids[1] = 50;
        scheduler_update(rig.s, rig.now_ns, &steps[turn], &rig.output);
        turn = !turn;
    }
    assert_int_equal(last_num_seqs, 1);
    assert_int_equal(a->num_preemptions + b->num_preemptions, 0);
    scheduler_update(rig.s, rig.now_ns, &steps[turn], &rig.output);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 1);
    assert_planned(&rig, 0, a, 7, 1);
    assert_int_equal(b->num_preemptions, 1);
    request_unref(a);
    request_unref(b);
    rig_close(&rig);
}

/* Repeats what the last token is, as often as is asked for. */
static int32_t repeat_last(const struct proposer_config *config, const int32_t *token_ids,
                           int32_t num_tokens, int32_t max_drafts, int32_t *drafts)
{
    (void)config;
    for (int32_t i = 0; i < max_drafts; i++)
        drafts[i] = token_ids[num_tokens - 1];
    return max_drafts;
}

static const struct proposer repeating = { .name = "repeating", .propose = repeat_last };

static struct scheduler_config drafting_config(void)
{
    struct scheduler_config config = small_config();
    config.proposer = &repeating;
    config.proposer_config.num_tokens = 3;
    return config;
}

/* Sequence i of the step has sampled those. */
static void bring(struct rig *rig, int32_t i, const int32_t *ids, int32_t count)
{
    rig->output.num_sampled[i] = count;
    memcpy(rig->output.sampled_ids + step_output_place(&rig->output, i, 0), ids,
           (size_t)count * sizeof *ids);
}

static void test_drafts(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_stats stats;
    rig_open(&rig, drafting_config());
    struct request *a = add(&rig, 100, 5, 9);
    schedule(&rig);
    assert_planned(&rig, 0, a, 0, 5); /* a prompt has none */
    assert_int_equal(rig.step.seqs[0].num_draft_tokens, 0);
    bring(&rig, 0, (const int32_t[]){ 50 }, 1);
    scheduler_update(rig.s, rig.now_ns, &rig.step, &rig.output);
    schedule(&rig);
    assert_planned(&rig, 0, a, 5, 4);
    assert_int_equal(rig.step.seqs[0].num_tokens, 6);
    assert_int_equal(rig.step.seqs[0].num_draft_tokens, 3);
    assert_true(rig.step.seqs[0].sample);
    assert_int_equal(rig.step.seqs[0].num_blocks, 3);
    assert_int_equal(a->token_ids[8], 50);
    /* Two of three were right: three tokens more, and the next step begins at the third. */
    bring(&rig, 0, (const int32_t[]){ 50, 50, 51 }, 3);
    scheduler_update(rig.s, rig.now_ns, &rig.step, &rig.output);
    publish(&rig);
    assert_int_equal(request_num_output_tokens(a), 4);
    schedule(&rig);
    assert_planned(&rig, 0, a, 8, 4);
    /* None was. */
    bring(&rig, 0, (const int32_t[]){ 52 }, 1);
    scheduler_update(rig.s, rig.now_ns, &rig.step, &rig.output);
    schedule(&rig);
    assert_planned(&rig, 0, a, 9, 4);
    /* An EOS among them ends it, whatever comes behind. */
    bring(&rig, 0, (const int32_t[]){ 52, 2, 52, 52 }, 4);
    scheduler_update(rig.s, rig.now_ns, &rig.step, &rig.output);
    publish(&rig);
    assert_int_equal(request_finish_reason(a), FINISH_STOP);
    assert_int_equal(request_num_output_tokens(a), 7);
    scheduler_get_stats(rig.s, &stats);
    assert_int_equal(stats.num_drafts, 3);
    assert_int_equal(stats.num_draft_tokens, 9);
    assert_int_equal(stats.num_accepted_tokens, 5);
    assert_int_equal(stats.num_accepted_tokens_per_pos[0], 2);
    assert_int_equal(stats.num_accepted_tokens_per_pos[2], 1);
    assert_int_equal(stats.num_generation_tokens, 7);
    request_unref(a);
    rig_close(&rig);
}

/* What a, b and c, of which b may get two more tokens and c one, run in a step of that budget. */
static void check_budget(int32_t budget, int32_t of_a, int32_t of_b)
{
    struct rig rig;
    struct scheduler_config config = drafting_config();
    config.max_num_batched_tokens = budget;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 2, 9), *b = add(&rig, 200, 3, 3), *c = add(&rig, 300, 1, 2);
    turn(&rig, 50);
    schedule(&rig);
    assert_int_equal(rig.step.num_tokens, of_a + of_b + 1);
    assert_planned(&rig, 0, a, 2, of_a);
    assert_planned(&rig, 1, b, 3, of_b);
    assert_planned(&rig, 2, c, 1, 1);
    update(&rig, 51);
    request_cancel(a);
    request_cancel(b);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 0);
    publish(&rig);
    request_unref(a);
    request_unref(b);
    request_unref(c);
    rig_close(&rig);
}

/* No more than tokens may still come, than the budget leaves when each behind keeps a token of it,
 * and none where blocks are few. */
static void test_drafts_are_bounded(void **state)
{
    (void)state;
    check_budget(16, 4, 2);
    check_budget(7, 4, 2);
    check_budget(6, 4, 1);
    struct rig rig;
    struct scheduler_config config = drafting_config();
    config.num_blocks = 4;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 4, 9), *b = add(&rig, 200, 4, 9);
    turn(&rig, 50); /* each has a block, and two are left */
    schedule(&rig);
    assert_planned(&rig, 0, a, 4, 1);
    assert_planned(&rig, 1, b, 4, 1);
    update(&rig, 50);
    assert_int_equal(a->num_preemptions + b->num_preemptions, 0);
    request_unref(a);
    request_unref(b);
    rig_close(&rig);
}

/* That one in front did not fit says nothing about the next, even if it takes the same slot. */
static void test_next_in_line_is_tried_anew(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_config config = small_config();
    config.num_blocks = 4;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 9, 3), *large = add(&rig, 200, 5, 1);
    turn(&rig, 50);
    assert_int_equal(rig.step.num_seqs, 1);
    request_cancel(large);
    schedule(&rig);
    update(&rig, 50);
    struct request *small = add(&rig, 300, 4, 1);
    schedule(&rig);
    assert_int_equal(rig.step.num_seqs, 2);
    assert_planned(&rig, 1, small, 0, 4);
    publish(&rig);
    request_unref(a);
    request_unref(large);
    request_unref(small);
    rig_close(&rig);
}

static void test_abort_all(void **state)
{
    (void)state;
    struct rig rig;
    struct scheduler_config config = small_config();
    config.max_num_seqs = 1;
    rig_open(&rig, config);
    struct request *a = add(&rig, 100, 3, 9), *b = add(&rig, 200, 3, 9);
    turn(&rig, 50);
    struct status why;
    status_set(&why, STATUS_UNAVAILABLE, "the engine has failed");
    scheduler_abort_all(rig.s, FINISH_ERROR, &why);
    assert_false(scheduler_has_work(rig.s));
    assert_int_equal(publish(&rig), 2);
    assert_int_equal(request_finish_reason(a), FINISH_ERROR);
    assert_int_equal(request_num_output_tokens(a), 1);
    assert_string_equal(b->error.message, "the engine has failed");
    assert_int_equal(scheduler_room(rig.s), config.max_waiting);
    request_unref(a);
    request_unref(b);
    rig_close(&rig);
}

/* Ends that nobody has taken yet keep their places: room shrinks, nothing is lost. */
static void test_untaken_events(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, small_config());
    int32_t num_added = 0;
    while (scheduler_room(rig.s) > 0) {
        request_unref(add(&rig, 100, 1, 1));
        num_added++;
        turn(&rig, 50);
        assert_true(num_added < 1000);
    }
    assert_true(num_added >= small_config().max_waiting);
    assert_int_equal(publish(&rig), num_added);
    assert_int_equal(scheduler_room(rig.s), small_config().max_waiting);
    rig_close(&rig);
}

static void test_fits(void **state)
{
    (void)state;
    struct scheduler_config config = small_config();
    struct status st;
    assert_true(scheduler_fits(&config, 1, 0, &st));
    assert_true(scheduler_fits(&config, 63, 1, &st));
    assert_true(scheduler_fits(&config, 64, 0, &st));
    assert_false(scheduler_fits(&config, 64, 1, &st));
    assert_string_equal(st.reason, "context_length_exceeded");
    assert_non_null(strstr(st.message, "maximum context length is 64 tokens"));
    assert_false(scheduler_fits(&config, INT32_MAX, INT32_MAX, &st));
    assert_false(scheduler_fits(&config, 0, 1, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_false(scheduler_fits(&config, 1, -1, &st));
    assert_string_equal(st.param, "max_tokens");
    config.num_blocks = 5; /* 20 tokens; the last one of an answer needs no place */
    assert_true(scheduler_fits(&config, 20, 1, &st));
    assert_true(scheduler_fits(&config, 20, 0, &st));
    assert_false(scheduler_fits(&config, 20, 2, &st));
    assert_false(scheduler_fits(&config, 21, 0, &st));
    assert_non_null(strstr(st.message, "KV cache holds 20 tokens"));
}

/* The figure: decode steps of `num_seqs` sequences, each schedule and update, while others wait. */
static void bench(int32_t num_seqs, int32_t num_waiting)
{
    enum { PROMPT = 512, OUTPUT = 512 };
    struct rig rig;
    rig_open(&rig, (struct scheduler_config){ .max_num_seqs = num_seqs,
                                              .max_num_batched_tokens = num_seqs * PROMPT,
                                              .max_model_len = 4096,
                                              .block_size = 16,
                                              .num_blocks = num_seqs * (PROMPT + OUTPUT) / 16,
                                              .max_waiting = 4096,
                                              .max_logprobs = 20,
                                              .enable_prefix_caching = true,
                                              .hash_key = { 3, 4 } });
    for (int32_t i = 0; i < num_seqs; i++)
        request_unref(add(&rig, 10000 * i, PROMPT, OUTPUT));
    uint64_t start_ns = clock_now_ns();
    turn(&rig, 50);
    publish(&rig);
    double prefill_us = clock_seconds_between(start_ns, clock_now_ns()) * 1e6;
    for (int32_t i = 0; i < num_waiting; i++)
        request_unref(add(&rig, 10000 * i + 1, PROMPT, 1));
    start_ns = clock_now_ns();
    int32_t num_steps = 0;
    for (; num_steps < OUTPUT - 1; num_steps++) {
        turn(&rig, 50);
        publish(&rig);
    }
    double us = clock_seconds_between(start_ns, clock_now_ns()) * 1e6 / num_steps;
    printf("%4d sequences, %4d waiting: %.1f us per decode step (%.0f ns per sequence), "
           "first step %.0f us\n",
           num_seqs, num_waiting, us, us * 1e3 / num_seqs, prefill_us);
    rig_close(&rig);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--bench")) {
        bench(128, 0);
        bench(1024, 0);
        bench(128, 4096);
        bench(1024, 4096);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget_and_chunks),
        cmocka_unit_test(test_long_prefill_threshold),
        cmocka_unit_test(test_max_num_seqs),
        cmocka_unit_test(test_preemption),
        cmocka_unit_test(test_running_prompts_keep_their_blocks),
        cmocka_unit_test(test_prefix_hits),
        cmocka_unit_test(test_failed_step_leaves_nothing_behind),
        cmocka_unit_test(test_logits_not_finite),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_cancel_and_deadline),
        cmocka_unit_test(test_waiting_are_swept),
        cmocka_unit_test(test_cancelled_at_the_front),
        cmocka_unit_test(test_a_step_ahead),
        cmocka_unit_test(test_a_step_ahead_without_blocks),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_drafts_are_bounded),
        cmocka_unit_test(test_next_in_line_is_tried_anew),
        cmocka_unit_test(test_abort_all),
        cmocka_unit_test(test_untaken_events),
        cmocka_unit_test(test_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
