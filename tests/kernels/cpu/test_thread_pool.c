/* test_thread_pool.c - each task once, in the threads asked for, and the pool survives being idle,
 * oversubscribed and closed. */
#include "kernels/cpu/thread_pool.h"

#include "base/clock.h"
#include "base/rng.h"
#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { MAX_TASKS = 5000, MAX_POOL = 64 };

struct record {
    int32_t count[MAX_TASKS]; /* plain: one task, one writer; the sanitizer would see otherwise */
    int32_t by_thread[MAX_POOL];
    int32_t size;
    _Atomic int32_t bad_thread;
    _Atomic int64_t sum;
};

static void record_task(void *arg, int32_t task, int32_t thread)
{
    struct record *r = arg;
    r->count[task]++;
    if (thread < 0 || thread >= r->size)
        r->bad_thread = 1;
    else
        r->by_thread[thread]++;
    r->sum += task;
}

static struct record record;

static void run_and_check(struct thread_pool *p, int32_t num_tasks)
{
    int64_t n = num_tasks, total = 0;
    memset(&record, 0, sizeof record);
    record.size = thread_pool_size(p);
    thread_pool_run(p, num_tasks, record_task, &record);
    for (int32_t i = 0; i < num_tasks; i++)
        assert_int_equal(record.count[i], 1);
    for (int32_t i = num_tasks; i < MAX_TASKS; i++)
        assert_int_equal(record.count[i], 0);
    for (int32_t i = 0; i < record.size; i++)
        total += record.by_thread[i];
    assert_int_equal(total, num_tasks);
    assert_int_equal(record.bad_thread, 0);
    assert_int_equal(record.sum, n * (n - 1) / 2);
}

static struct thread_pool *open_pool(int32_t num_threads, bool pin)
{
    struct thread_pool *p = NULL;
    struct status st = { 0 };
    struct thread_pool_options options = { .num_threads = num_threads, .pin = pin };
    if (!thread_pool_open(&p, &options, &st))
        fail_msg("%s", st.message);
    assert_non_null(p);
    return p;
}

static void test_each_task_runs_once(void **state)
{
    (void)state;
    static const int32_t sizes[] = { 1, 2, 3, 4, 16 };
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct thread_pool *p = open_pool(sizes[s], s % 2 == 0);
        assert_int_equal(thread_pool_size(p), sizes[s]);
        for (int32_t n = 0; n < 40; n++)
            run_and_check(p, n);
        run_and_check(p, MAX_TASKS);
        thread_pool_close(p);
    }
}

static void test_zero_threads_means_one_per_cpu(void **state)
{
    (void)state;
    struct thread_pool *p = open_pool(0, true);
    assert_true(thread_pool_size(p) >= 1);
    run_and_check(p, 100);
    thread_pool_close(p);
}

static void test_refuses_absurd_sizes(void **state)
{
    (void)state;
    struct thread_pool *p = NULL;
    struct status st = { 0 };
    assert_false(thread_pool_open(&p, &(struct thread_pool_options){ .num_threads = -1 }, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_null(p);
    assert_false(
        thread_pool_open(&p, &(struct thread_pool_options){ .num_threads = 1 << 20 }, &st));
    assert_non_null(strstr(st.message, "1048576"));
    thread_pool_close(NULL);
}

/* Jobs at random distances, so that workers are met spinning, falling asleep, asleep and waking. */
static void test_survives_idle_times(void **state)
{
    (void)state;
    uint32_t seed;
    rng_system(&seed, sizeof seed);
    print_message("seed %u\n", seed);
    static const int32_t sizes[] = { 2, 6 };
    for (size_t s = 0; s < 2; s++) {
        struct thread_pool *p = open_pool(sizes[s], false);
        for (uint32_t i = 0; i < 400; i++) {
            struct rng_block random = rng_philox(seed, s, i);
            struct timespec pause = { 0, (long)(random.word[0] % 500000) };
            nanosleep(&pause, NULL);
            run_and_check(p, (int32_t)(random.word[1] % 20));
        }
        thread_pool_close(p);
    }
}

static void slow_task(void *arg, int32_t task, int32_t thread)
{
    (void)thread;
    struct timespec pause = { 0, 3000000 };
    if (task == 0)
        nanosleep(&pause, NULL);
    atomic_fetch_add((_Atomic int32_t *)arg, 1);
}

/* The owner outwaits its patience and must be woken by the last task. */
static void test_owner_waits_for_slow_tasks(void **state)
{
    (void)state;
    static const int32_t sizes[] = { 2, 5 };
    for (size_t s = 0; s < 2; s++) {
        struct thread_pool *p = open_pool(sizes[s], false);
        for (int i = 0; i < 20; i++) {
            _Atomic int32_t done = 0;
            thread_pool_run(p, 4, slow_task, &done);
            assert_int_equal(done, 4);
        }
        thread_pool_close(p);
    }
}

static void record_slowly(void *arg, int32_t task, int32_t thread)
{
    struct timespec pause = { 0, 1000000 };
    nanosleep(&pause, NULL);
    record_task(arg, task, thread);
}

static bool all_took_part(const struct record *r)
{
    for (int32_t t = 0; t < r->size; t++)
        if (r->by_thread[t] == 0)
            return false;
    return true;
}

/* After an idle time the workers sleep; a job must wake every one of them. The machine may be busy,
 * so they have seconds to appear. */
static void test_a_job_wakes_the_sleepers(void **state)
{
    (void)state;
    enum { SIZE = 4, TASKS = 20 };
    struct thread_pool *p = open_pool(SIZE, false);
    for (int i = 0; i < 3; i++) {
        struct timespec pause = { 0, 20000000 };
        nanosleep(&pause, NULL);
        memset(&record, 0, sizeof record);
        record.size = SIZE;
        uint64_t start = clock_now_ns();
        while (!all_took_part(&record)) {
            assert_true(clock_seconds_between(start, clock_now_ns()) < 5);
            thread_pool_run(p, TASKS, record_slowly, &record);
        }
    }
    thread_pool_close(p);
}

static void *bind_and_look(void *arg)
{
    struct thread_pool *p = arg;
    static int32_t cpus[4];
    thread_pool_bind_owner(p);
    run_and_check(p, 100);
    return thread_allowed_cpus(cpus, 4) == 1 ? p : NULL;
}

static void test_binds_the_owner(void **state)
{
    (void)state;
    int32_t cpu;
    bool several = thread_allowed_cpus(&cpu, 1) > 1;
    for (int pin = 0; pin < 2; pin++) {
        struct thread_pool *p = open_pool(2, pin);
        struct status st = { 0 };
        pthread_t thread;
        void *bound;
        assert_true(thread_start(&thread, "owner", bind_and_look, p, &st));
        pthread_join(thread, &bound);
        assert_int_equal(bound != NULL, pin || !several);
        thread_pool_close(p);
    }
}

static void empty_task(void *arg, int32_t task, int32_t thread)
{
    (void)arg;
    (void)task;
    (void)thread;
}

/* Threads are divided equally, no share goes without, and a helper may use the share's CPUs only.
 */
static void test_shares(void **state)
{
    (void)state;
    static const int32_t wanted[] = { 7, 2, 1 }, sizes[] = { 2, 1, 1 };
    int32_t all = thread_allowed_cpus(NULL, 0);
    for (int i = 0; i < 3; i++)
        for (int32_t share = 0; share < 3; share++) {
            struct thread_pool_options o = { wanted[i], true, share, 3 };
            struct thread_pool *p;
            struct status st;
            assert_true(thread_pool_open(&p, &o, &st));
            assert_int_equal(thread_pool_size(p), sizes[i]);
            run_and_check(p, 100);
            thread_pool_close(p);
        }
    int32_t total = 0, before[1024], num_before = thread_allowed_cpus(before, 1024);
    for (int32_t share = 0; share < 2; share++) {
        struct thread_pool_options o = { 0, true, share, 2 };
        struct thread_pool *p;
        struct status st;
        assert_true(thread_pool_open(&p, &o, &st));
        total += thread_pool_size(p);
        thread_pool_bind_helper(p);
        assert_int_equal(thread_allowed_cpus(NULL, 0), thread_pool_size(p));
        assert_true(thread_set_cpus(before, num_before));
        thread_pool_close(p);
    }
    assert_int_equal(total, all < 2 ? 2 : all / 2 * 2);
}

static void test_prints_latency(void **state)
{
    (void)state;
    enum { RUNS = 20000 };
    struct thread_pool *p = open_pool(0, true);
    thread_pool_run(p, 64, empty_task, NULL);
    uint64_t start = clock_now_ns();
    for (int i = 0; i < RUNS; i++)
        thread_pool_run(p, 2 * thread_pool_size(p), empty_task, NULL);
    print_message("a job of empty tasks on %d threads: %.0f ns\n", thread_pool_size(p),
                  (double)(clock_now_ns() - start) / RUNS);
    thread_pool_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_task_runs_once),
        cmocka_unit_test(test_zero_threads_means_one_per_cpu),
        cmocka_unit_test(test_refuses_absurd_sizes),
        cmocka_unit_test(test_survives_idle_times),
        cmocka_unit_test(test_owner_waits_for_slow_tasks),
        cmocka_unit_test(test_a_job_wakes_the_sleepers),
        cmocka_unit_test(test_binds_the_owner),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_prints_latency),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
