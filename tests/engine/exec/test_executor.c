/* test_executor.c - steps on one rank and on several: the same tokens, a failure told once and to
 * all, and an end that nobody waits for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/arch_fixture.h"
#include "engine/exec/executor.h"

#include <unistd.h>

enum { PROMPT_LEN = 9, NUM_STEPS = 12, BLOCK_SIZE = 16, VOCAB_SIZE = 71 };

struct run {
    struct model *model;
    struct executor executor;
    struct memory_plan plan;
    struct request *request;
    struct step_seq seq;
    struct step step;
    struct step_output output;
    int32_t sampled;
};

static const int32_t table[] = { 2, 1, 3 }, first_blocks[] = { 0 };

static void open_run_of(struct run *r, const char *dir, int32_t num_ranks, int32_t num_batches)
{
    struct status st;
    struct sampling_params params;
    struct model_options model = { .path = dir, .load_format = "auto", .dtype = "float32" };
    struct device_options device = { .num_threads = 2, .isa = "auto", .pin_threads = true };
    struct executor_ranks ranks = { .count = num_ranks };
    struct memory_plan_options options = { .memory_utilization = 0.5,
                                           .num_blocks_override = 8,
                                           .max_model_len = 128,
                                           .block_size = BLOCK_SIZE,
                                           .max_num_seqs = 2,
                                           .max_num_batched_tokens = 32,
                                           .num_batches = num_batches,
                                           .tensor_parallel_size = num_ranks };
    memset(r, 0, sizeof *r);
    assert_true(model_open(&model, &r->model, &st));
    assert_true(executor_open(&r->executor, "cpu", &device, &ranks, &st));
    assert_int_equal(r->executor.num_workers, num_ranks);
    if (!memory_plan_make(r->model, r->executor.workers[0].device, &options, &r->plan, &st) ||
        !executor_load_weights(&r->executor, r->model, &st) ||
        !executor_allocate(&r->executor, &r->plan, &st) || !executor_start(&r->executor, &st))
        rig_fail(dir, &st);
    for (int32_t i = 0; i < num_ranks; i++) {
        const struct worker *w = &r->executor.workers[i];
        assert_int_equal(w->weights->size.bytes, r->plan.weights.bytes);
        assert_int_equal(w->kv_memory.size_bytes, r->plan.kv_cache_bytes);
    }
    assert_int_equal(executor_taken_bytes(&r->executor), memory_plan_total_bytes(&r->plan));
    int32_t ids[PROMPT_LEN];
    for (int32_t i = 0; i < PROMPT_LEN; i++)
        ids[i] = (7 * i + 3) % VOCAB_SIZE;
    sampling_params_defaults(&params);
    params.temperature = 0;
    r->request = request_new(ids, PROMPT_LEN, NUM_STEPS + 1, &params, NULL, NULL);
    r->seq = (struct step_seq){ .request = r->request,
                                .num_tokens = PROMPT_LEN,
                                .num_scheduled_tokens = PROMPT_LEN,
                                .block_tables = table,
                                .first_blocks = first_blocks,
                                .num_blocks = 2,
                                .sample = true };
    r->step = (struct step){
        .num_seqs = 1, .num_tokens = PROMPT_LEN, .seqs = &r->seq, .block_table_stride = 3
    };
    r->output = (struct step_output){ .sampled_ids = &r->sampled };
}

static void open_run(struct run *r, const char *dir, int32_t num_ranks)
{
    open_run_of(r, dir, num_ranks, 1);
}

static void close_run(struct run *r)
{
    executor_stop(&r->executor);
    executor_release(&r->executor);
    executor_unload_weights(&r->executor);
    executor_close(&r->executor);
    request_unref(r->request);
    model_close(r->model);
}

static bool run_step(struct run *r)
{
    executor_submit(&r->executor, &r->step);
    executor_collect(&r->executor, &r->output);
    return r->output.status.code == STATUS_OK;
}

/* The sampled token becomes the input of the next step. */
static void advance(struct run *r)
{
    r->request->token_ids[r->seq.num_tokens++] = r->sampled;
    r->seq.num_computed_tokens = r->seq.num_tokens - 1;
    r->seq.num_scheduled_tokens = r->step.num_tokens = 1;
}

static char dir[64];
static struct fixture fixture;

static int make_checkpoint(void **state)
{
    (void)state;
    fixture_open_in(&fixture, "tests/golden/parallel/", "llama_dynamic");
    snprintf(dir, sizeof dir, "%s", fixture.dir);
    alarm(120); /* what hangs shall fail */
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
    int32_t expected[NUM_STEPS] = { 0 };
    for (int32_t num_ranks = 1; num_ranks <= 4; num_ranks *= 2) {
        struct run r;
        open_run(&r, dir, num_ranks);
        for (int32_t i = 0; i < NUM_STEPS; i++) {
            assert_true(run_step(&r));
            if (num_ranks == 1)
                expected[i] = r.sampled;
            assert_int_equal(r.sampled, expected[i]);
            advance(&r);
        }
        close_run(&r);
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
        r.request->token_ids[4] = (7 * 4 + 3) % VOCAB_SIZE;
        struct device *last = r.executor.workers[num_ranks - 1].device;
        status_set(&last->error, STATUS_INTERNAL, "this device is ill");
        assert_false(run_step(&r));
        assert_non_null(strstr(r.output.status.message, "this device is ill"));
        assert_true(run_step(&r));
        assert_int_equal(r.sampled, sampled);
        close_run(&r);
    }
}

/* Steps that are submitted before the one they go on from has been collected give the same tokens,
 * of which some depend on all that came before them. */
static void test_a_step_ahead(void **state)
{
    (void)state;
    int32_t expected[NUM_STEPS];
    struct run r;
    open_run(&r, dir, 1);
    r.request->params.repetition_penalty = 1.9f;
    for (int32_t i = 0; i < NUM_STEPS; i++) {
        assert_true(run_step(&r));
        expected[i] = r.sampled;
        advance(&r);
    }
    close_run(&r);
    open_run_of(&r, dir, 1, 2);
    r.request->params.repetition_penalty = 1.9f;
    struct step_seq seqs[2] = { r.seq, r.seq };
    struct step steps[2] = { r.step, r.step };
    steps[0].seqs = &seqs[0];
    steps[1].seqs = &seqs[1];
    executor_submit(&r.executor, &steps[0]);
    for (int32_t i = 0; i < NUM_STEPS; i++) {
        struct step_seq *next = &seqs[(i + 1) % 2];
        *next = seqs[i % 2];
        next->num_tokens++;
        next->num_computed_tokens = next->num_tokens - 1;
        next->num_scheduled_tokens = steps[(i + 1) % 2].num_tokens = 1;
        next->fed = true;
        executor_submit(&r.executor, &steps[(i + 1) % 2]);
        executor_collect(&r.executor, &r.output);
        assert_int_equal(r.output.status.code, STATUS_OK);
        assert_int_equal(r.sampled, expected[i]);
        r.request->token_ids[PROMPT_LEN + i] = r.sampled;
    }
    close_run(&r);
}

/* A step that fails is told of it; the one behind it, which runs, is not. */
static void test_errors_of_steps_under_way(void **state)
{
    (void)state;
    struct run r;
    open_run_of(&r, dir, 1, 2);
    struct step_seq good = r.seq;
    struct step step = r.step;
    step.seqs = &good;
    r.request->token_ids[4] = VOCAB_SIZE;
    executor_submit(&r.executor, &r.step);
    r.request->token_ids[4] = (7 * 4 + 3) % VOCAB_SIZE;
    executor_submit(&r.executor, &step);
    executor_collect(&r.executor, &r.output);
    assert_non_null(strstr(r.output.status.message, "index 71 of row 4"));
    executor_collect(&r.executor, &r.output);
    assert_int_equal(r.output.status.code, STATUS_OK);
    close_run(&r);
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
    batch_fill(&r.executor.batches[0], &r.step, NULL);
    worker_post(&r.executor.workers[0], &r.executor.batches[0]);
    usleep(20000); /* it waits in the first collective by now */
    r.executor.workers[1].comm->abort(r.executor.workers[1].comm, &why);
    assert_false(worker_wait(&r.executor.workers[0], &why));
    assert_string_equal(why.message, "rank 0: rank 1 is lost");
    close_run(&r);
}

static void test_stop_before_collect(void **state)
{
    (void)state;
    struct run r;
    open_run(&r, dir, 2);
    executor_submit(&r.executor, &r.step);
    close_run(&r);
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
