/* errors.cc - the errors of the emulated runtime: which call returns one, the last one, their
 * names. */
#include "tests/cuda_emu/runtime.h"

#include <string>

namespace
{

thread_local cudaError_t last_error = cudaSuccess;
std::string fail_function;
int fail_after = 0;
cudaError_t fail_error;

} // namespace

cudaError_t emu::enter(const char *function)
{
    if (fail_after > 0 && fail_function == function && --fail_after == 0)
        return refuse(fail_error);
    return cudaSuccess;
}

cudaError_t emu::refuse(cudaError_t error)
{
    last_error = error;
    return error;
}

extern "C" {

void emu_fail(const char *function, int after, int error)
{
    emu::guard g(emu::mutex);
    fail_function = function;
    fail_after = after;
    fail_error = (cudaError_t)error;
}

cudaError_t cudaGetLastError(void)
{
    emu::guard g(emu::mutex);
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    emu::guard g(emu::mutex);
    return last_error;
}

const char *cudaGetErrorName(cudaError_t error)
{
    static const struct {
        cudaError_t error;
        const char *name;
    } names[] = {
        { cudaSuccess, "cudaSuccess" },
        { cudaErrorInvalidValue, "cudaErrorInvalidValue" },
        { cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation" },
        { cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration" },
        { cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver" },
        { cudaErrorNoDevice, "cudaErrorNoDevice" },
        { cudaErrorNotReady, "cudaErrorNotReady" },
        { cudaErrorInvalidDevice, "cudaErrorInvalidDevice" },
        { cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle" },
        { cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled" },
        { cudaErrorIllegalAddress, "cudaErrorIllegalAddress" },
        { cudaErrorLaunchFailure, "cudaErrorLaunchFailure" },
        { cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported" },
        { cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated" },
    };
    for (auto &n : names)
        if (n.error == error)
            return n.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : cudaGetErrorName(error);
}

} /* extern "C" */
