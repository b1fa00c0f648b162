/* test_executor_cuda.c - two ranks, each on an emulated GPU of its own: the tokens of one rank,
 * also where a step is submitted ahead; and a rank that is lost within a step, which the other one
 * does not wait for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/arch_fixture.h"
#include "tests/kernels/cuda/plugin_path.h"
#include "base/clock.h"
#include "engine/exec/executor.h"
#include "kernels/comm.h"

enum { PROMPT_LEN = 9, NUM_STEPS = 6, BLOCK_SIZE = 16, VOCAB_SIZE = 71 };

struct run {
    struct model *model;
    struct executor executor;
    struct memory_plan plan;
    struct request *request;
    struct step_seq seqs[2];
    struct step steps[2];
    struct step_output output;
    int32_t sampled;
};

static struct fixture fixture;

static void open_run(struct run *r, int32_t num_ranks)
{
    static const int32_t table[] = { 2, 1, 3 }, first_blocks[] = { 0 };
    struct status st;
    struct sampling_params params;
    struct model_options model = { .path = fixture.dir, .load_format = "auto", .dtype = "float32" };
    struct device_options device = { .index = 0 };
    struct executor_ranks ranks = { .count = num_ranks };
    struct memory_plan_options options = { .memory_utilization = 0.5,
                                           .num_blocks_override = 8,
                                           .max_model_len = 48,
                                           .block_size = BLOCK_SIZE,
                                           .max_num_seqs = 2,
                                           .max_num_batched_tokens = 32,
                                           .num_batches = 2,
                                           .ranks_per_device = 1,
                                           .graph_mode = GRAPH_MODE_LAZY,
                                           .max_seq_len_to_capture = 32,
                                           .tensor_parallel_size = num_ranks };
    memset(r, 0, sizeof *r);
    assert_true(model_open(&model, &r->model, &st));
    if (!executor_open(&r->executor, "cuda", &device, &ranks, &st) ||
        !memory_plan_make(r->model, r->executor.workers[0].device, &options, &r->plan, &st) ||
        !executor_load_weights(&r->executor, r->model, &st) ||
        !executor_allocate(&r->executor, &r->plan, &st) || !executor_start(&r->executor, &st))
        rig_fail(fixture.dir, &st);
    int32_t ids[PROMPT_LEN];
    for (int32_t i = 0; i < PROMPT_LEN; i++)
        ids[i] = (7 * i + 3) % VOCAB_SIZE;
    sampling_params_defaults(&params);
    params.temperature = 0;
    params.repetition_penalty = 1.7f;
    r->request = request_new(ids, PROMPT_LEN, NUM_STEPS + 1, &params, NULL, NULL);
    r->seqs[0] = (struct step_seq){ .request = r->request,
                                    .num_tokens = PROMPT_LEN,
                                    .num_scheduled_tokens = PROMPT_LEN,
                                    .block_tables = table,
                                    .first_blocks = first_blocks,
                                    .num_blocks = 1,
                                    .sample = true };
    for (int32_t i = 0; i < 2; i++)
        r->steps[i] = (struct step){
            .num_seqs = 1, .num_tokens = PROMPT_LEN, .seqs = &r->seqs[i], .block_table_stride = 3
        };
    r->output = (struct step_output){ .sampled_ids = &r->sampled };
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

/* NUM_STEPS tokens, each of whose steps is submitted before the one before has been collected. */
static void run_ahead(struct run *r, int32_t *tokens)
{
    executor_submit(&r->executor, &r->steps[0]);
    for (int32_t i = 0; i < NUM_STEPS; i++) {
        struct step_seq *next = &r->seqs[(i + 1) % 2];
        *next = r->seqs[i % 2];
        next->num_computed_tokens = next->num_tokens++;
        next->num_scheduled_tokens = r->steps[(i + 1) % 2].num_tokens = 1;
        next->fed = true;
        if (i + 1 < NUM_STEPS)
            executor_submit(&r->executor, &r->steps[(i + 1) % 2]);
        executor_collect(&r->executor, &r->output);
        if (r->output.status.code != STATUS_OK)
            rig_fail("a step", &r->output.status);
        r->request->token_ids[PROMPT_LEN + i] = tokens[i] = r->sampled;
    }
}

static int setup(void **state)
{
    (void)state;
    if (!gpu_is_emulated())
        return 0;
    setenv("EMU_DEVICE_COUNT", "2", 1);
    gpu_link_plugin();
    fixture_open_in(&fixture, "tests/golden/parallel/", "llama_dynamic");
    alarm(120); /* what hangs shall fail */
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (gpu_is_emulated())
        fixture_close(&fixture);
    return 0;
}

static void test_ranks_give_the_same_tokens(void **state)
{
    (void)state;
    int32_t alone[NUM_STEPS], together[NUM_STEPS];
    struct run r;
    if (!gpu_is_emulated())
        skip();
    open_run(&r, 1);
    run_ahead(&r, alone);
    close_run(&r);
    open_run(&r, 2);
    assert_true(r.executor.comm_bytes > 0);
    run_ahead(&r, together);
    close_run(&r);
    assert_memory_equal(alone, together, sizeof alone);
}

/* Comes to no collective, as one whose GPU has failed. */
static void fail_all_reduce(struct comm *c, struct device *d, struct tensor *x)
{
    (void)c;
    (void)x;
    if (d->error.code == STATUS_OK)
        status_set(&d->error, STATUS_INTERNAL, "this GPU has fallen off the bus");
}

static void test_a_lost_rank(void **state)
{
    (void)state;
    struct run r;
    if (!gpu_is_emulated())
        skip();
    open_run(&r, 2);
    r.executor.workers[1].comm->all_reduce = fail_all_reduce;
    uint64_t begin = clock_now_ns();
    executor_submit(&r.executor, &r.steps[0]);
    executor_collect(&r.executor, &r.output);
    assert_string_equal(r.output.status.message, "rank 1: this GPU has fallen off the bus");
    double seconds = clock_seconds_between(begin, clock_now_ns());
    assert_true(seconds > 4 && seconds < 60);
    begin = clock_now_ns(); /* and for good */
    executor_submit(&r.executor, &r.steps[0]);
    executor_collect(&r.executor, &r.output);
    assert_int_equal(r.output.status.code, STATUS_INTERNAL);
    assert_true(clock_seconds_between(begin, clock_now_ns()) < 4);
    close_run(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_give_the_same_tokens),
        cmocka_unit_test(test_a_lost_rank),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
