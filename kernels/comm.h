/* comm.h - collectives between the ranks of one model.
 *
 * decoder.c calls these after the row-parallel products and cannot tell one kind from another.
 * Like ops they enqueue on the device and never wait on the host. */
#ifndef INFERD_KERNELS_COMM_H
#define INFERD_KERNELS_COMM_H

#include "kernels/device.h"

struct comm {
    int32_t rank, world_size;
    /* x = sum over the ranks of x, in rank order. */
    void (*all_reduce)(struct comm *c, struct device *d, struct tensor *x);
    /* out [rows, world_size * x->cols] = the ranks' x side by side. */
    void (*all_gather)(struct comm *c, struct device *d, struct tensor *out,
                       const struct tensor *x);
    void (*broadcast)(struct comm *c, struct device *d, void *data, size_t size_bytes,
                      int32_t root);
    bool (*barrier)(struct comm *c, struct status *st); /* the one that waits */
    void (*close)(struct comm *c);
};

/* A world of one: nothing to do, nothing to wait for. */
struct comm *comm_self_open(void);

#endif
