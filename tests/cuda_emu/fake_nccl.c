/* fake_nccl.c - a libnccl.so.2 whose ranks are threads of one process, on the emulated devices.
 *
 * Operations of a group are kept until it ends. Then the ranks meet on the host and show each other
 * what they send; each enqueues copies of what it receives, behind all that its peers had enqueued
 * before, and lets nobody go on before these copies are done. So data arrives as NCCL would bring
 * it, and a rank that does not come, or sends another size than is expected, is seen. The
 * CUDA runtime is that of the plug-in which FAKE_NCCL_RUNTIME names. */
#include "tests/cuda_emu/fake_nccl.h"
#include "tests/cuda_emu/include/cuda_runtime_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANKS = 8, MAX_OPS = 256, MAX_CALLS = 4096, INTERNAL_ERROR = 3, INVALID_USAGE = 5 };

typedef struct ncclComm *ncclComm_t;

struct op {
    bool is_send;
    int rank, peer;
    const void *src;
    void *dst;
    size_t bytes;
    cudaStream_t stream;
};

struct ncclComm {
    int rank, device;
    cudaStream_t stream; /* of its operations in this group */
    cudaEvent_t ready, copied;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct ncclComm *world[MAX_RANKS];
static int world_size, arrived;
static unsigned meeting;
static bool aborted;
static struct op shown[MAX_RANKS][MAX_OPS]; /* of the ranks that have arrived */
static int num_shown[MAX_RANKS];
static int version = 23203;
static int fail_kind = -1, fail_result;
static struct fake_nccl_call calls[MAX_CALLS];
static size_t num_calls;

static _Thread_local struct op ops[MAX_OPS];
static _Thread_local int num_ops, depth;

static struct {
    cudaError_t (*set_device)(int device);
    cudaError_t (*event_create)(cudaEvent_t *event, unsigned int flags);
    cudaError_t (*event_destroy)(cudaEvent_t event);
    cudaError_t (*event_record)(cudaEvent_t event, cudaStream_t stream);
    cudaError_t (*wait_event)(cudaStream_t stream, cudaEvent_t event, unsigned int flags);
    cudaError_t (*copy)(void *dst, const void *src, size_t size_bytes, enum cudaMemcpyKind kind,
                        cudaStream_t stream);
} cuda;

/* --- what tests ask --------------------------------------------------------------------------- */

size_t fake_nccl_calls(struct fake_nccl_call *out, size_t capacity)
{
    pthread_mutex_lock(&mutex);
    size_t count = num_calls < capacity ? num_calls : capacity;
    memcpy(out, calls, count * sizeof *out);
    count = num_calls;
    pthread_mutex_unlock(&mutex);
    return count;
}

void fake_nccl_clear(void)
{
    pthread_mutex_lock(&mutex);
    num_calls = 0;
    pthread_mutex_unlock(&mutex);
}

void fake_nccl_fail(enum fake_nccl_kind kind, int result)
{
    fail_kind = (int)kind;
    fail_result = result;
}

void fake_nccl_set_version(int number)
{
    version = number;
}

/* What the call must return. */
static int record(struct fake_nccl_call call)
{
    int result = 0;
    pthread_mutex_lock(&mutex);
    if (num_calls < MAX_CALLS)
        calls[num_calls] = call;
    num_calls++;
    if (fail_kind == (int)call.kind) {
        result = fail_result;
        fail_kind = -1;
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

/* --- a group's end ---------------------------------------------------------------------------- */

/* `ranks` of the world are in this thread. False when it was called off. */
static bool meet(int ranks)
{
    pthread_mutex_lock(&mutex);
    unsigned now = meeting;
    arrived += ranks;
    if (arrived >= world_size) {
        arrived = 0;
        meeting++;
        pthread_cond_broadcast(&changed);
    }
    while (meeting == now && !aborted)
        pthread_cond_wait(&changed, &mutex);
    bool met = meeting != now;
    pthread_mutex_unlock(&mutex);
    return met;
}

/* The nth operation of `from` that sends to `to`. */
static const struct op *find_send(int from, int to, int nth)
{
    for (int i = 0; i < num_shown[from]; i++)
        if (shown[from][i].is_send && shown[from][i].peer == to && nth-- == 0)
            return &shown[from][i];
    return NULL;
}

static bool receive(struct ncclComm *c)
{
    int seen[MAX_RANKS] = { 0 };
    cuda.set_device(c->device);
    for (int r = 0; r < world_size; r++)
        cuda.wait_event(c->stream, world[r]->ready, 0);
    for (int i = 0; i < num_shown[c->rank]; i++) {
        const struct op *to = &shown[c->rank][i];
        if (to->is_send)
            continue;
        const struct op *from = find_send(to->peer, c->rank, seen[to->peer]++);
        if (!from || from->bytes != to->bytes) {
            fprintf(stderr, "fake_nccl: rank %d wants %zu bytes from %d, which sends %zu\n",
                    c->rank, to->bytes, to->peer, from ? from->bytes : 0);
            return false;
        }
        cuda.copy(to->dst, from->src, to->bytes, cudaMemcpyDeviceToDevice, c->stream);
    }
    cuda.event_record(c->copied, c->stream);
    return true;
}

/* Shows this thread's operations; how many ranks they are of. */
static int show(bool mine[MAX_RANKS])
{
    int ranks = 0;
    for (int i = 0; i < num_ops; i++) {
        struct ncclComm *c = world[ops[i].rank];
        if (!mine[c->rank]) {
            mine[c->rank] = true;
            ranks++;
            num_shown[c->rank] = 0;
            c->stream = ops[i].stream;
            cuda.set_device(c->device);
            cuda.event_record(c->ready, c->stream);
        }
        shown[c->rank][num_shown[c->rank]++] = ops[i];
    }
    num_ops = 0;
    return ranks;
}

static int run_group(void)
{
    bool mine[MAX_RANKS] = { false }, ok = true;
    const int ranks = show(mine);
    if (ranks == 0)
        return 0;
    if (!meet(ranks))
        return INTERNAL_ERROR;
    for (int r = 0; r < world_size; r++)
        if (mine[r])
            ok = receive(world[r]) && ok;
    if (!meet(ranks))
        return INTERNAL_ERROR;
    for (int r = 0; r < world_size; r++)
        for (int other = 0; mine[r] && other < world_size; other++)
            cuda.wait_event(world[r]->stream, world[other]->copied, 0);
    /* Nobody shows anything new before all have read this. */
    return meet(ranks) && ok ? 0 : INTERNAL_ERROR;
}

/* --- NCCL's functions ------------------------------------------------------------------------- */

int ncclGetVersion(int *out)
{
    *out = version;
    return 0;
}

const char *ncclGetErrorString(int result)
{
    return result == 0 ? "no error" : result == INVALID_USAGE ? "invalid usage" : "internal error";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return "told by the stand-in";
}

static void *symbol(void *runtime, const char *name)
{
    void *found = dlsym(runtime, name);
    if (!found)
        fprintf(stderr, "fake_nccl: FAKE_NCCL_RUNTIME has no %s\n", name);
    return found;
}

static bool find_runtime(void)
{
    const char *path = getenv("FAKE_NCCL_RUNTIME");
    void *runtime = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
    if (!runtime) {
        fprintf(stderr, "fake_nccl: FAKE_NCCL_RUNTIME is not loaded\n");
        return false;
    }
    *(void **)&cuda.set_device = symbol(runtime, "cudaSetDevice");
    *(void **)&cuda.event_create = symbol(runtime, "cudaEventCreateWithFlags");
    *(void **)&cuda.event_destroy = symbol(runtime, "cudaEventDestroy");
    *(void **)&cuda.event_record = symbol(runtime, "cudaEventRecord");
    *(void **)&cuda.wait_event = symbol(runtime, "cudaStreamWaitEvent");
    *(void **)&cuda.copy = symbol(runtime, "cudaMemcpyAsync");
    dlclose(runtime); /* whoever uses us holds it */
    return true;
}

int ncclCommInitAll(ncclComm_t *comms, int count, const int *devices)
{
    int result = record((struct fake_nccl_call){
        .kind = FAKE_COMM_INIT_ALL, .rank = -1, .peer = -1, .count = (size_t)count });
    if (result != 0)
        return result;
    if (count > MAX_RANKS || !find_runtime())
        return INVALID_USAGE;
    for (int r = 0; r < count; r++)
        for (int other = 0; other < r; other++)
            if (devices[other] == devices[r])
                return INVALID_USAGE;
    world_size = count;
    aborted = false;
    arrived = 0;
    for (int r = 0; r < count; r++) {
        world[r] = comms[r] = calloc(1, sizeof **comms);
        comms[r]->rank = r;
        comms[r]->device = devices[r];
        cuda.set_device(devices[r]);
        cuda.event_create(&comms[r]->ready, cudaEventDisableTiming);
        cuda.event_create(&comms[r]->copied, cudaEventDisableTiming);
    }
    return 0;
}

static void end_comm(ncclComm_t comm)
{
    cuda.event_destroy(comm->ready);
    cuda.event_destroy(comm->copied);
    free(comm);
}

int ncclCommDestroy(ncclComm_t comm)
{
    int result = record((struct fake_nccl_call){ FAKE_COMM_DESTROY, comm->rank, -1, 0, 0, 0, 0 });
    end_comm(comm);
    return result;
}

int ncclCommAbort(ncclComm_t comm)
{
    int result = record((struct fake_nccl_call){ FAKE_COMM_ABORT, comm->rank, -1, 0, 0, 0, 0 });
    pthread_mutex_lock(&mutex);
    aborted = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    end_comm(comm);
    return result;
}

int ncclGroupStart(void)
{
    depth++;
    return record((struct fake_nccl_call){ FAKE_GROUP_START, -1, -1, 0, 0, 0, 0 });
}

int ncclGroupEnd(void)
{
    int result = record((struct fake_nccl_call){ FAKE_GROUP_END, -1, -1, 0, 0, 0, 0 });
    if (--depth > 0)
        return result;
    if (result != 0)
        num_ops = 0;
    return result != 0 ? result : run_group();
}

static size_t bytes_of(size_t count, int type)
{
    return type == 7 ? count * 4 : count; /* float32, or bytes */
}

static void add(struct op op)
{
    if (num_ops == MAX_OPS)
        abort();
    ops[num_ops++] = op;
}

static int run_if_alone(int result)
{
    return depth == 0 && result == 0 ? run_group() : result;
}

int ncclSend(const void *src, size_t count, int type, int peer, ncclComm_t comm,
             cudaStream_t stream)
{
    int result =
        record((struct fake_nccl_call){ FAKE_SEND, comm->rank, peer, src, NULL, count, type });
    if (result == 0)
        add((struct op){ true, comm->rank, peer, src, NULL, bytes_of(count, type), stream });
    return run_if_alone(result);
}

int ncclRecv(void *dst, size_t count, int type, int peer, ncclComm_t comm, cudaStream_t stream)
{
    int result =
        record((struct fake_nccl_call){ FAKE_RECV, comm->rank, peer, NULL, dst, count, type });
    if (result == 0)
        add((struct op){ false, comm->rank, peer, NULL, dst, bytes_of(count, type), stream });
    return run_if_alone(result);
}

int ncclAllGather(const void *src, void *dst, size_t count, int type, ncclComm_t comm,
                  cudaStream_t stream)
{
    size_t bytes = bytes_of(count, type);
    int result =
        record((struct fake_nccl_call){ FAKE_ALL_GATHER, comm->rank, -1, src, dst, count, type });
    for (int r = 0; result == 0 && r < world_size; r++) {
        add((struct op){ true, comm->rank, r, src, NULL, bytes, stream });
        add((struct op){ false, comm->rank, r, NULL, (char *)dst + (size_t)r * bytes, bytes,
                         stream });
    }
    return run_if_alone(result);
}

int ncclBroadcast(const void *src, void *dst, size_t count, int type, int root, ncclComm_t comm,
                  cudaStream_t stream)
{
    size_t bytes = bytes_of(count, type);
    int result =
        record((struct fake_nccl_call){ FAKE_BROADCAST, comm->rank, root, src, dst, count, type });
    for (int r = 0; result == 0 && comm->rank == root && r < world_size; r++)
        add((struct op){ true, root, r, src, NULL, bytes, stream });
    if (result == 0)
        add((struct op){ false, comm->rank, root, NULL, dst, bytes, stream });
    return run_if_alone(result);
}
