/* device_cuda.c - a GPU as a device: open and close, memory, copies, errors in words, graphs. */
#include "kernels/cuda/cuda_device.h"

#include "base/alloc.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct backend backend_cuda;

struct graph {
    cudaGraphExec_t exec;
};

/* --- errors ----------------------------------------------------------------------------------- */

bool cuda_failed(struct status *st, cudaError_t error, const char *what)
{
    cudaGetLastError(); /* it is told here, and must not be told of the next launch */
    if (error == cudaErrorMemoryAllocation)
        return status_set(st, STATUS_UNAVAILABLE, "%s: the GPU is out of memory", what);
    return status_set(st, STATUS_INTERNAL, "%s: %s (%s)", what, cudaGetErrorString(error),
                      cudaGetErrorName(error));
}

void cuda_check(struct cuda_device *d, cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return;
    struct status st;
    cuda_failed(&st, error, what);
    pthread_mutex_lock(&d->mutex);
    if (d->base.error.code == STATUS_OK)
        d->base.error = st;
    pthread_mutex_unlock(&d->mutex);
}

bool cuda_use(struct cuda_device *d)
{
    cudaError_t error = cudaSetDevice(d->index);
    cuda_check(d, error, "choosing the GPU");
    return error == cudaSuccess;
}

/* --- open and close --------------------------------------------------------------------------- */

/* Why there is no GPU to use, in words that say what to do. */
static bool no_gpu(struct status *st, cudaError_t error)
{
    int driver = 0;
    if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess &&
        driver > 0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "the NVIDIA driver is too old: it knows CUDA %d.%d, and this build needs "
                          "%d.%d; update the driver",
                          driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                          CUDART_VERSION % 1000 / 10);
    if (error == cudaErrorInsufficientDriver)
        return status_set(st, STATUS_UNSUPPORTED,
                          "no NVIDIA driver (libcuda.so.1) could be loaded: install one, or give "
                          "the container access to the GPU");
    if (error == cudaErrorNoDevice || error == cudaSuccess)
        return status_set(st, STATUS_UNSUPPORTED,
                          "the NVIDIA driver shows no GPU (see nvidia-smi and "
                          "CUDA_VISIBLE_DEVICES)");
    return cuda_failed(st, error, "asking for GPUs");
}

static bool choose_device(struct cuda_device *d, int32_t index, struct status *st)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    struct cudaDeviceProp properties;
    if (error != cudaSuccess || count == 0)
        return no_gpu(st, error);
    if (index < 0 || index >= count)
        return status_set(st, STATUS_INVALID,
                          "there is no GPU %d: this machine shows %d (see --device-ids and "
                          "--tensor-parallel-size)",
                          index, count);
    if ((error = cudaSetDevice(index)) != cudaSuccess ||
        (error = cudaGetDeviceProperties(&properties, index)) != cudaSuccess)
        return cuda_failed(st, error, "opening the GPU");
    d->index = index;
    d->arch = 10 * properties.major + properties.minor;
    d->max_shared_bytes = (int32_t)properties.sharedMemPerBlockOptin;
    if (d->arch < CUDA_MIN_ARCH)
        return status_set(st, STATUS_UNSUPPORTED,
                          "GPU %d (%s) has compute capability %d.%d, and %d.%d is the least that "
                          "works",
                          index, properties.name, properties.major, properties.minor,
                          CUDA_MIN_ARCH / 10, CUDA_MIN_ARCH % 10);
    snprintf(d->base.description, sizeof d->base.description, "%.80s, %zu MiB, sm_%d",
             properties.name, properties.totalGlobalMem >> 20, d->arch);
    return true;
}

static bool open_streams(struct cuda_device *d, struct status *st)
{
    cudaError_t error = cudaSuccess;
    void *fault = NULL, *fault_host = NULL;
    for (int32_t i = 0; error == cudaSuccess && i < DEVICE_NUM_MARKS; i++)
        error = cudaEventCreateWithFlags(&d->marks[i], cudaEventDisableTiming);
    if (error != cudaSuccess)
        return cuda_failed(st, error, "opening the GPU");
    if ((error = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking)) != cudaSuccess ||
        (error = cudaStreamCreateWithFlags(&d->load_stream, cudaStreamNonBlocking)) !=
            cudaSuccess ||
        (error = cudaMalloc(&fault, sizeof *d->fault)) != cudaSuccess ||
        (error = cudaHostAlloc(&fault_host, (DEVICE_NUM_MARKS + 1) * sizeof *d->fault_host,
                               cudaHostAllocDefault)) != cudaSuccess ||
        (error = cudaMemsetAsync(fault, 0, sizeof *d->fault, d->stream)) != cudaSuccess) {
        cudaFree(fault);
        return cuda_failed(st, error, "opening the GPU");
    }
    d->fault = fault;
    d->fault_host = fault_host;
    return true;
}

bool cuda_open(struct device **out, const struct device_options *options, struct status *st)
{
    struct cuda_device *d = xcalloc(1, sizeof *d);
    *out = NULL;
    d->base.backend = &backend_cuda;
    pthread_mutex_init(&d->mutex, NULL);
    pthread_cond_init(&d->changed, NULL);
    if (!choose_device(d, options->index, st) || !open_streams(d, st)) {
        cuda_close(&d->base);
        return false;
    }
    *out = &d->base;
    return true;
}

void cuda_close(struct device *device)
{
    if (!device)
        return;
    struct cuda_device *d = cuda_device_of(device);
    if (d->stream) {
        cudaSetDevice(d->index);
        cudaStreamSynchronize(d->stream);
    }
    cuda_staging_close(d);
    cuda_linear_prepare(d, NULL, 0);
    cuda_free(device, &d->workspace);
    cudaFree(d->fault);
    cudaFreeHost(d->fault_host);
    for (int32_t i = 0; i < DEVICE_NUM_MARKS; i++)
        if (d->marks[i])
            cudaEventDestroy(d->marks[i]);
    if (d->load_stream)
        cudaStreamDestroy(d->load_stream);
    if (d->stream)
        cudaStreamDestroy(d->stream);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}

void cuda_bind_thread(struct device *d)
{
    cuda_use(cuda_device_of(d));
}

void cuda_bind_loader(struct device *d)
{
    cuda_use(cuda_device_of(d)); /* linear_pack does so again in the threads that this one starts */
}

/* --- memory ----------------------------------------------------------------------------------- */

bool cuda_memory_info(struct device *d, struct memory_info *out, struct status *st)
{
    cudaError_t error = cudaSetDevice(cuda_device_of(d)->index);
    if (error == cudaSuccess)
        error = cudaMemGetInfo(&out->available_bytes, &out->total_bytes);
    return error == cudaSuccess || cuda_failed(st, error, "asking for the GPU's free memory");
}

static bool alloc_pinned(struct cuda_device *d, struct buffer *out, size_t size_bytes,
                         struct status *st)
{
    int32_t slot = 0;
    while (slot < CUDA_MAX_PINNED && d->pinned[slot])
        slot++;
    if (slot == CUDA_MAX_PINNED)
        return status_set(st, STATUS_INTERNAL, "more than %d pinned buffers", CUDA_MAX_PINNED);
    cudaError_t error = cudaHostAlloc(&out->data, size_bytes, cudaHostAllocPortable);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return status_set(st, STATUS_UNAVAILABLE,
                          "cannot pin %zu bytes of host memory: %s; raise the limit on locked "
                          "memory, or lower --max-num-seqs and --max-num-batched-tokens",
                          size_bytes, cudaGetErrorString(error));
    }
    memset(out->data, 0, size_bytes);
    d->pinned[slot] = out->data;
    out->size_bytes = size_bytes;
    return true;
}

bool cuda_alloc(struct device *device, struct buffer *out, size_t size_bytes, enum memory_kind kind,
                struct status *st)
{
    struct cuda_device *d = cuda_device_of(device);
    struct memory_info memory = { 0, 0 };
    *out = (struct buffer){ NULL, 0 };
    if (size_bytes == 0)
        return true;
    if (kind == MEMORY_PINNED)
        return alloc_pinned(d, out, size_bytes, st);
    cudaError_t error = cudaSetDevice(d->index); /* the caller may serve several devices */
    if (error == cudaSuccess)
        error = cudaMalloc(&out->data, size_bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        cuda_memory_info(device, &memory, st);
        return status_set(st, STATUS_UNAVAILABLE,
                          "cannot allocate %zu MiB on GPU %d: %zu of %zu MiB are free; use a "
                          "smaller model, context or KV cache, or end what else uses the GPU",
                          size_bytes >> 20, d->index, memory.available_bytes >> 20,
                          memory.total_bytes >> 20);
    }
    if (error == cudaSuccess)
        error = cudaMemsetAsync(out->data, 0, size_bytes, d->stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(d->stream); /* other streams may write to it next */
    if (error != cudaSuccess) {
        cudaFree(out->data);
        out->data = NULL;
        return cuda_failed(st, error, "allocating GPU memory");
    }
    out->size_bytes = size_bytes;
    device->allocated_bytes += size_bytes;
    return true;
}

void cuda_free(struct device *device, struct buffer *buffer)
{
    struct cuda_device *d = cuda_device_of(device);
    bool is_pinned = false;
    for (int32_t i = 0; buffer->data && i < CUDA_MAX_PINNED; i++) {
        if (d->pinned[i] != buffer->data)
            continue;
        is_pinned = true;
        d->pinned[i] = NULL;
    }
    if (!is_pinned)
        device->allocated_bytes -= buffer->size_bytes;
    if (buffer->data)
        cuda_check(d, is_pinned ? cudaFreeHost(buffer->data) : cudaFree(buffer->data),
                   "freeing memory");
    *buffer = (struct buffer){ NULL, 0 };
}

void cuda_copy(struct device *device, void *dst, const void *src, size_t size_bytes,
               enum copy_kind kind)
{
    static const enum cudaMemcpyKind kinds[] = { [COPY_TO_DEVICE] = cudaMemcpyHostToDevice,
                                                 [COPY_TO_HOST] = cudaMemcpyDeviceToHost,
                                                 [COPY_ON_DEVICE] = cudaMemcpyDeviceToDevice };
    struct cuda_device *d = cuda_device_of(device);
    if (size_bytes > 0)
        cuda_check(d, cudaMemcpyAsync(dst, src, size_bytes, kinds[kind], d->stream), "a copy");
}

void cuda_copy_pieces(struct device *device, const struct copy_piece *pieces, int32_t count)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(count <= COPY_MAX_PIECES);
    cuda_launch_copy_pieces(pieces, count, d->stream);
    cuda_check(d, cudaGetLastError(), "copying a step's arrays");
}

/* --- waiting ---------------------------------------------------------------------------------- */

/* The slot of sync among those of faults. */
enum { SYNC = DEVICE_NUM_MARKS };

/* What a kernel found wrong becomes the error, where there is none yet. */
static void add_fault(const struct cuda_fault *f, struct status *error)
{
    static const char *const ops[] = {
        [CUDA_FAULT_EMBEDDING] = "embedding", [CUDA_FAULT_GATHER] = "gather_rows"
    };
    if (f->kind != CUDA_FAULT_NONE && error->code == STATUS_OK)
        status_set(error, STATUS_INTERNAL, "%s: index %d of row %d is not in [0, %d)", ops[f->kind],
                   f->index, f->row, f->limit);
}

static void enqueue_fault(struct cuda_device *d, int32_t slot)
{
    cuda_launch_take_fault(&d->fault_host[slot], d->fault, d->stream);
    cuda_check(d, cudaGetLastError(), "looking for faults");
}

bool cuda_sync(struct device *device, struct status *st)
{
    struct cuda_device *d = cuda_device_of(device);
    if (d->loading)
        cuda_check(d, cudaStreamSynchronize(d->load_stream), "loading");
    d->loading = false;
    memset(&d->fault_host[SYNC], 0, sizeof d->fault_host[SYNC]);
    enqueue_fault(d, SYNC);
    cuda_check(d, cudaStreamSynchronize(d->stream), "waiting for the GPU");
    add_fault(&d->fault_host[SYNC], &device->error);
    return device_take_error(&device->error, st);
}

void cuda_mark(struct device *device, int32_t mark)
{
    struct cuda_device *d = cuda_device_of(device);
    memset(&d->fault_host[mark], 0, sizeof d->fault_host[mark]);
    enqueue_fault(d, mark);
    cuda_check(d, cudaEventRecord(d->marks[mark], d->stream), "marking a step");
    device->marked[mark] = device->error;
    status_clear(&device->error);
}

/* Whatever the device's thread does meanwhile, it leaves this mark alone. */
bool cuda_await(struct device *device, int32_t mark, struct status *st)
{
    struct cuda_device *d = cuda_device_of(device);
    struct status *error = &device->marked[mark];
    cudaError_t waited = cudaSetDevice(d->index);
    if (waited == cudaSuccess)
        waited = cudaEventSynchronize(d->marks[mark]);
    if (waited != cudaSuccess && error->code == STATUS_OK)
        cuda_failed(error, waited, "waiting for the GPU");
    add_fault(&d->fault_host[mark], error);
    return device_take_error(error, st);
}

bool cuda_is_reached(struct device *device, int32_t mark)
{
    if (cudaEventQuery(cuda_device_of(device)->marks[mark]) != cudaErrorNotReady)
        return true;
    cudaGetLastError(); /* of this thread; it must not be told of a later call */
    return false;
}

/* --- graphs ----------------------------------------------------------------------------------- */

bool cuda_capture_begin(struct device *device, struct status *st)
{
    struct cuda_device *d = cuda_device_of(device);
    cudaError_t error = cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal);
    return error == cudaSuccess || cuda_failed(st, error, "beginning to capture a graph");
}

bool cuda_capture_end(struct device *device, struct graph **out, struct status *st)
{
    struct cuda_device *d = cuda_device_of(device);
    cudaGraph_t captured = NULL;
    *out = NULL;
    cudaError_t error = cudaStreamEndCapture(d->stream, &captured);
    if (device->error.code != STATUS_OK) { /* an op did not get into it, and may have ended it */
        *st = device->error;
        status_clear(&device->error);
        cudaGetLastError();
        if (error == cudaSuccess)
            cudaGraphDestroy(captured);
        return status_prefix(st, "capturing a graph: ");
    }
    if (error != cudaSuccess)
        return cuda_failed(st, error, "capturing a graph");
    struct graph *graph = xcalloc(1, sizeof *graph);
    error = cudaGraphInstantiate(&graph->exec, captured, 0);
    cudaGraphDestroy(captured);
    /* What it needs on the device is taken now, and not at its first launch. */
    if (error == cudaSuccess && (error = cudaGraphUpload(graph->exec, d->stream)) != cudaSuccess)
        cudaGraphExecDestroy(graph->exec);
    if (error != cudaSuccess) {
        free(graph);
        return cuda_failed(st, error, "making a graph");
    }
    *out = graph;
    return true;
}

bool cuda_graph_launch(struct device *device, struct graph *graph)
{
    struct cuda_device *d = cuda_device_of(device);
    cudaError_t error = cudaGraphLaunch(graph->exec, d->stream);
    cuda_check(d, error, "launching a graph");
    return error == cudaSuccess;
}

void cuda_graph_free(struct device *device, struct graph *graph)
{
    if (!graph)
        return;
    cuda_check(cuda_device_of(device), cudaGraphExecDestroy(graph->exec), "freeing a graph");
    free(graph);
}
