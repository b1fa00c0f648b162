/* thread.h - named threads and the CPUs this process may use. */
#ifndef INFERD_BASE_THREAD_H
#define INFERD_BASE_THREAD_H

#include "base/status.h"
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Starts a thread with all signals blocked (the main thread takes them). `name`: up to 15 bytes. */
bool thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *arg,
                  struct status *st);
/* The CPUs the scheduler lets this process use, in rising order; returns how many there are,
 * writing at most `max` of them. Affinity is honoured; a cgroup's CPU quota rounds it down. */
int32_t thread_allowed_cpus(int32_t *cpus, int32_t max);
/* Keeps the calling thread, and those it starts, on these CPUs; false where the system refuses,
 * which costs speed only. */
bool thread_set_cpus(const int32_t *cpus, int32_t count);
static inline bool thread_pin(int32_t cpu)
{
    return thread_set_cpus(&cpu, 1);
}

#endif
