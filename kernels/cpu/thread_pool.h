/* thread_pool.h - the CPU backend's workers: one per CPU, pinned, woken per op.
 *
 * Owned by one cpu device. Only the thread that owns the device calls thread_pool_run, which takes
 * part in the work as thread 0 and returns when every task is done. Between ops the workers spin
 * for a short while, then sleep. What a task computes must not depend on which thread runs it. */
#ifndef INFERD_KERNELS_CPU_THREAD_POOL_H
#define INFERD_KERNELS_CPU_THREAD_POOL_H

#include "base/status.h"
#include <stdint.h>

struct thread_pool;

struct thread_pool_options {
    int32_t num_threads; /* 0: one per allowed CPU */
    bool pin;            /* each worker stays on a CPU of its own, where there are enough */
    /* The pool takes one of so many equal shares of the CPUs and of num_threads, rounded down, but
     * at least one thread. num_shares 0: all of them. */
    int32_t share, num_shares;
};

bool thread_pool_open(struct thread_pool **out, const struct thread_pool_options *options,
                      struct status *st);
void thread_pool_close(struct thread_pool *p);
/* Gives the calling thread, which will call thread_pool_run, the CPU that `pin` left for it. */
void thread_pool_bind_owner(const struct thread_pool *p);
/* Keeps the calling thread, and those it starts, on the CPUs of the pool's share. */
void thread_pool_bind_helper(const struct thread_pool *p);
int32_t thread_pool_size(const struct thread_pool *p);
/* Calls run(arg, task, thread) once for each task in [0, num_tasks), tasks handed out in order;
 * thread in [0, size) tells which scratch memory is the task's own. */
void thread_pool_run(struct thread_pool *p, int32_t num_tasks,
                     void (*run)(void *arg, int32_t task, int32_t thread), void *arg);

#endif
