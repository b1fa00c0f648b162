/* cpu_memory.h - how much memory this process may still take. Private to kernels/cpu. */
#ifndef INFERD_KERNELS_CPU_CPU_MEMORY_H
#define INFERD_KERNELS_CPU_CPU_MEMORY_H

#include "base/status.h"
#include "kernels/device.h"

/* The smaller of what the machine has and what each cgroup above the process allows. `root` is put
 * in front of every path read: "" for the running system, another tree for a test. */
bool cpu_memory_info(const char *root, struct memory_info *out, struct status *st);

#endif
