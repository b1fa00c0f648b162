/* memory.cc - the memory of the emulated devices, pinned memory, and copies. */
#include "tests/cuda_emu/runtime.h"

#include <cstdlib>
#include <map>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(address, size)   ((void)(address), (void)(size))
#define __asan_unpoison_memory_region(address, size) ((void)(address), (void)(size))
#endif

using namespace emu;

namespace
{

const size_t PAGE = 4096, ALIGNMENT = 256;
const size_t RESERVED_BYTES = (size_t)64 << 30; /* of addresses, not of memory */

struct piece {
    size_t bytes, mapped_bytes; /* asked for; whole pages, without the guard behind */
    char *mapped;
    int device;
};

std::map<char *, piece> pieces;        /* device memory, by address */
std::map<const char *, size_t> pinned; /* host memory that cudaHostAlloc gave */
char *region;
size_t region_used;
uint32_t in_reach; /* the devices whose memory is, as bits */

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

} // namespace

bool emu::is_device(const void *at)
{
    return region && (const char *)at >= region && (const char *)at < region + region_used;
}

void emu::reach_from(int device)
{
    uint32_t bits = 0;
    for (int peer = 0; peer < device_count(); peer++)
        bits |= reaches(device, peer) ? 1u << peer : 0;
    set_reach(bits);
}

void emu::reach_none()
{
    set_reach(0);
}

extern "C" {

void emu_get_memory(void (*piece)(void *, int, const char *, size_t), void *arg)
{
    guard g(mutex);
    piece(arg, true, region, region_used);
    for (const auto &p : pinned)
        piece(arg, false, p.first, p.second);
}

bool emu_is_device(const void *at)
{
    guard g(mutex);
    return is_device(at);
}

cudaError_t cudaMalloc(void **out, size_t size_bytes)
{
    guard g(mutex);
    cudaError_t error = enter_outside_captures("cudaMalloc");
    *out = nullptr;
    if (error != cudaSuccess)
        return error;
    if (!region) {
        region = (char *)mmap(NULL, RESERVED_BYTES, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (region == MAP_FAILED)
            emu_die("no addresses for device memory");
    }
    size_t bytes = (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    if (region_used + mapped + PAGE > RESERVED_BYTES || !take_bytes(current_device(), size_bytes))
        return refuse(cudaErrorMemoryAllocation);
    piece p = { size_bytes, mapped, region + region_used, current_device() };
    region_used += mapped + PAGE;
    char *at = p.mapped + (mapped - bytes);
    if (mprotect(p.mapped, mapped, PROT_READ | PROT_WRITE) != 0) {
        give_bytes_back(p.device, size_bytes);
        return refuse(cudaErrorMemoryAllocation);
    }
    if (size_bytes < (64u << 20)) /* fresh memory is not zero on a device */
        memset(at, 0xa5, size_bytes);
    __asan_poison_memory_region(p.mapped, mapped);
    __asan_unpoison_memory_region(at, size_bytes);
    mprotect(p.mapped, mapped, PROT_NONE); /* nothing runs */
    pieces[at] = p;
    record.allocations++;
    *out = at;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    guard g(mutex);
    auto p = pieces.find((char *)memory);
    if (!memory)
        return cudaSuccess;
    if (is_capturing())
        return enter_outside_captures("cudaFree");
    if (p == pieces.end())
        emu_die("cudaFree of what cudaMalloc did not give");
    __asan_unpoison_memory_region(p->second.mapped, p->second.mapped_bytes);
    /* The addresses are not used again: late users fault. The memory goes back. */
    mmap(p->second.mapped, p->second.mapped_bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    record.frees++;
    give_bytes_back(p->second.device, p->second.bytes);
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
    unique_guard lock(mutex);
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

} /* extern "C" */
