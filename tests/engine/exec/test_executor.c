/* test_executor.c - steps on one rank and on several: the same tokens, a failure told once and to
 * all, and an end that nobody waits for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/exec/executor_fixture.h"
#include "tests/hang_alarm.h"

#include <unistd.h>

static void open_run_of(struct run *r, const char *dir, int32_t num_ranks, int32_t num_batches)
{
    const struct memory_plan_options options = run_plan_options(num_ranks, num_batches);
    run_open(r, dir, "cpu", &options);
    assert_int_equal(r->executor.num_workers, num_ranks);
    for (int32_t i = 0; i < num_ranks; i++) {
        const struct worker *w = &r->executor.workers[i];
        assert_int_equal(w->weights->size.bytes, r->plan.weights.bytes);
        assert_int_equal(w->kv_memory.size_bytes, r->plan.kv_cache_bytes);
    }
    assert_int_equal(executor_taken_bytes(&r->executor), memory_plan_total_bytes(&r->plan));
}

static void open_run(struct run *r, const char *dir, int32_t num_ranks)
{
    open_run_of(r, dir, num_ranks, 1);
}

static bool run_step(struct run *r)
{
    executor_submit(&r->executor, &r->steps[0]);
    executor_collect(&r->executor, &r->output);
    return r->output.status.code == STATUS_OK;
}

/* The sampled token becomes the input of the next step. */
static void advance(struct run *r)
{
    r->request->token_ids[r->seqs[0].num_tokens++] = r->sampled;
    r->seqs[0].num_computed_tokens = r->seqs[0].num_tokens - 1;
    r->seqs[0].num_scheduled_tokens = r->steps[0].num_tokens = 1;
}

static char dir[64];
static struct fixture fixture;

static int make_checkpoint(void **state)
{
    (void)state;
    fixture_open_in(&fixture, "tests/golden/parallel/", "llama_dynamic");
    snprintf(dir, sizeof dir, "%s", fixture.dir);
    hang_alarm(120);
    return 0;
}

static int remove_checkpoint(void **state)
{
    (void)state;
    fixture_close(&fixture);
    return 0;
}

static void test_ranks_give_the_same_tokens(void **state)
{
    (void)state;
    int32_t expected[MAX_STEPS] = { 0 };
    for (int32_t num_ranks = 1; num_ranks <= 4; num_ranks *= 2) {
        struct run r;
        open_run(&r, dir, num_ranks);
        for (int32_t i = 0; i < MAX_STEPS; i++) {
            assert_true(run_step(&r));
            if (num_ranks == 1)
                expected[i] = r.sampled;
            assert_int_equal(r.sampled, expected[i]);
            advance(&r);
        }
        run_close(&r);
    }
}

/* A step that fails at all ranks, or at one, is one failure; the next step runs as ever. */
static void test_a_failed_step(void **state)
{
    (void)state;
    for (int32_t num_ranks = 1; num_ranks <= 4; num_ranks *= 2) {
        struct run r;
        open_run(&r, dir, num_ranks);
        assert_true(run_step(&r));
        int32_t sampled = r.sampled;
        r.request->token_ids[4] = VOCAB_SIZE;
        assert_false(run_step(&r));
        assert_int_equal(r.output.status.code, STATUS_INTERNAL);
        assert_string_equal(r.output.status.message,
                            num_ranks == 1
                                ? "embedding: index 71 of row 4 is not in [0, 71)"
                                : "rank 0: embedding: index 71 of row 4 is not in [0, 71)");
        r.request->token_ids[4] = prompt_token(4);
        struct device *last = r.executor.workers[num_ranks - 1].device;
        status_set(&last->error, STATUS_INTERNAL, "this device is ill");
        assert_false(run_step(&r));
        assert_non_null(strstr(r.output.status.message, "this device is ill"));
        assert_true(run_step(&r));
        assert_int_equal(r.sampled, sampled);
        run_close(&r);
    }
}

/* Steps that are submitted before the one they go on from has been collected give the same tokens,
 * of which some depend on all that came before them. */
static void test_a_step_ahead(void **state)
{
    (void)state;
    int32_t expected[MAX_STEPS], ahead[MAX_STEPS];
    struct run r;
    open_run(&r, dir, 1);
    r.request->params.repetition_penalty = 1.9f;
    for (int32_t i = 0; i < MAX_STEPS; i++) {
        assert_true(run_step(&r));
        expected[i] = r.sampled;
        advance(&r);
    }
    run_close(&r);
    open_run_of(&r, dir, 1, 2);
    r.request->params.repetition_penalty = 1.9f;
    run_ahead(&r, ahead, MAX_STEPS);
    run_close(&r);
    assert_memory_equal(ahead, expected, sizeof expected);
}

/* A step that fails is told of it; the one behind it, which runs, is not. */
static void test_errors_of_steps_under_way(void **state)
{
    (void)state;
    struct run r;
    open_run_of(&r, dir, 1, 2);
    struct step_seq good = r.seqs[0];
    struct step step = r.steps[0];
    step.seqs = &good;
    r.request->token_ids[4] = VOCAB_SIZE;
    executor_submit(&r.executor, &r.steps[0]);
    r.request->token_ids[4] = prompt_token(4);
    executor_submit(&r.executor, &step);
    executor_collect(&r.executor, &r.output);
    assert_non_null(strstr(r.output.status.message, "index 71 of row 4"));
    executor_collect(&r.executor, &r.output);
    assert_int_equal(r.output.status.code, STATUS_OK);
    run_close(&r);
}

/* A rank that will not come: the step fails at the others instead of lasting for ever. */
static void test_a_lost_rank(void **state)
{
    (void)state;
    struct run r;
    struct status why;
    status_set(&why, STATUS_INTERNAL, "rank 1 is lost");
    open_run(&r, dir, 2);
    assert_true(run_step(&r));
    worker_stop(&r.executor.workers[1]);
    batch_fill(&r.executor.batches[0], &r.steps[0], NULL);
    worker_post(&r.executor.workers[0], &r.executor.batches[0]);
    usleep(20000); /* it waits in the first collective by now */
    r.executor.workers[1].comm->abort(r.executor.workers[1].comm, &why);
    assert_false(worker_wait(&r.executor.workers[0], &why));
    assert_string_equal(why.message, "rank 0: rank 1 is lost");
    run_close(&r);
}

static void test_stop_before_collect(void **state)
{
    (void)state;
    struct run r;
    open_run(&r, dir, 2);
    executor_submit(&r.executor, &r.steps[0]);
    run_close(&r);
}

static void test_refusals(void **state)
{
    (void)state;
    struct executor x;
    struct status st;
    struct device_options device = { .num_threads = 2, .isa = "no such" };
    for (int32_t num_ranks = 1; num_ranks <= 3; num_ranks++) {
        struct executor_ranks ranks = { .count = num_ranks };
        assert_false(executor_open(&x, "cpu", &device, &ranks, &st));
        assert_non_null(strstr(st.message, "no such"));
        assert_false(executor_open(&x, "abacus", &device, &ranks, &st));
        assert_non_null(strstr(st.message, "abacus"));
    }
}

/* Lists of GPUs that are none, or too short or long; and the CPU has no numbers. */
static void test_device_ids(void **state)
{
    static const struct {
        const char *ids, *words;
    } cases[] = {
        { "", "expected numbers of GPUs" },
        { "0,", "expected numbers of GPUs" },
        { ",0", "expected numbers of GPUs" },
        { "0,x", "expected numbers of GPUs" },
        { "0;1", "expected numbers of GPUs" },
        { "0, 1", "expected numbers of GPUs" },
        { "-1,0", "expected numbers of GPUs" },
        { "0,99999999999999999999", "expected numbers of GPUs" },
        { "0", "names 1 GPUs, and --tensor-parallel-size is 2" },
        { "0,1,2", "names 3 GPUs, and --tensor-parallel-size is 2" },
        { "0,1", "the device is the CPU" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct executor x;
        struct status st;
        struct device_options device = { .num_threads = 2, .isa = "auto" };
        struct executor_ranks ranks = { .count = 2, .device_ids = cases[i].ids };
        assert_false(executor_open(&x, "cpu", &device, &ranks, &st));
        if (!strstr(st.message, cases[i].words))
            fail_msg("%s: %s", cases[i].ids, st.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_give_the_same_tokens),
        cmocka_unit_test(test_a_failed_step),
        cmocka_unit_test(test_a_step_ahead),
        cmocka_unit_test(test_errors_of_steps_under_way),
        cmocka_unit_test(test_a_lost_rank),
        cmocka_unit_test(test_stop_before_collect),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_device_ids),
    };
    return cmocka_run_group_tests(tests, make_checkpoint, remove_checkpoint);
}
