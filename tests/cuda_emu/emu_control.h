/* emu_control.h - what a test can ask of the emulated CUDA, and what it records. Found by dlsym in
 * inferd_cuda_emu.so. */
#ifndef INFERD_TESTS_CUDA_EMU_EMU_CONTROL_H
#define INFERD_TESTS_CUDA_EMU_EMU_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emu_record {
    int64_t allocations, frees; /* of device and pinned memory */
    int64_t launches, copies, syncs, graph_launches;
    int64_t graphs;                    /* held now */
    size_t device_bytes, pinned_bytes; /* held now */
};

void emu_get_record(struct emu_record *out);
/* The `after`th call from now on of the runtime's function of that name returns `error`. */
void emu_fail(const char *function, int after, int error);
/* What cudaGetDeviceProperties says: the compute capability, and how much memory there is. */
void emu_set_device(int major, int minor, size_t total_bytes);
/* So many devices, alike, and whether they can be given access to each other's memory. Else there
 * are as many as EMU_DEVICE_COUNT in the environment says, or one. */
void emu_set_device_count(int count, int reach_each_other);

#ifdef __cplusplus
}

/* For libraries that the emulated device has beside its runtime: work in a stream, whether an
 * address is the device's, and time that the device's clock shall pass while it works. */
#include <functional>
struct CUstream_st;
extern "C" {
void emu_enqueue(struct CUstream_st *stream, const std::function<void()> &work);
bool emu_is_device(const void *at);
void emu_take_time(double ms);
/* Calls `piece` for the addresses that device memory has, then for each of pinned memory, rising.
 */
void emu_get_memory(void (*piece)(void *arg, int is_device, const char *begin, size_t bytes),
                    void *arg);
}
#endif

#endif
