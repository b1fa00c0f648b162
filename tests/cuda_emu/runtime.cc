/* runtime.cc - the CUDA runtime of the emulated device.
 *
 * Nothing runs when it is enqueued. Each stream is a queue of closures, run when something waits
 * for it, so that a host that reads a result too early, or reuses a buffer too early, is seen.
 * Device memory lies apart from all other memory and can be touched only while the device runs: a
 * host that looks at a device address faults. Every piece ends at a page that cannot be touched. */
#include "tests/cuda_emu/include/cuda_runtime.h"
#include "tests/cuda_emu/emu_control.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(address, size)   ((void)(address), (void)(size))
#define __asan_unpoison_memory_region(address, size) ((void)(address), (void)(size))
#endif

namespace
{

const size_t PAGE = 4096, ALIGNMENT = 256;
const size_t RESERVED_BYTES = (size_t)64 << 30; /* of addresses, not of memory */
const size_t GRAPH_NODE_BYTES = 1 << 10;
const int USUAL_SHARED_BYTES = 48 << 10; /* of a block whose kernel has not asked for more */

struct piece {
    size_t bytes, mapped_bytes; /* asked for; whole pages, without the guard behind */
    char *mapped;
};

std::recursive_mutex mutex;
std::map<char *, piece> pieces;        /* device memory, by address */
std::map<const char *, size_t> pinned; /* host memory that cudaHostAlloc gave */
char *region;
size_t region_used;
size_t total_bytes = (size_t)2 << 30;
int major_version = 9, minor_version = 0;
emu_record record;
cudaError_t last_error = cudaSuccess, stuck = cudaSuccess;
std::map<const void *, int> shared_limits; /* of kernels that have asked for more than is usual */
std::string fail_function;
int fail_after = 0;
cudaError_t fail_error;
int running;                   /* depth: device memory is in reach */
thread_local int capturing;    /* streams that this thread captures */
thread_local bool invalidated; /* its capture, by a call that none may hold */

using guard = std::lock_guard<std::recursive_mutex>;

/* Shared memory that a block may ask for on a GPU of this compute capability (CUDA's programming
 * guide, technical specifications). */
int max_shared_bytes()
{
    if (major_version == 8)
        return (minor_version == 0 || minor_version == 7 ? 163 : 99) << 10;
    return (major_version == 12 ? 99 : 227) << 10;
}

size_t shared_limit(const void *kernel)
{
    const auto found = shared_limits.find(kernel);
    return found != shared_limits.end() && found->second > USUAL_SHARED_BYTES ? found->second
                                                                              : USUAL_SHARED_BYTES;
}

/* What the caller of `function` must be told, if a test has asked for it. */
cudaError_t enter(const char *function)
{
    if (fail_after > 0 && fail_function == function && --fail_after == 0) {
        last_error = fail_error;
        return fail_error;
    }
    return stuck;
}

cudaError_t refuse(cudaError_t error)
{
    last_error = error;
    return error;
}

/* Calls that allocate or wait: during a capture they fail, and the capture with them. */
cudaError_t enter_outside_captures(const char *function)
{
    if (capturing == 0)
        return enter(function);
    invalidated = true;
    return refuse(cudaErrorStreamCaptureUnsupported);
}

void protect(int rights)
{
    for (auto &p : pieces)
        if (mprotect(p.second.mapped, p.second.mapped_bytes, rights) != 0)
            emu_die("mprotect failed");
}

/* The device runs `work`. */
void run(const std::function<void()> &work)
{
    if (running++ == 0)
        protect(PROT_READ | PROT_WRITE);
    work();
    if (--running == 0)
        protect(PROT_NONE);
}

bool is_pinned(const void *at)
{
    auto p = pinned.upper_bound((const char *)at);
    if (p == pinned.begin())
        return false;
    --p;
    return (const char *)at < p->first + p->second;
}

bool is_device(const void *at)
{
    return region && (const char *)at >= region && (const char *)at < region + region_used;
}

} // namespace

struct CUgraph_st {
    std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
    std::vector<std::function<void()>> work;
    size_t bytes; /* of device memory, which the driver takes for it */
};
struct CUstream_st {
    std::deque<std::function<void()>> queue;
    CUgraph_st *capturing = nullptr;
};
struct CUevent_st {
    CUstream_st *stream = nullptr; /* where it still waits to be reached */
};

namespace
{

void drain(cudaStream_t s)
{
    if (s->queue.empty())
        return;
    run([s] {
        while (!s->queue.empty()) {
            auto work = std::move(s->queue.front());
            s->queue.pop_front();
            work();
        }
    });
}

void enqueue(cudaStream_t s, std::function<void()> work)
{
    if (!s)
        emu_die("work in the default stream, which waits for all others");
    if (s->capturing)
        s->capturing->work.push_back(std::move(work));
    else
        s->queue.push_back(std::move(work));
}

} // namespace

void emu_launch_grid(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                     cudaStream_t stream, std::function<void()> body)
{
    guard g(mutex);
    cudaError_t error = enter("launch");
    if (error == cudaSuccess &&
        (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 ||
         grid.z > 65535 || block.x * block.y * block.z < 1 ||
         block.x * block.y * block.z > EMU_MAX_THREADS || shared_bytes > shared_limit(kernel)))
        error = cudaErrorInvalidConfiguration;
    if (error != cudaSuccess) {
        last_error = error;
        return;
    }
    record.launches++;
    enqueue(stream, [=] {
        emu_run_grid(
            grid, block, shared_bytes, [](void *arg) { (*(const std::function<void()> *)arg)(); },
            (void *)&body);
    });
}

extern "C" {

void emu_get_record(struct emu_record *out)
{
    guard g(mutex);
    *out = record;
}

void emu_fail(const char *function, int after, int error)
{
    guard g(mutex);
    fail_function = function;
    fail_after = after;
    fail_error = (cudaError_t)error;
}

void emu_set_device(int major, int minor, size_t bytes)
{
    guard g(mutex);
    major_version = major;
    minor_version = minor;
    total_bytes = bytes;
}

/* --- device ----------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
    guard g(mutex);
    *count = 1;
    return enter("cudaGetDeviceCount");
}

cudaError_t cudaSetDevice(int device)
{
    guard g(mutex);
    return device == 0 ? enter("cudaSetDevice") : refuse(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    guard g(mutex);
    if (device != 0)
        return refuse(cudaErrorInvalidDevice);
    *out = {};
    snprintf(out->name, sizeof out->name, "emulated device");
    out->totalGlobalMem = total_bytes;
    out->sharedMemPerBlockOptin = max_shared_bytes();
    out->major = major_version;
    out->minor = minor_version;
    out->multiProcessorCount = 4;
    return enter("cudaGetDeviceProperties");
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return enter("cudaDriverGetVersion");
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    guard g(mutex);
    *total = total_bytes;
    *free_bytes = total_bytes - record.device_bytes;
    return enter("cudaMemGetInfo");
}

cudaError_t cudaGetLastError(void)
{
    guard g(mutex);
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    guard g(mutex);
    return last_error;
}

/* --- memory ----------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **out, size_t size_bytes)
{
    guard g(mutex);
    cudaError_t error = enter_outside_captures("cudaMalloc");
    *out = nullptr;
    if (error != cudaSuccess)
        return error;
    if (size_bytes > total_bytes - record.device_bytes)
        return refuse(cudaErrorMemoryAllocation);
    if (!region) {
        region = (char *)mmap(NULL, RESERVED_BYTES, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (region == MAP_FAILED)
            emu_die("no addresses for device memory");
    }
    size_t bytes = (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    if (region_used + mapped + PAGE > RESERVED_BYTES)
        return refuse(cudaErrorMemoryAllocation);
    piece p = { size_bytes, mapped, region + region_used };
    region_used += mapped + PAGE;
    char *at = p.mapped + (mapped - bytes);
    if (mprotect(p.mapped, mapped, PROT_READ | PROT_WRITE) != 0)
        return refuse(cudaErrorMemoryAllocation);
    if (size_bytes < (64u << 20)) /* fresh memory is not zero on a device */
        memset(at, 0xa5, size_bytes);
    __asan_poison_memory_region(p.mapped, mapped);
    __asan_unpoison_memory_region(at, size_bytes);
    if (!running)
        mprotect(p.mapped, mapped, PROT_NONE);
    pieces[at] = p;
    record.allocations++;
    record.device_bytes += size_bytes;
    *out = at;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    guard g(mutex);
    auto p = pieces.find((char *)memory);
    if (!memory)
        return cudaSuccess;
    if (capturing > 0)
        return enter_outside_captures("cudaFree");
    if (p == pieces.end())
        emu_die("cudaFree of what cudaMalloc did not give");
    __asan_unpoison_memory_region(p->second.mapped, p->second.mapped_bytes);
    /* The addresses are not used again: late users fault. The memory goes back. */
    mmap(p->second.mapped, p->second.mapped_bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    record.frees++;
    record.device_bytes -= p->second.bytes;
    pieces.erase(p);
    return enter("cudaFree");
}

cudaError_t cudaHostAlloc(void **out, size_t size_bytes, unsigned int flags)
{
    guard g(mutex);
    (void)flags;
    cudaError_t error = enter_outside_captures("cudaHostAlloc");
    *out = nullptr;
    if (error != cudaSuccess)
        return error;
    if (posix_memalign(out, PAGE, size_bytes) != 0)
        return refuse(cudaErrorMemoryAllocation);
    memset(*out, 0xa5, size_bytes);
    pinned[(const char *)*out] = size_bytes;
    record.allocations++;
    record.pinned_bytes += size_bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    guard g(mutex);
    auto p = pinned.find((const char *)memory);
    if (!memory)
        return cudaSuccess;
    if (p == pinned.end())
        emu_die("cudaFreeHost of what cudaHostAlloc did not give");
    record.frees++;
    record.pinned_bytes -= p->second;
    pinned.erase(p);
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    guard g(mutex);
    cudaError_t error = enter("cudaMemcpyAsync");
    if (error != cudaSuccess)
        return error;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    if (width > dst_pitch || width > src_pitch || kind == cudaMemcpyDefault ||
        is_device(src) != from_device || is_device(dst) != to_device)
        return refuse(cudaErrorInvalidValue);
    record.copies++;
    if (kind == cudaMemcpyHostToDevice && !is_pinned(src)) {
        if (stream->capturing)
            return refuse(cudaErrorStreamCaptureUnsupported);
        /* Pageable memory has been read when the call returns. */
        std::vector<char> kept(width * height);
        for (size_t r = 0; r < height; r++)
            memcpy(kept.data() + r * width, (const char *)src + r * src_pitch, width);
        enqueue(stream, [=] {
            for (size_t r = 0; r < height; r++)
                memcpy((char *)dst + r * dst_pitch, kept.data() + r * width, width);
        });
        return cudaSuccess;
    }
    enqueue(stream, [=] {
        for (size_t r = 0; r < height; r++)
            memmove((char *)dst + r * dst_pitch, (const char *)src + r * src_pitch, width);
    });
    if (kind == cudaMemcpyDeviceToHost && !is_pinned(dst))
        drain(stream);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t size_bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return cudaMemcpy2DAsync(dst, size_bytes, src, size_bytes, size_bytes, 1, kind, stream);
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t size_bytes, cudaStream_t stream)
{
    guard g(mutex);
    cudaError_t error = enter("cudaMemsetAsync");
    if (error != cudaSuccess)
        return error;
    if (!is_device(memory))
        return refuse(cudaErrorInvalidValue);
    auto p = pieces.find((char *)memory);
    bool fresh_pages = value == 0 && p != pieces.end() && p->second.bytes == size_bytes &&
                       size_bytes >= (64u << 20);
    if (!fresh_pages) /* else untouched: the system gives zeros */
        enqueue(stream, [=] { memset(memory, value, size_bytes); });
    return cudaSuccess;
}

/* --- streams, events, graphs ------------------------------------------------------------------ */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned int flags)
{
    guard g(mutex);
    (void)flags;
    cudaError_t error = enter("cudaStreamCreateWithFlags");
    *out = error == cudaSuccess ? new CUstream_st : nullptr;
    return error;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    guard g(mutex);
    drain(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    guard g(mutex);
    if (capturing > 0)
        return enter_outside_captures("cudaStreamSynchronize");
    drain(stream);
    record.syncs++;
    return enter("cudaStreamSynchronize");
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned int flags)
{
    guard g(mutex);
    (void)flags;
    cudaError_t error = enter("cudaEventCreateWithFlags");
    *out = error == cudaSuccess ? new CUevent_st : nullptr;
    return error;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    guard g(mutex);
    delete event;
    return cudaSuccess;
}

/* An event is reached when all that its stream holds now has run. */
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    guard g(mutex);
    event->stream = stream;
    enqueue(stream, [event] { event->stream = nullptr; });
    return enter("cudaEventRecord");
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    guard g(mutex);
    while (event->stream && !event->stream->queue.empty()) {
        auto work = std::move(event->stream->queue.front());
        event->stream->queue.pop_front();
        run(work);
    }
    return enter("cudaEventSynchronize");
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags)
{
    guard g(mutex);
    (void)flags;
    enqueue(stream, [event] { cudaEventSynchronize(event); });
    return enter("cudaStreamWaitEvent");
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    guard g(mutex);
    (void)mode;
    cudaError_t error = enter("cudaStreamBeginCapture");
    if (error != cudaSuccess)
        return error;
    if (stream->capturing)
        return refuse(cudaErrorInvalidValue);
    stream->capturing = new CUgraph_st;
    capturing++;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    guard g(mutex);
    *out = stream->capturing;
    stream->capturing = nullptr;
    if (!*out)
        return refuse(cudaErrorInvalidValue);
    capturing--;
    cudaError_t error =
        invalidated ? refuse(cudaErrorStreamCaptureInvalidated) : enter("cudaStreamEndCapture");
    invalidated = false;
    if (error != cudaSuccess) {
        delete *out;
        *out = nullptr;
    }
    return error;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    guard g(mutex);
    (void)flags;
    cudaError_t error = enter("cudaGraphInstantiate");
    *out = nullptr;
    if (error != cudaSuccess)
        return error;
    *out = new CUgraphExec_st{ graph->work, 0 };
    record.graphs++;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t graph, cudaStream_t stream)
{
    guard g(mutex);
    (void)stream;
    cudaError_t error = enter("cudaGraphUpload");
    const size_t bytes = graph->work.size() * GRAPH_NODE_BYTES;
    if (error != cudaSuccess || graph->bytes > 0)
        return error;
    if (bytes > total_bytes - record.device_bytes)
        return refuse(cudaErrorMemoryAllocation);
    graph->bytes = bytes;
    record.device_bytes += bytes;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
    guard g(mutex);
    cudaError_t error = enter("cudaGraphLaunch");
    if (error == cudaSuccess)
        error = cudaGraphUpload(graph, stream);
    if (error != cudaSuccess)
        return error;
    record.graph_launches++;
    for (auto &work : graph->work)
        enqueue(stream, work);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    guard g(mutex);
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    guard g(mutex);
    record.device_bytes -= graph->bytes;
    record.graphs--;
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    guard g(mutex);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value > max_shared_bytes())
        return refuse(cudaErrorInvalidValue);
    shared_limits[kernel] = value;
    return enter("cudaFuncSetAttribute");
}

} /* extern "C" */
