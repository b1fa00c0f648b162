/* cpu_rows.h - running an op over rows: on the calling thread when there is little to do, else cut
 * into tasks for the pool. Private to kernels/cpu. How rows are cut never shows in the results. */
#ifndef INFERD_KERNELS_CPU_CPU_ROWS_H
#define INFERD_KERNELS_CPU_CPU_ROWS_H

#include "kernels/cpu/cpu_device.h"

/* Below this many elements an op takes a few microseconds, about what waking a thread costs. */
enum { CPU_MIN_PARALLEL_ELEMENTS = 32768 };

struct cpu_rows {
    void (*run)(const void *arg, int32_t row_begin, int32_t row_end);
    const void *arg;
    int32_t num_rows, rows_per_task;
};

static inline void cpu_rows_task(void *arg, int32_t task, int32_t thread)
{
    const struct cpu_rows *r = arg;
    int32_t begin = task * r->rows_per_task;
    int32_t left = r->num_rows - begin;
    (void)thread;
    r->run(r->arg, begin, begin + (left < r->rows_per_task ? left : r->rows_per_task));
}

/* Calls run(arg, begin, end) so that [0, num_rows) is covered once. */
static inline void cpu_run_rows(struct cpu_device *d, int32_t num_rows, int64_t elements_per_row,
                                void (*run)(const void *arg, int32_t begin, int32_t end),
                                const void *arg)
{
    if (num_rows <= 0)
        return;
    if (d->num_threads == 1 || num_rows * elements_per_row < CPU_MIN_PARALLEL_ELEMENTS) {
        run(arg, 0, num_rows);
        return;
    }
    /* A few tasks per thread, so that one which comes late does not hold up the rest. */
    int32_t tasks = num_rows < 4 * d->num_threads ? num_rows : 4 * d->num_threads;
    int32_t per_task = (num_rows + tasks - 1) / tasks;
    struct cpu_rows rows = { run, arg, num_rows, per_task };
    thread_pool_run(d->pool, (num_rows + per_task - 1) / per_task, cpu_rows_task, &rows);
}

#endif
