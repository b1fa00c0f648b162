/* test_comm_local.c - sums, gathers and broadcasts between threads: the same bits at every rank and
 * in rank order, whatever the shapes; and a rank that does not come holds nobody up. */
#include "tests/kernels/cpu_fixture.h"

#include "base/thread.h"
#include "kernels/comm.h"
#include "tests/hang_alarm.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MAX_RANKS = 7, MAX_ROWS = 40, MAX_COLS = 90, MAX_STRIDE = MAX_COLS + 9 };

/* One rank and what it works on. */
struct rank {
    pthread_t thread;
    struct comm *comm;
    struct device *device;
    void (*run)(struct rank *r);
    float *before, *after; /* [MAX_ROWS, MAX_STRIDE] */
    float *gathered;       /* [MAX_ROWS, MAX_RANKS * MAX_COLS] */
    int32_t rounds_done;
    struct status status;
    bool ok;
};

static struct rank ranks[MAX_RANKS];
static int32_t num_ranks, rows, cols, stride, root, num_rounds;
static _Atomic int32_t num_waiting;

static void open_world(int32_t size)
{
    struct comm *comms[MAX_RANKS];
    struct status st;
    assert_true(comm_local_open(comms, size, &st));
    num_ranks = size;
    num_waiting = 0;
    for (int32_t i = 0; i < size; i++) {
        struct rank *r = &ranks[i];
        struct device_options options = { .num_threads = 1 + i % 2, .isa = "auto" };
        *r = (struct rank){ .comm = comms[i] };
        assert_int_equal(r->comm->rank, i);
        assert_int_equal(r->comm->world_size, size);
        assert_true(backend_cpu.open(&r->device, &options, &st));
        r->before = random_floats(MAX_ROWS * MAX_STRIDE, 1);
        r->after = random_floats(MAX_ROWS * MAX_STRIDE, 1);
        r->gathered = random_floats(MAX_ROWS * MAX_RANKS * MAX_COLS, 1);
    }
}

static void close_world(void)
{
    for (int32_t i = 0; i < num_ranks; i++) {
        ranks[i].comm->close(ranks[i].comm);
        backend_cpu.close(ranks[i].device);
        free(ranks[i].before);
        free(ranks[i].after);
        free(ranks[i].gathered);
    }
}

static void *rank_main(void *arg)
{
    struct rank *r = arg;
    r->run(r);
    return NULL;
}

static void start(void (*run)(struct rank *r), int32_t count)
{
    struct status st;
    for (int32_t i = 0; i < count; i++) {
        ranks[i].run = run;
        assert_true(thread_start(&ranks[i].thread, "rank", rank_main, &ranks[i], &st));
    }
}

static void join(int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        pthread_join(ranks[i].thread, NULL);
}

static struct tensor view(float *data, int32_t num_cols, int32_t row_stride)
{
    struct tensor t = tensor_view(data, DTYPE_F32, rows, num_cols);
    t.stride = row_stride;
    return t;
}

/* --- what they compute ------------------------------------------------------------------------ */

static void reduce(struct rank *r)
{
    struct tensor x = view(r->after, cols, stride);
    memcpy(r->after, r->before, MAX_ROWS * MAX_STRIDE * sizeof(float));
    r->comm->all_reduce(r->comm, r->device, &x);
    r->ok = backend_cpu.sync(r->device, &r->status);
}

/* Rank by rank; what lies between the rows stays as it was. */
static void check_reduced(void)
{
    for (int32_t row = 0; row < MAX_ROWS; row++)
        for (int32_t col = 0; col < stride; col++) {
            bool inside = row < rows && col < cols;
            int32_t at = row * stride + col;
            float sum = ranks[0].before[at];
            for (int32_t i = 1; i < num_ranks; i++)
                sum += ranks[i].before[at];
            for (int32_t i = 0; i < num_ranks; i++)
                assert_memory_equal(&ranks[i].after[at], inside ? &sum : &ranks[i].before[at],
                                    sizeof sum);
        }
}

static void test_all_reduce(void **state)
{
    (void)state;
    for (int32_t size = 1; size <= MAX_RANKS; size++)
        for (int round = 0; round < 12; round++) {
            open_world(size);
            rows = round == 0 ? 1 : random_int(0, MAX_ROWS);
            cols = round == 1 ? 1 : random_int(1, MAX_COLS);
            stride = round % 3 == 0 ? cols : cols + random_int(0, 9);
            start(reduce, size);
            join(size);
            check_reduced();
            for (int32_t i = 0; i < size; i++)
                assert_true(ranks[i].ok);
            close_world();
        }
}

static void gather(struct rank *r)
{
    struct tensor x = view(r->before, cols, stride);
    struct tensor out = view(r->gathered, num_ranks * cols, MAX_RANKS * MAX_COLS);
    r->comm->all_gather(r->comm, r->device, &out, &x);
    r->ok = backend_cpu.sync(r->device, &r->status);
}

static void test_all_gather(void **state)
{
    (void)state;
    for (int32_t size = 1; size <= MAX_RANKS; size++) {
        open_world(size);
        rows = random_int(1, MAX_ROWS);
        cols = random_int(1, MAX_COLS);
        stride = cols + size % 3;
        start(gather, size);
        join(size);
        for (int32_t i = 0; i < size; i++)
            for (int32_t row = 0; row < rows; row++)
                for (int32_t from = 0; from < size; from++)
                    assert_memory_equal(
                        ranks[i].gathered + row * MAX_RANKS * MAX_COLS + from * cols,
                        ranks[from].before + row * stride, (size_t)cols * sizeof(float));
        close_world();
    }
}

static void broadcast(struct rank *r)
{
    r->comm->broadcast(r->comm, r->device, r->after, (size_t)cols * sizeof(float), root);
    r->ok = backend_cpu.sync(r->device, &r->status);
}

static void test_broadcast(void **state)
{
    (void)state;
    for (int32_t size = 1; size <= MAX_RANKS; size++) {
        open_world(size);
        root = size / 2;
        cols = random_int(0, MAX_COLS);
        start(broadcast, size);
        join(size);
        for (int32_t i = 0; i < size; i++) {
            assert_true(ranks[i].ok);
            assert_memory_equal(ranks[i].after, ranks[root].after, (size_t)cols * sizeof(float));
        }
        close_world();
    }
}

/* --- many in a row ---------------------------------------------------------------------------- */

/* Plain variables that only the collectives guard: the thread sanitizer sees what they miss. */
static int32_t turns[MAX_RANKS];

static void take_turns(struct rank *r)
{
    r->ok = true;
    for (int32_t i = 0; r->ok && i < num_rounds; i++) {
        struct tensor x = view(r->after, 1, 1);
        r->after[0] = (float)(i + r->comm->rank);
        turns[r->comm->rank] = i;
        r->comm->all_reduce(r->comm, r->device, &x);
        r->ok = r->ok && r->after[0] == (float)(num_ranks * i + num_ranks * (num_ranks - 1) / 2);
        for (int32_t n = 0; n < num_ranks; n++)
            r->ok = r->ok && turns[n] == i;
        r->ok = r->comm->barrier(r->comm, &r->status) && r->ok;
        r->rounds_done++;
    }
}

static void test_many_in_a_row(void **state)
{
    (void)state;
    for (int32_t size = 2; size <= 5; size++) {
        open_world(size);
        rows = 1;
        num_rounds = 300;
        start(take_turns, size);
        join(size);
        for (int32_t i = 0; i < size; i++)
            assert_true(ranks[i].ok && ranks[i].rounds_done == num_rounds);
        close_world();
    }
}

/* --- ranks that fail -------------------------------------------------------------------------- */

static void check_failed(const struct rank *r, const char *why)
{
    assert_false(r->ok);
    assert_int_equal(r->status.code, STATUS_INTERNAL);
    assert_string_equal(r->status.message, why);
}

static void wait_long(struct rank *r)
{
    atomic_fetch_add(&num_waiting, 1);
    reduce(r);
}

/* The last rank does not come: the others sleep until it says so; and nobody waits afterwards. */
static void test_abort_wakes_the_others(void **state)
{
    (void)state;
    struct status why;
    status_set(&why, STATUS_INTERNAL, "rank 3 is broken");
    open_world(4);
    rows = cols = stride = 3;
    start(wait_long, 3);
    while (num_waiting < 3)
        sched_yield();
    usleep(20000); /* beyond the time that they spin */
    struct rank *last = &ranks[3];
    last->comm->abort(last->comm, &why);
    join(3);
    for (int32_t i = 0; i < 3; i++) {
        check_failed(&ranks[i], why.message);
        assert_memory_equal(ranks[i].after, ranks[i].before, 9 * sizeof(float));
    }
    struct status later;
    status_set(&later, STATUS_INTERNAL, "another reason");
    last->comm->abort(last->comm, &later);
    reduce(last);
    check_failed(last, why.message);
    gather(&ranks[0]);
    check_failed(&ranks[0], why.message);
    root = 0;
    broadcast(&ranks[1]);
    check_failed(&ranks[1], why.message);
    ranks[2].ok = ranks[2].comm->barrier(ranks[2].comm, &ranks[2].status);
    check_failed(&ranks[2], why.message);
    close_world();
}

static void reduce_until_error(struct rank *r)
{
    struct tensor x = view(r->after, cols, cols);
    do {
        r->comm->all_reduce(r->comm, r->device, &x);
        r->rounds_done++;
        r->ok = backend_cpu.sync(r->device, &r->status);
    } while (r->ok);
    free(r->after); /* nobody may read it now */
    r->after = NULL;
}

/* Called off in the midst of it: all stop, after as many rounds. */
static void test_abort_in_the_midst(void **state)
{
    (void)state;
    struct status why;
    status_set(&why, STATUS_INTERNAL, "called off");
    for (int round = 0; round < 60; round++) {
        open_world(2 + round % 4);
        rows = 1 + round % 9;
        cols = 64;
        start(reduce_until_error, num_ranks);
        usleep((useconds_t)random_int(0, 700));
        ranks[0].comm->abort(ranks[1].comm, &why);
        join(num_ranks);
        for (int32_t i = 0; i < num_ranks; i++) {
            check_failed(&ranks[i], why.message);
            assert_int_equal(ranks[i].rounds_done, ranks[0].rounds_done);
        }
        close_world();
    }
}

/* A device's own error does not keep its rank from coming, and stays. */
static void test_errors_of_a_device_stay(void **state)
{
    (void)state;
    open_world(3);
    rows = cols = stride = 2;
    status_set(&ranks[1].device->error, STATUS_INTERNAL, "an op failed");
    start(reduce, 3);
    join(3);
    check_reduced();
    assert_true(ranks[0].ok && ranks[2].ok);
    check_failed(&ranks[1], "an op failed");
    close_world();
}

static int begin(void **state)
{
    (void)state;
    fixture_start();
    hang_alarm(120);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_reduce),
        cmocka_unit_test(test_all_gather),
        cmocka_unit_test(test_broadcast),
        cmocka_unit_test(test_many_in_a_row),
        cmocka_unit_test(test_abort_wakes_the_others),
        cmocka_unit_test(test_abort_in_the_midst),
        cmocka_unit_test(test_errors_of_a_device_stay),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
