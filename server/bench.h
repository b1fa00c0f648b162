/* bench.h - `inferd bench`: prefill and decode speed of the real engine, without HTTP. */
#ifndef INFERD_SERVER_BENCH_H
#define INFERD_SERVER_BENCH_H

#include "config/config.h"

/* Measures prefill at each --bench-input-len and decode at each --bench-batch-size, prints a table
 * or JSON to standard output, and returns the process's exit code. */
int bench_run(const struct config *config);

#endif
