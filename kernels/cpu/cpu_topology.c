/* cpu_topology.c - CPUs in the order of the hardware. */
#include "kernels/cpu/cpu_topology.h"

#include "base/alloc.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cpu_place {
    int32_t node, package, core, cpu;
};

/* The number in a file of the CPU's folder; 0 when there is none. */
static int32_t read_number(const char *root, int32_t cpu, const char *file)
{
    char path[PATH_MAX];
    int value = 0;
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/%s", root, (int)cpu, file);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    if (fscanf(f, "%d", &value) != 1)
        value = 0;
    fclose(f);
    return value;
}

/* The CPU's folder has a link node<N> to that of its node. */
static int32_t read_node(const char *root, int32_t cpu)
{
    char path[PATH_MAX];
    int node = 0;
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d", root, (int)cpu);
    DIR *dir = opendir(path);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir))
        if (strncmp(e->d_name, "node", 4) == 0 && sscanf(e->d_name + 4, "%d", &node) == 1)
            break;
    if (dir)
        closedir(dir);
    return node;
}

static int compare(int32_t a, int32_t b)
{
    return (a > b) - (a < b);
}

static int by_place(const void *a, const void *b)
{
    const struct cpu_place *x = a, *y = b;
    int order = compare(x->node, y->node);
    order = order ? order : compare(x->package, y->package);
    order = order ? order : compare(x->core, y->core);
    return order ? order : compare(x->cpu, y->cpu);
}

void cpu_topology_sort(const char *root, int32_t *cpus, int32_t count)
{
    struct cpu_place *places = xcalloc((size_t)count + 1, sizeof *places);
    for (int32_t i = 0; i < count; i++)
        places[i] = (struct cpu_place){ .node = read_node(root, cpus[i]),
                                        .package = read_number(root, cpus[i],
                                                               "topology/physical_package_id"),
                                        .core = read_number(root, cpus[i], "topology/core_id"),
                                        .cpu = cpus[i] };
    qsort(places, (size_t)count, sizeof *places, by_place);
    for (int32_t i = 0; i < count; i++)
        cpus[i] = places[i].cpu;
    free(places);
}

int32_t cpu_topology_share(int32_t *cpus, int32_t count, int32_t share, int32_t num_shares)
{
    int32_t begin = (int32_t)((int64_t)count * share / num_shares);
    int32_t size = count / num_shares;
    if (count < num_shares) {
        begin = count > 0 ? share % count : 0;
        size = count > 0 ? 1 : 0;
    }
    if (size > 0)
        memmove(cpus, cpus + begin, (size_t)size * sizeof *cpus);
    return size;
}
