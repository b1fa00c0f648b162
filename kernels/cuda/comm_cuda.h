/* comm_cuda.h - the ranks of a world, each on a GPU of its own. Private to kernels/cuda.
 *
 * Two ways to the other ranks stand behind one struct comm: their memory, read by a kernel of ours
 * (peer.cu), and NCCL. Both add in the order of the ranks, so that they give the same bits and the
 * size of a message may choose between them. */
#ifndef INFERD_KERNELS_CUDA_COMM_CUDA_H
#define INFERD_KERNELS_CUDA_COMM_CUDA_H

#include "kernels/comm.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/nccl_api.h"

#include <stdatomic.h>

enum { CUDA_MAX_RANKS = 64 };

struct cuda_world {
    int32_t size;
    _Atomic int32_t num_open;
    bool has_peers;              /* every GPU reaches every other one's memory */
    const struct nccl_api *nccl; /* NULL: there is none */
    _Atomic bool called_off;
    uint32_t *called_off_host; /* the same for kernels: pinned */

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct status failure; /* why it was called off */
    int32_t arrived;       /* at the barrier */
    uint32_t meeting;
    struct cuda_comm *ranks[CUDA_MAX_RANKS];
};

struct cuda_comm {
    struct comm base; /* first, so that a struct comm * can be cast */
    struct cuda_world *world;
    struct cuda_device *device;
    struct cuda_peers peers;
    void *memory; /* this rank's staging and flags, which `peers` of all ranks point into */
    /* Held while operations are put into the stream, and while NCCL's communicator is taken away.
     */
    pthread_mutex_t nccl_mutex;
    ncclComm_t nccl; /* NULL: none, or called off */
};

/* comm_cuda.c */
bool cuda_comm_open(struct comm **out, struct device *const *devices, int32_t world_size,
                    struct status *st);

/* comm_nccl.c: one communicator for each rank, which have met once, so that nothing is left to be
 * set up later. */
bool cuda_nccl_open(struct cuda_comm *const *ranks, int32_t world_size, struct status *st);
void cuda_nccl_all_reduce(struct cuda_comm *c, const struct tensor *x);
void cuda_nccl_all_gather(struct cuda_comm *c, const struct tensor *out, const struct tensor *x);
void cuda_nccl_broadcast(struct cuda_comm *c, void *data, size_t size_bytes, int32_t root);

#endif
