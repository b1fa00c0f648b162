/* clock.h - time. Durations use the monotonic clock; only what clients see uses the wall clock. */
#ifndef INFERD_BASE_CLOCK_H
#define INFERD_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_now_ns(void); /* monotonic */
int64_t clock_unix_s(void);  /* wall clock */
double clock_seconds_between(uint64_t start_ns, uint64_t end_ns);

#endif
