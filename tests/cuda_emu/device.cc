/* device.cc - the emulated devices: how many, what each says it is, and how much memory it holds.
 */
#include "tests/cuda_emu/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <map>

using namespace emu;

std::recursive_mutex emu::mutex;
emu_record emu::record;

namespace
{

const int USUAL_SHARED_BYTES = 48 << 10; /* of a block whose kernel has not asked for more */

int major_version = 9, minor_version = 0;
size_t total_bytes = (size_t)2 << 30;
std::map<const void *, int> shared_limits; /* of kernels that have asked for more than is usual */
int num_devices = 0;                       /* 0: as the environment says */
size_t device_bytes[MAX_DEVICES];          /* held now, of each */
bool can_access[MAX_DEVICES][MAX_DEVICES]; /* of the other one's memory */
bool peers_reach = true;                   /* whether that may be asked for */
thread_local int the_device = 0;

/* Shared memory that a block may ask for on a GPU of this compute capability (CUDA's programming
 * guide, technical specifications). */
int max_shared_bytes()
{
    if (major_version == 8)
        return (minor_version == 0 || minor_version == 7 ? 163 : 99) << 10;
    return (major_version == 12 ? 99 : 227) << 10;
}

} // namespace

size_t emu::shared_limit(const void *kernel)
{
    const auto found = shared_limits.find(kernel);
    return found != shared_limits.end() && found->second > USUAL_SHARED_BYTES ? found->second
                                                                              : USUAL_SHARED_BYTES;
}

int emu::device_count()
{
    const char *text = getenv("EMU_DEVICE_COUNT");
    if (num_devices == 0)
        num_devices = text ? atoi(text) : 1;
    return num_devices < MAX_DEVICES ? num_devices : MAX_DEVICES;
}

int emu::current_device()
{
    return the_device;
}

bool emu::reaches(int device, int peer)
{
    return device == ALL_DEVICES || device == peer || can_access[device][peer];
}

bool emu::take_bytes(int device, size_t bytes)
{
    if (bytes > total_bytes - device_bytes[device])
        return false;
    record.device_bytes += bytes;
    device_bytes[device] += bytes;
    return true;
}

void emu::give_bytes_back(int device, size_t bytes)
{
    record.device_bytes -= bytes;
    device_bytes[device] -= bytes;
}

extern "C" {

void emu_get_record(struct emu_record *out)
{
    guard g(mutex);
    *out = record;
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
    the_device = device;
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
    *free_bytes = total_bytes - device_bytes[the_device];
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
    if (peer < 0 || peer >= device_count() || peer == the_device || flags != 0)
        return refuse(cudaErrorInvalidDevice);
    if (can_access[the_device][peer])
        return refuse(cudaErrorPeerAccessAlreadyEnabled);
    can_access[the_device][peer] = true;
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
