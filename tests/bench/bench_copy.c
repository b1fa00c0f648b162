/* bench_copy.c - what copying on a device reaches, through the backend's own calls: the yardstick
 * for everything that streams weights. bench_copy PLUGIN [MiB] */
#include "base/clock.h"
#include "kernels/plugin.h"

#include <stdio.h>
#include <stdlib.h>

static int failed(const struct status *st)
{
    fprintf(stderr, "bench_copy: %s\n", st->message);
    return 1;
}

int main(int argc, char **argv)
{
    enum { COPIES = 10, ROUNDS = 5 };
    struct status st;
    struct device *d;
    struct device_options options = { 0 };
    struct buffer from, to;
    const size_t bytes = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1024) << 20;
    double best = 0;
    const struct backend *backend = argc > 1 ? backend_load(argv[1], &st) : &backend_cpu;
    if (!backend || !backend->open(&d, &options, &st) ||
        !backend->alloc(d, &from, bytes, MEMORY_DEVICE, &st) ||
        !backend->alloc(d, &to, bytes, MEMORY_DEVICE, &st))
        return failed(&st);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t begin = clock_now_ns();
        for (int i = 0; i < COPIES; i++)
            backend->copy(d, to.data, from.data, bytes, COPY_ON_DEVICE);
        if (!backend->sync(d, &st))
            return failed(&st);
        double rate =
            2.0e-9 * COPIES * (double)bytes / clock_seconds_between(begin, clock_now_ns());
        best = rate > best ? rate : best;
    }
    printf("%s: copying on the device reads and writes %.1f GB/s\n", d->description, best);
    backend->free(d, &from);
    backend->free(d, &to);
    backend->close(d);
    return 0;
}
