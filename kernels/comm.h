/* comm.h - collectives between the ranks of one model.
 *
 * decoder.c calls these after the row-parallel products and cannot tell one kind from another. Like
 * ops they enqueue on the device and do not wait on the host, where the kind can; and what goes
 * wrong sticks to the device. Each struct belongs to its rank's thread. */
#ifndef INFERD_KERNELS_COMM_H
#define INFERD_KERNELS_COMM_H

#include "kernels/device.h"

struct comm {
    int32_t rank, world_size;
    bool can_capture;      /* the collectives may be part of a captured graph */
    char description[160]; /* how the ranks reach each other, for the log */
    /* x = sum over the ranks of x, added in rank order: the same bits at every rank, each time. */
    void (*all_reduce)(struct comm *c, struct device *d, struct tensor *x);
    /* out [rows, world_size * x->cols] = the ranks' x side by side. */
    void (*all_gather)(struct comm *c, struct device *d, struct tensor *out,
                       const struct tensor *x);
    void (*broadcast)(struct comm *c, struct device *d, void *data, size_t size_bytes,
                      int32_t root);
    bool (*barrier)(struct comm *c, struct status *st); /* the one that waits */
    /* Any thread, at any time: a rank will not come to the next collective. The others, waiting for
     * it or still to come, get `why`: as their device's error, or from barrier. For good. */
    void (*abort)(struct comm *c, const struct status *why);
    /* When no rank is in a collective. */
    void (*close)(struct comm *c);
};

/* A world of one: nothing to do, nothing to wait for. */
struct comm *comm_self_open(void);

enum { COMM_LOCAL_MAX_RANKS = 1024 };

/* A world of threads of this process, whose devices can reach each other's memory: the CPU's, or
 * several ranks on one GPU. These collectives do wait, for the device and for the other ranks, so
 * they cannot be part of a captured graph. All ranks must come to the same collectives in the same
 * order, with the same shapes. Fills out[world_size]; each is closed by itself. */
bool comm_local_open(struct comm **out, int32_t world_size, struct status *st);

#endif
