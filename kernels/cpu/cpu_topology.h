/* cpu_topology.h - which CPUs are neighbours, as the system's files in /sys tell. */
#ifndef INFERD_KERNELS_CPU_CPU_TOPOLOGY_H
#define INFERD_KERNELS_CPU_CPU_TOPOLOGY_H

#include <stdint.h>

/* Sorts by NUMA node, then package, then core, then number, so that CPUs which share memory or a
 * core stand together. What /sys does not tell counts as equal. `root` stands before /sys: "" but
 * in tests. */
void cpu_topology_sort(const char *root, int32_t *cpus, int32_t count);
/* One of `num_shares` equal shares of consecutive CPUs, which `cpus` is cut down to; returns how
 * many they are. CPUs that would make shares unequal are in none, since ranks wait for the slowest.
 * Where there are fewer CPUs than shares, several shares are the same CPU. */
int32_t cpu_topology_share(int32_t *cpus, int32_t count, int32_t share, int32_t num_shares);

#endif
