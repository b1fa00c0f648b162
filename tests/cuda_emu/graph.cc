/* graph.cc - captures of the emulated streams' work, and the graphs made of them. */
#include "tests/cuda_emu/runtime.h"

using namespace emu;

struct CUgraphExec_st {
    std::vector<emu_work> work;
    size_t bytes; /* of device memory, which the driver takes for it */
    int device;
};

namespace
{

const size_t GRAPH_NODE_BYTES = 1 << 10;

thread_local int capturing;    /* streams that this thread captures */
thread_local bool invalidated; /* its capture, by a call that none may hold */

} // namespace

bool emu::is_capturing()
{
    return capturing > 0;
}

cudaError_t emu::enter_outside_captures(const char *function)
{
    if (capturing == 0)
        return enter(function);
    invalidated = true;
    return refuse(cudaErrorStreamCaptureUnsupported);
}

extern "C" {

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
    *out = new CUgraphExec_st{ graph->work, 0, current_device() };
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
    if (!take_bytes(graph->device, bytes))
        return refuse(cudaErrorMemoryAllocation);
    graph->bytes = bytes;
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
    give_bytes_back(graph->device, graph->bytes);
    record.graphs--;
    delete graph;
    return cudaSuccess;
}

} /* extern "C" */
