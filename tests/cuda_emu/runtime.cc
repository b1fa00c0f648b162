/* runtime.cc - the CUDA runtime of the emulated devices.
 *
 * Nothing runs when it is enqueued. Each stream is a queue of closures, run when something waits
 * for it, so that a host that reads a result too early, or reuses a buffer too early, is seen.
 * A closure that waits for another stream is tried again later: other streams run meanwhile, and
 * other threads of the host, which may still have to enqueue what it waits for.
 * Device memory lies apart from all other memory and can be touched only while its device runs, or
 * one that was given access: a host that looks at a device address faults. Every piece ends at a
 * page that cannot be touched. */
#include "tests/cuda_emu/include/cuda_runtime.h"
#include "tests/cuda_emu/emu_control.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
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
const int MAX_DEVICES = 8, ALL_DEVICES = -1;

struct piece {
    size_t bytes, mapped_bytes; /* asked for; whole pages, without the guard behind */
    char *mapped;
    int device;
};

std::recursive_mutex mutex;
std::map<char *, piece> pieces;        /* device memory, by address */
std::map<const char *, size_t> pinned; /* host memory that cudaHostAlloc gave */
char *region;
size_t region_used;
size_t total_bytes = (size_t)2 << 30;
int major_version = 9, minor_version = 0;
emu_record record;
thread_local cudaError_t last_error = cudaSuccess;
cudaError_t stuck = cudaSuccess;
std::map<const void *, int> shared_limits; /* of kernels that have asked for more than is usual */
std::string fail_function;
int fail_after = 0;
cudaError_t fail_error;
uint32_t in_reach;                         /* the devices whose memory is, as bits */
int num_devices = 0;                       /* 0: as the environment says */
size_t device_bytes[MAX_DEVICES];          /* held now, of each */
bool can_access[MAX_DEVICES][MAX_DEVICES]; /* of the other one's memory */
bool peers_reach = true;                   /* whether that may be asked for */
thread_local int current_device = 0;
std::set<cudaStream_t> streams;
uint64_t progress;             /* grows with every closure and every block that is done */
thread_local int capturing;    /* streams that this thread captures */
thread_local bool invalidated; /* its capture, by a call that none may hold */
double clock_ms;               /* of the device; only what says so takes time */

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

int device_count()
{
    const char *text = getenv("EMU_DEVICE_COUNT");
    if (num_devices == 0)
        num_devices = text ? atoi(text) : 1;
    return num_devices < MAX_DEVICES ? num_devices : MAX_DEVICES;
}

/* The devices whose memory work on `device` reaches, as bits. */
uint32_t reach_of(int device)
{
    uint32_t bits = device == ALL_DEVICES ? (1u << device_count()) - 1 : 1u << device;
    for (int peer = 0; device != ALL_DEVICES && peer < device_count(); peer++)
        bits |= can_access[device][peer] ? 1u << peer : 0;
    return bits;
}

/* Brings the memory of those devices into reach, and no other. */
void set_reach(uint32_t devices)
{
    for (auto &p : pieces) {
        const uint32_t bit = 1u << p.second.device;
        if (((devices ^ in_reach) & bit) &&
            mprotect(p.second.mapped, p.second.mapped_bytes,
                     devices & bit ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
            emu_die("mprotect failed");
    }
    in_reach = devices;
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

/* False: it waits for something, and must be run again. */
typedef std::function<bool()> closure;
struct emu_work {
    closure run;
    bool is_kernel; /* reaches the memory of its device; copies reach all */
};
struct CUgraph_st {
    std::vector<emu_work> work;
};
struct CUgraphExec_st {
    std::vector<emu_work> work;
    size_t bytes; /* of device memory, which the driver takes for it */
    int device;
};
struct CUstream_st {
    std::deque<emu_work> queue;
    CUgraph_st *capturing = nullptr;
    int device = 0;
    uint64_t stuck_at = 0; /* `progress` after the last try */
};
struct CUevent_st {
    uint64_t recorded = 0, reached = 0;
    cudaStream_t stream = nullptr; /* where it was recorded last */
    bool has_time = false;
    double time_ms = 0;
};

namespace
{

/* Runs what can run; whether that was everything. Device memory stays in reach. */
bool drain(cudaStream_t s)
{
    while (!s->queue.empty()) {
        emu_work &work = s->queue.front();
        set_reach(reach_of(work.is_kernel ? s->device : ALL_DEVICES));
        if (!work.run())
            break;
        s->queue.pop_front();
        progress++;
    }
    s->stuck_at = progress;
    return s->queue.empty();
}

/* Whether another try may come further: something has moved since the last one. The host's memory,
 * which kernels look at too, is no part of `progress`. */
bool may_run(cudaStream_t s, int nth)
{
    return !s->queue.empty() && (s->stuck_at != progress || nth % 64 == 0);
}

/* Returns when `reached` says so, which `s` works towards. */
/* Runs what can run now, that of other streams too; true where anything did. */
bool run_once(cudaStream_t s, int nth)
{
    const uint64_t before = progress;
    drain(s);
    for (auto other : streams)
        if (may_run(other, nth))
            drain(other);
    return progress != before;
}

void wait_until(std::unique_lock<std::recursive_mutex> &lock, cudaStream_t s,
                const std::function<bool()> &reached)
{
    drain(s);
    for (int nth = 1; !reached(); nth++) {
        if (run_once(s, nth))
            continue;
        set_reach(0);
        lock.unlock(); /* other threads of the host */
        usleep(20);
        lock.lock();
    }
    set_reach(0);
}

void finish(std::unique_lock<std::recursive_mutex> &lock, cudaStream_t s)
{
    wait_until(lock, s, [s] { return s->queue.empty(); });
}

void enqueue_work(cudaStream_t s, emu_work work)
{
    if (!s)
        emu_die("work in the default stream, which waits for all others");
    if (s->capturing)
        s->capturing->work.push_back(std::move(work));
    else
        s->queue.push_back(std::move(work));
}

void enqueue(cudaStream_t s, std::function<void()> copy)
{
    enqueue_work(s, { [copy] { return copy(), true; }, false });
}

} // namespace

extern "C" void emu_enqueue(cudaStream_t stream, const std::function<void()> &work)
{
    guard g(mutex);
    enqueue(stream, work);
}

extern "C" bool emu_is_device(const void *at)
{
    guard g(mutex);
    return is_device(at);
}

extern "C" void emu_take_time(double ms)
{
    clock_ms += ms;
}

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
    if (error == cudaSuccess && stream && stream->device != current_device)
        error = cudaErrorInvalidResourceHandle;
    if (error != cudaSuccess) {
        last_error = error;
        return;
    }
    record.launches++;
    unsigned long next = 0, tried = 0; /* blocks; `tried`: 1 + the last one begun and given up */
    auto work = [=]() mutable {
        const unsigned long before = next;
        const bool done = emu_run_grid(
            grid, block, shared_bytes, [](void *arg) { (*(const std::function<void()> *)arg)(); },
            (void *)&body, &next);
        /* A block given up for the first time has done something, too. */
        progress += next != before || (!done && tried != next + 1);
        tried = done ? 0 : next + 1;
        next = done ? 0 : next;
        return done;
    };
    enqueue_work(stream, { work, true });
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

void emu_set_device_count(int count, int reach_each_other)
{
    guard g(mutex);
    num_devices = count;
    peers_reach = reach_each_other != 0;
}

/* --- device ----------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
    guard g(mutex);
    *count = device_count();
    return enter("cudaGetDeviceCount");
}

cudaError_t cudaSetDevice(int device)
{
    guard g(mutex);
    if (device < 0 || device >= device_count())
        return refuse(cudaErrorInvalidDevice);
    current_device = device;
    return enter("cudaSetDevice");
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    guard g(mutex);
    if (device < 0 || device >= device_count())
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
    *free_bytes = total_bytes - device_bytes[current_device];
    return enter("cudaMemGetInfo");
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    guard g(mutex);
    *can = device != peer && peers_reach;
    return device < device_count() && peer < device_count() ? enter("cudaDeviceCanAccessPeer")
                                                            : refuse(cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned int flags)
{
    guard g(mutex);
    cudaError_t error = enter("cudaDeviceEnablePeerAccess");
    if (error != cudaSuccess)
        return error;
    if (peer < 0 || peer >= device_count() || peer == current_device || flags != 0)
        return refuse(cudaErrorInvalidDevice);
    if (can_access[current_device][peer])
        return refuse(cudaErrorPeerAccessAlreadyEnabled);
    can_access[current_device][peer] = true;
    return cudaSuccess;
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
    if (size_bytes > total_bytes - device_bytes[current_device])
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
    piece p = { size_bytes, mapped, region + region_used, current_device };
    region_used += mapped + PAGE;
    char *at = p.mapped + (mapped - bytes);
    if (mprotect(p.mapped, mapped, PROT_READ | PROT_WRITE) != 0)
        return refuse(cudaErrorMemoryAllocation);
    if (size_bytes < (64u << 20)) /* fresh memory is not zero on a device */
        memset(at, 0xa5, size_bytes);
    __asan_poison_memory_region(p.mapped, mapped);
    __asan_unpoison_memory_region(at, size_bytes);
    mprotect(p.mapped, mapped, PROT_NONE); /* nothing runs */
    pieces[at] = p;
    record.allocations++;
    record.device_bytes += size_bytes;
    device_bytes[current_device] += size_bytes;
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
    device_bytes[p->second.device] -= p->second.bytes;
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
    std::unique_lock<std::recursive_mutex> lock(mutex);
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
        finish(lock, stream);
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
    if (*out) {
        (*out)->device = current_device;
        streams.insert(*out);
    }
    return error;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    std::unique_lock<std::recursive_mutex> lock(mutex);
    finish(lock, stream);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    std::unique_lock<std::recursive_mutex> lock(mutex);
    if (capturing > 0)
        return enter_outside_captures("cudaStreamSynchronize");
    finish(lock, stream);
    record.syncs++;
    return enter("cudaStreamSynchronize");
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned int flags)
{
    guard g(mutex);
    cudaError_t error = enter("cudaEventCreateWithFlags");
    *out = error == cudaSuccess ? new CUevent_st : nullptr;
    if (*out)
        (*out)->has_time = !(flags & cudaEventDisableTiming);
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
    const uint64_t turn = ++event->recorded;
    enqueue(stream, [event, turn] {
        event->reached = turn;
        event->time_ms = clock_ms;
    });
    return enter("cudaEventRecord");
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    std::unique_lock<std::recursive_mutex> lock(mutex);
    if (event->reached < event->recorded)
        wait_until(lock, event->stream, [event] { return event->reached >= event->recorded; });
    return enter("cudaEventSynchronize");
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    guard g(mutex);
    cudaError_t error = enter("cudaEventQuery");
    if (error == cudaSuccess && event->reached < event->recorded) {
        run_once(event->stream, 1);
        set_reach(0);
    }
    if (error == cudaSuccess && event->reached < event->recorded)
        return refuse(cudaErrorNotReady);
    return error;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    guard g(mutex);
    const bool both = begin->recorded > 0 && begin->reached == begin->recorded &&
                      end->recorded > 0 && end->reached == end->recorded;
    if (!begin->has_time || !end->has_time || !both)
        return refuse(cudaErrorInvalidValue);
    *ms = (float)(end->time_ms - begin->time_ms);
    return enter("cudaEventElapsedTime");
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags)
{
    guard g(mutex);
    (void)flags;
    const uint64_t turn = event->recorded;
    enqueue_work(stream, { [event, turn] { return event->reached >= turn; }, false });
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
    *out = new CUgraphExec_st{ graph->work, 0, current_device };
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
    if (bytes > total_bytes - device_bytes[graph->device])
        return refuse(cudaErrorMemoryAllocation);
    graph->bytes = bytes;
    record.device_bytes += bytes;
    device_bytes[graph->device] += bytes;
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
        enqueue_work(stream, work);
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
    device_bytes[graph->device] -= graph->bytes;
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
