/* nccl_api.h - NCCL, as far as it is used here, found at run time: the plug-in also works where it
 * is not installed.
 *
 * The declarations are our own; names, values and arguments are those of NCCL's documentation, and
 * the same in all versions from NCCL_MIN_VERSION on. */
#ifndef INFERD_KERNELS_CUDA_NCCL_API_H
#define INFERD_KERNELS_CUDA_NCCL_API_H

#include "base/status.h"

#include <cuda_runtime_api.h>

typedef struct ncclComm *ncclComm_t;
typedef int nccl_result; /* ncclResult_t */

enum { NCCL_SUCCESS = 0 };
enum { NCCL_UINT8 = 1, NCCL_FLOAT32 = 7 }; /* ncclDataType_t */
enum { NCCL_MIN_VERSION = 21800 };         /* as ncclGetVersion says it: 2.18.0 */

struct nccl_api {
    nccl_result (*get_version)(int *version);
    const char *(*get_error_string)(nccl_result result);
    const char *(*get_last_error)(ncclComm_t comm); /* of this process, with NULL */
    nccl_result (*comm_init_all)(ncclComm_t *comms, int count, const int *devices);
    nccl_result (*comm_destroy)(ncclComm_t comm);
    nccl_result (*comm_abort)(ncclComm_t comm);
    nccl_result (*group_start)(void);
    nccl_result (*group_end)(void);
    nccl_result (*send)(const void *src, size_t count, int type, int peer, ncclComm_t comm,
                        cudaStream_t stream);
    nccl_result (*recv)(void *dst, size_t count, int type, int peer, ncclComm_t comm,
                        cudaStream_t stream);
    nccl_result (*all_gather)(const void *src, void *dst, size_t count, int type, ncclComm_t comm,
                              cudaStream_t stream);
    nccl_result (*broadcast)(const void *src, void *dst, size_t count, int type, int root,
                             ncclComm_t comm, cudaStream_t stream);
    int version;
};

/* libnccl.so.2, wherever the system's loader finds it; it stays loaded. NULL, with the reason, when
 * there is none that can be used. One thread at a time. */
const struct nccl_api *nccl_load(struct status *st);
/* The result in words, into st; `what` was being done. Returns false. */
bool nccl_failed(const struct nccl_api *nccl, struct status *st, nccl_result result,
                 const char *what);

#endif
