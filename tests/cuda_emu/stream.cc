/* stream.cc - the streams and events of the emulated devices, and the kernels launched in them. */
#include "tests/cuda_emu/runtime.h"

#include <set>
#include <unistd.h>

using namespace emu;

struct CUevent_st {
    uint64_t recorded = 0, reached = 0;
    cudaStream_t stream = nullptr; /* where it was recorded last */
    bool has_time = false;
    double time_ms = 0;
};

namespace
{

std::set<cudaStream_t> streams;
uint64_t progress; /* grows with every closure and every block that is done */
double clock_ms;   /* of the device; only what says so takes time */

/* Runs what can run; whether that was everything. Device memory stays in reach. */
bool drain(cudaStream_t s)
{
    while (!s->queue.empty()) {
        emu_work &work = s->queue.front();
        reach_from(work.is_kernel ? s->device : ALL_DEVICES);
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

/* Returns when `reached` says so, which `s` works towards. */
void wait_until(unique_guard &lock, cudaStream_t s, const std::function<bool()> &reached)
{
    drain(s);
    for (int nth = 1; !reached(); nth++) {
        if (run_once(s, nth))
            continue;
        reach_none();
        lock.unlock(); /* other threads of the host */
        usleep(20);
        lock.lock();
    }
    reach_none();
}

} // namespace

void emu::finish(unique_guard &lock, cudaStream_t s)
{
    wait_until(lock, s, [s] { return s->queue.empty(); });
}

void emu::enqueue_work(cudaStream_t s, emu_work work)
{
    if (!s)
        emu_die("work in the default stream, which waits for all others");
    if (s->capturing)
        s->capturing->work.push_back(std::move(work));
    else
        s->queue.push_back(std::move(work));
}

void emu::enqueue(cudaStream_t s, std::function<void()> copy)
{
    enqueue_work(s, { [copy] { return copy(), true; }, false });
}

extern "C" void emu_enqueue(cudaStream_t stream, const std::function<void()> &work)
{
    guard g(mutex);
    enqueue(stream, work);
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
    if (error == cudaSuccess && stream && stream->device != current_device())
        error = cudaErrorInvalidResourceHandle;
    if (error != cudaSuccess) {
        refuse(error);
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

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned int flags)
{
    guard g(mutex);
    (void)flags;
    cudaError_t error = enter("cudaStreamCreateWithFlags");
    *out = error == cudaSuccess ? new CUstream_st : nullptr;
    if (*out) {
        (*out)->device = current_device();
        streams.insert(*out);
    }
    return error;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    unique_guard lock(mutex);
    finish(lock, stream);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    unique_guard lock(mutex);
    if (is_capturing())
        return enter_outside_captures("cudaStreamSynchronize");
    finish(lock, stream);
    record.syncs++;
    return enter("cudaStreamSynchronize");
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags)
{
    guard g(mutex);
    (void)flags;
    const uint64_t turn = event->recorded;
    enqueue_work(stream, { [event, turn] { return event->reached >= turn; }, false });
    return enter("cudaStreamWaitEvent");
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
    unique_guard lock(mutex);
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
        reach_none();
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

} /* extern "C" */
