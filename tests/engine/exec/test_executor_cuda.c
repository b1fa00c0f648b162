/* test_executor_cuda.c - two ranks, each on an emulated GPU of its own: the tokens of one rank,
 * also where a step is submitted ahead; and a rank that is lost within a step, which the other one
 * does not wait for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "kernels/comm.h"
#include "tests/engine/exec/executor_fixture.h"
#include "tests/hang_alarm.h"
#include "tests/kernels/cuda/plugin_path.h"

enum { NUM_STEPS = 6 };

static struct fixture fixture;

static void open_run(struct run *r, int32_t num_ranks)
{
    struct memory_plan_options options = run_plan_options(num_ranks, 2);
    options.ranks_per_device = 1;
    options.graph_mode = GRAPH_MODE_LAZY;
    options.max_seq_len_to_capture = 32;
    run_open(r, fixture.dir, "cuda", &options);
    r->request->params.repetition_penalty = 1.7f;
}

static int setup(void **state)
{
    (void)state;
    if (!gpu_is_emulated())
        return 0;
    setenv("EMU_DEVICE_COUNT", "2", 1);
    gpu_link_plugin();
    fixture_open_in(&fixture, "tests/golden/parallel/", "llama_dynamic");
    hang_alarm(120);
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
    run_ahead(&r, alone, NUM_STEPS);
    run_close(&r);
    open_run(&r, 2);
    assert_true(r.executor.comm_bytes > 0);
    run_ahead(&r, together, NUM_STEPS);
    run_close(&r);
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
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_give_the_same_tokens),
        cmocka_unit_test(test_a_lost_rank),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
