/* runtime.h - what the parts of the emulated CUDA runtime share. All of it belongs to `mutex`.
 *
 * Nothing runs when it is enqueued. Each stream is a queue of closures, run when something waits
 * for it, so that a host that reads a result too early, or reuses a buffer too early, is seen.
 * A closure that waits for another stream is tried again later: other streams run meanwhile, and
 * other threads of the host, which may still have to enqueue what it waits for.
 * Device memory lies apart from all other memory and can be touched only while its device runs, or
 * one that was given access: a host that looks at a device address faults. Every piece ends at a
 * page that cannot be touched. */
#ifndef INFERD_TESTS_CUDA_EMU_RUNTIME_H
#define INFERD_TESTS_CUDA_EMU_RUNTIME_H

#include "tests/cuda_emu/emu_control.h"
#include "tests/cuda_emu/include/cuda_runtime.h"

#include <deque>
#include <functional>
#include <mutex>
#include <vector>

/* A piece of work in a stream. */
struct emu_work {
    std::function<bool()> run; /* false: it waits for something, and must be run again */
    bool is_kernel;            /* reaches the memory of its device; copies reach all */
};
struct CUgraph_st {
    std::vector<emu_work> work;
};
struct CUstream_st {
    std::deque<emu_work> queue;
    CUgraph_st *capturing = nullptr;
    int device = 0;
    uint64_t stuck_at = 0; /* how far all streams were after the last try */
};

namespace emu
{

enum { MAX_DEVICES = 8, ALL_DEVICES = -1 };

/* Recursive: work that runs calls the runtime, too. */
extern std::recursive_mutex mutex;
extern emu_record record;
using guard = std::lock_guard<std::recursive_mutex>;
using unique_guard = std::unique_lock<std::recursive_mutex>;

/* --- errors.cc: what a call returns */
/* What the caller of `function` must be told, if a test has asked for it. */
cudaError_t enter(const char *function);
/* Returns the error, which cudaGetLastError of this thread says, too. */
cudaError_t refuse(cudaError_t error);

/* --- device.cc: how many devices there are, what each is, and what it holds */
int device_count();
int current_device(); /* of this thread */
/* Whether work on `device` reaches the memory of `peer`. */
bool reaches(int device, int peer);
/* Of shared memory, that a block of this kernel may ask for. */
size_t shared_limit(const void *kernel);
/* Takes device memory into account; false: there is not so much left. */
bool take_bytes(int device, size_t bytes);
void give_bytes_back(int device, size_t bytes);

/* --- memory.cc: device memory and pinned memory */
bool is_device(const void *at);
/* Brings the memory into reach that work on `device` reaches, and no other; ALL_DEVICES: all. */
void reach_from(int device);
void reach_none();

/* --- stream.cc: streams and events */
/* Into the stream, or into the graph that it captures. */
void enqueue_work(cudaStream_t stream, emu_work work);
void enqueue(cudaStream_t stream, std::function<void()> copy);
/* Returns when all that the stream holds has run. */
void finish(unique_guard &lock, cudaStream_t stream);

/* --- graph.cc: captures and graphs */
bool is_capturing(); /* this thread, any stream */
/* As enter, for calls that allocate or wait: during a capture they fail, and the capture with them.
 */
cudaError_t enter_outside_captures(const char *function);

} // namespace emu

#endif
