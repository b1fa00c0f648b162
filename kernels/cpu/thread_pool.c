/* thread_pool.c - tasks are claimed from one counter; threads spin, then sleep on a futex.
 *
 * `unclaimed` holds how many tasks of the current job nobody has taken yet. A thread takes one by
 * lowering it, and only then reads the job, which stays as it is until the last task is done. So a
 * worker that sleeps or was preempted takes no part and holds nothing up: an op waits for the tasks
 * that were begun, never for a thread to wake. */
#include "kernels/cpu/thread_pool.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/futex.h"
#include "base/thread.h"
#include "kernels/cpu/cpu_topology.h"

#include <assert.h>
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_THREADS = 1024,
    /* Longer than the gap between two steps, shorter than anyone would notice as load. */
    SPIN_NS = 200 * 1000,
    /* Longer than the ops' usual gaps: no system call in these. */
    SPIN_ALONE_NS = 20 * 1000,
    POLLS_PER_CLOCK = 32
};

/* In `unclaimed`: the pool is being closed. Above any number of tasks. */
#define CLOSING UINT32_MAX

struct worker {
    struct thread_pool *pool;
    pthread_t thread;
    int32_t index; /* 1 and up; the caller of thread_pool_run is 0 */
    int32_t cpu;   /* -1: not pinned */
};

struct thread_pool {
    _Alignas(64) _Atomic uint32_t unclaimed;
    /* The job: written by the owner while `unclaimed` is 0 and nothing is unfinished. */
    uint32_t num_tasks;
    void (*run)(void *arg, int32_t task, int32_t thread);
    void *arg;
    _Alignas(64) _Atomic uint32_t unfinished; /* tasks of the job not done yet */
    _Atomic uint32_t owner_sleeps;
    _Alignas(64) _Atomic uint32_t num_sleeping;
    _Alignas(64) int32_t size;
    int32_t owner_cpu;   /* -1: not pinned */
    int32_t *share_cpus; /* [num_share_cpus]; NULL: there is one share, or no pinning */
    int32_t num_share_cpus;
    bool oversubscribed;    /* more threads than CPUs: whoever spins keeps another from working */
    struct worker *workers; /* [size - 1] */
};

/* Spins until *word is zero (or is not, with `until_zero` false); false when time ran out. After a
 * while it offers the CPU to others between polls: whoever is waited for may be among them. */
static bool spin(const struct thread_pool *p, _Atomic uint32_t *word, bool until_zero)
{
    uint64_t start_ns = 0, spent_ns = 0;
    while (spent_ns < SPIN_NS) {
        for (int i = 0; i < POLLS_PER_CLOCK; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) == 0) == until_zero)
                return true;
            cpu_relax();
        }
        uint64_t now_ns = clock_now_ns();
        if (start_ns == 0)
            start_ns = now_ns;
        spent_ns = now_ns - start_ns;
        if (p->oversubscribed || spent_ns > SPIN_ALONE_NS)
            sched_yield();
    }
    return false;
}

/* Takes tasks until none is left; false when the pool is closing. */
static bool work(struct thread_pool *p, int32_t thread)
{
    uint32_t left = atomic_load_explicit(&p->unclaimed, memory_order_acquire);
    while (left != 0) {
        if (left == CLOSING)
            return false;
        if (!atomic_compare_exchange_weak_explicit(&p->unclaimed, &left, left - 1,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        p->run(p->arg, (int32_t)(p->num_tasks - left), thread);
        /* Sequentially consistent, like the owner's two steps in thread_pool_run: either it sees
         * zero or we see that it sleeps. */
        if (atomic_fetch_sub(&p->unfinished, 1) == 1 && thread != 0 &&
            atomic_load(&p->owner_sleeps) != 0)
            futex_wake(&p->unfinished, 1);
        left = atomic_load_explicit(&p->unclaimed, memory_order_acquire);
    }
    return true;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct thread_pool *p = w->pool;
    if (w->cpu >= 0)
        (void)thread_pin(w->cpu); /* a refusal costs speed only */
    while (work(p, w->index)) {
        if (spin(p, &p->unclaimed, false))
            continue;
        /* The kernel compares again before it sleeps, so a job posted in between is not missed. */
        atomic_fetch_add(&p->num_sleeping, 1);
        if (atomic_load(&p->unclaimed) == 0)
            futex_wait(&p->unclaimed, 0);
        atomic_fetch_sub(&p->num_sleeping, 1);
    }
    return NULL;
}

static bool start_workers(struct thread_pool *p, bool pin, const int32_t *cpus, int32_t num_cpus,
                          struct status *st)
{
    int32_t wanted = p->size;
    p->size = 1; /* how many exist, for close */
    for (int32_t i = 1; i < wanted; i++) {
        struct worker *w = &p->workers[i - 1];
        char name[16];
        snprintf(name, sizeof name, "cpu-%d", i);
        *w = (struct worker){ .pool = p, .index = i, .cpu = pin ? cpus[i % num_cpus] : -1 };
        if (!thread_start(&w->thread, name, worker_main, w, st))
            return status_prefix(st, "thread pool of %d: ", wanted);
        p->size++;
    }
    return true;
}

/* The CPUs of the share; returns how many. */
static int32_t choose_cpus(const struct thread_pool_options *o, int32_t cpus[MAX_THREADS])
{
    int32_t count = thread_allowed_cpus(cpus, MAX_THREADS);
    if (count > MAX_THREADS)
        count = MAX_THREADS;
    if (o->num_shares <= 1)
        return count;
    cpu_topology_sort("", cpus, count);
    return cpu_topology_share(cpus, count, o->share, o->num_shares);
}

/* How many threads are the share's; 0 where the CPUs decide. */
static int32_t share_of_threads(const struct thread_pool_options *o)
{
    if (o->num_threads == 0 || o->num_shares <= 1)
        return o->num_threads;
    return o->num_threads < o->num_shares ? 1 : o->num_threads / o->num_shares;
}

bool thread_pool_open(struct thread_pool **out, const struct thread_pool_options *o,
                      struct status *st)
{
    int32_t cpus[MAX_THREADS];
    *out = NULL;
    if (o->num_threads < 0 || o->num_threads > MAX_THREADS)
        return status_set(st, STATUS_INVALID, "number of threads %d: must be 0 (one per CPU) to %d",
                          o->num_threads, MAX_THREADS);
    int32_t num_cpus = choose_cpus(o, cpus), num_threads = share_of_threads(o);
    bool shared = o->num_shares > 1;
    /* Owners of one CPU would wait for each other while another CPU is idle. */
    bool pin = o->pin && num_cpus > 0 && o->num_shares <= thread_allowed_cpus(NULL, 0);
    if (num_threads == 0)
        num_threads = num_cpus < 1 ? 1 : num_cpus;
    struct thread_pool *p = aligned_alloc(64, sizeof *p);
    if (!p)
        return status_set(st, STATUS_INTERNAL, "thread pool: out of memory");
    *p = (struct thread_pool){ .size = num_threads,
                               .owner_cpu = pin && (num_threads > 1 || shared) ? cpus[0] : -1,
                               .oversubscribed = num_threads > num_cpus };
    p->workers = xcalloc((size_t)num_threads, sizeof *p->workers);
    if (pin && shared) {
        p->num_share_cpus = num_cpus;
        p->share_cpus = xcalloc((size_t)num_cpus, sizeof *p->share_cpus);
        memcpy(p->share_cpus, cpus, (size_t)num_cpus * sizeof *cpus);
    }
    if (!start_workers(p, pin, cpus, num_cpus, st)) {
        thread_pool_close(p);
        return false;
    }
    *out = p;
    return true;
}

void thread_pool_close(struct thread_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->unclaimed, CLOSING);
    futex_wake(&p->unclaimed, INT_MAX);
    for (int32_t i = 1; i < p->size; i++)
        pthread_join(p->workers[i - 1].thread, NULL);
    free(p->workers);
    free(p->share_cpus);
    free(p);
}

/* Where the owner floats, the system likes to wake it on a CPU whose worker sleeps, and the two
 * then take turns while another CPU is idle. */
void thread_pool_bind_owner(const struct thread_pool *p)
{
    if (p->owner_cpu >= 0)
        (void)thread_pin(p->owner_cpu);
}

void thread_pool_bind_helper(const struct thread_pool *p)
{
    if (p->share_cpus)
        (void)thread_set_cpus(p->share_cpus, p->num_share_cpus);
}

int32_t thread_pool_size(const struct thread_pool *p)
{
    return p->size;
}

void thread_pool_run(struct thread_pool *p, int32_t num_tasks,
                     void (*run)(void *arg, int32_t task, int32_t thread), void *arg)
{
    assert(num_tasks >= 0);
    if (num_tasks <= 1 || p->size == 1) {
        for (int32_t i = 0; i < num_tasks; i++)
            run(arg, i, 0);
        return;
    }
    p->num_tasks = (uint32_t)num_tasks;
    p->run = run;
    p->arg = arg;
    atomic_store_explicit(&p->unfinished, (uint32_t)num_tasks, memory_order_relaxed);
    atomic_store(&p->unclaimed, (uint32_t)num_tasks);
    if (atomic_load(&p->num_sleeping) != 0)
        futex_wake(&p->unclaimed, INT_MAX);
    (void)work(p, 0);
    while (!spin(p, &p->unfinished, true)) {
        atomic_store(&p->owner_sleeps, 1);
        uint32_t left = atomic_load(&p->unfinished);
        if (left != 0)
            futex_wait(&p->unfinished, left);
        atomic_store(&p->owner_sleeps, 0);
    }
}
