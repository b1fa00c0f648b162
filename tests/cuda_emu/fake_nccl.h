/* fake_nccl.h - what a test can ask of the library that stands in for NCCL. Found by dlsym in
 * libnccl.so.2 of the build. */
#ifndef INFERD_TESTS_CUDA_EMU_FAKE_NCCL_H
#define INFERD_TESTS_CUDA_EMU_FAKE_NCCL_H

#include <stddef.h>

enum fake_nccl_kind {
    FAKE_GROUP_START,
    FAKE_GROUP_END,
    FAKE_SEND,
    FAKE_RECV,
    FAKE_ALL_GATHER,
    FAKE_BROADCAST,
    FAKE_COMM_INIT_ALL,
    FAKE_COMM_DESTROY,
    FAKE_COMM_ABORT
};

/* One call, in the order in which they came; rank and peer are -1 where there is none. */
struct fake_nccl_call {
    enum fake_nccl_kind kind;
    int rank, peer; /* peer: also the root */
    const void *src;
    void *dst;
    size_t count;
    int type;
};

/* Copies up to `capacity` calls since the last fake_nccl_clear; returns how many there were. */
size_t fake_nccl_calls(struct fake_nccl_call *out, size_t capacity);
void fake_nccl_clear(void);
/* The next call of that kind returns `result`, once, and does nothing. */
void fake_nccl_fail(enum fake_nccl_kind kind, int result);
void fake_nccl_set_version(int version);

#endif
