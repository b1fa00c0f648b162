/* thread.c - pthreads, affinity, and the cgroup's CPU quota. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

bool thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *arg,
                  struct status *st)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return status_set(st, STATUS_INTERNAL, "cannot start thread %s: %s", name, strerror(rc));
    char cut[16];
    snprintf(cut, sizeof cut, "%s", name);
    pthread_setname_np(*thread, cut);
    return true;
}

/* Whole CPUs of the cgroup's quota (v2 cpu.max, v1 cfs_quota_us); INT32_MAX when unlimited. */
static int32_t quota_cpus(void)
{
    long long quota = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f) {
        if (fscanf(f, "%lld %lld", &quota, &period) != 2)
            quota = -1;
        fclose(f);
    } else {
        FILE *q = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r");
        FILE *p = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r");
        if (!q || !p || fscanf(q, "%lld", &quota) != 1 || fscanf(p, "%lld", &period) != 1)
            quota = -1;
        if (q)
            fclose(q);
        if (p)
            fclose(p);
    }
    if (quota <= 0 || period <= 0)
        return INT32_MAX;
    long long whole = quota / period;
    return whole < 1 ? 1 : whole > INT32_MAX ? INT32_MAX : (int32_t)whole;
}

int32_t thread_allowed_cpus(int32_t *cpus, int32_t max)
{
    cpu_set_t set;
    int32_t count = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        CPU_SET(0, &set);
    int32_t limit = quota_cpus();
    for (int32_t cpu = 0; cpu < CPU_SETSIZE && count < limit; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &set))
            continue;
        if (count < max)
            cpus[count] = cpu;
        count++;
    }
    return count;
}

bool thread_set_cpus(const int32_t *cpus, int32_t count)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int32_t i = 0; i < count; i++)
        CPU_SET((size_t)cpus[i], &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0;
}
