/* cpu_clock.h - CPU time of the calling thread, which what else runs on a machine disturbs less
 * than the time of day. */
#ifndef INFERD_TESTS_BENCH_CPU_CLOCK_H
#define INFERD_TESTS_BENCH_CPU_CLOCK_H

#include <time.h>

static inline double clock_cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
