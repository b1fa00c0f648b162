/* errors.cc - the names of the emulated runtime's errors. */
#include "tests/cuda_emu/include/cuda_runtime.h"

extern "C" {

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
