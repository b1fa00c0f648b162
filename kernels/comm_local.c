/* comm_local.c - ranks that are threads of one process.
 *
 * Each rank shows where its tensor lies and waits until all have. Then every rank sums one part,
 * reading it from all ranks in their order and writing it back to all, or copies what it wants; and
 * waits until nobody touches its memory any more. A rank may be abandoned only at the first wait:
 * once all are in, all come out, so nobody's memory is freed while another one reads it. */
#include "kernels/comm.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/futex.h"
#include "base/thread.h"
#include "kernels/backend.h"

#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Ranks do equal work, so the others are a little behind at most. Who is further behind has
     * lost its CPU, and gets it sooner from one that sleeps: to yield would let others in for their
     * whole slice, at each of some hundred meetings of a step. */
    SPIN_NS = 50 * 1000,
    POLLS_PER_CLOCK = 32,
    /* Parts of a row begin at a multiple of a cache line's elements. */
    LINE_ELEMENTS = 16
};

/* A meeting's word: how many have arrived, which of all meetings this is, and whether it was called
 * off. As one word, so that there is one answer to whether all came or the meeting was called off
 * before. */
#define ARRIVED    0xffffu
#define MEETING    0x10000u
#define MEETINGS   0x7fff0000u
#define CALLED_OFF 0x80000000u

enum collective { ALL_REDUCE, ALL_GATHER, BROADCAST };

/* What a rank shows the others during a collective. */
struct shown {
    _Alignas(64) enum collective what;
    struct tensor x;
    void *data;
    size_t size_bytes;
};

struct local_world {
    _Alignas(64) _Atomic uint32_t entering;
    _Alignas(64) _Atomic uint32_t leaving;
    _Alignas(64) int32_t size;
    bool oversubscribed; /* more ranks than CPUs: whoever spins keeps another from working */
    _Atomic int32_t num_open;
    pthread_mutex_t mutex;
    struct status failure; /* guarded by mutex; why it was called off */
    struct shown *ranks;   /* [size] */
};

struct local_comm {
    struct comm base; /* first, so that a struct comm * can be cast */
    struct local_world *world;
};

/* --- meetings --------------------------------------------------------------------------------- */

/* Waits until the word is not of meeting `now` any more, or that is called off. */
static void wait_for_others(const struct local_world *w, _Atomic uint32_t *word, uint32_t now)
{
    uint64_t start_ns = 0, spent_ns = 0;
    for (;;) {
        uint32_t value = 0;
        for (int i = 0; i < POLLS_PER_CLOCK; i++) {
            value = atomic_load_explicit(word, memory_order_acquire);
            if ((value & MEETINGS) != now || (value & CALLED_OFF))
                return;
            cpu_relax();
        }
        if (w->oversubscribed || spent_ns >= SPIN_NS) {
            futex_wait(word, value);
            continue;
        }
        uint64_t now_ns = clock_now_ns();
        start_ns = start_ns ? start_ns : now_ns;
        spent_ns = now_ns - start_ns;
    }
}

/* Returns when all ranks have come; false when it was called off before they had. */
static bool meet(const struct local_world *w, _Atomic uint32_t *word)
{
    uint32_t seen = atomic_load_explicit(word, memory_order_acquire), next;
    do {
        if (seen & CALLED_OFF)
            return false;
        next = (seen & ARRIVED) + 1 == (uint32_t)w->size ? ((seen & MEETINGS) + MEETING) & MEETINGS
                                                         : seen + 1;
    } while (!atomic_compare_exchange_weak_explicit(word, &seen, next, memory_order_acq_rel,
                                                    memory_order_acquire));
    uint32_t now = seen & MEETINGS;
    if ((next & MEETINGS) != now) {
        futex_wake(word, INT_MAX);
        return true;
    }
    wait_for_others(w, word, now);
    return (atomic_load_explicit(word, memory_order_acquire) & MEETINGS) != now;
}

/* Whatever d was told to compute is in memory afterwards. Errors stay d's. */
static void settle(struct device *d)
{
    struct status st;
    if (!d->backend->sync(d, &st))
        d->error = st;
}

/* Shows `mine` and waits for the others; false when they will not come, which is d's error then. */
static bool enter(struct local_comm *c, struct device *d, const struct shown *mine)
{
    struct local_world *w = c->world;
    settle(d);
    w->ranks[c->base.rank] = *mine;
    if (meet(w, &w->entering)) {
        assert(w->ranks[0].what == mine->what);
        return true;
    }
    pthread_mutex_lock(&w->mutex);
    if (d->error.code == STATUS_OK)
        d->error = w->failure;
    pthread_mutex_unlock(&w->mutex);
    return false;
}

static void leave(struct local_comm *c, struct device *d)
{
    settle(d);
    (void)meet(c->world, &c->world->leaving); /* is never called off */
}

/* --- collectives ------------------------------------------------------------------------------ */

static int32_t share_begin(int32_t count, int32_t rank, int32_t size)
{
    return (int32_t)((int64_t)count * rank / size);
}

/* The part of x that `rank` sums: some of its rows, or of its columns where there are few rows. */
static struct tensor part_of(const struct tensor *x, int32_t rank, int32_t size)
{
    struct tensor part = *x;
    if (x->rows >= size) {
        int32_t begin = share_begin(x->rows, rank, size);
        part.rows = share_begin(x->rows, rank + 1, size) - begin;
        part.data = (char *)x->data + (size_t)(begin * x->stride) * dtype_size(x->dtype);
        return part;
    }
    int32_t lines = (x->cols + LINE_ELEMENTS - 1) / LINE_ELEMENTS;
    int32_t begin = share_begin(lines, rank, size) * LINE_ELEMENTS;
    int32_t end = share_begin(lines, rank + 1, size) * LINE_ELEMENTS;
    return tensor_columns(x, begin, (end < x->cols ? end : x->cols) - begin);
}

static void copy_rows(struct device *d, const struct tensor *dst, const struct tensor *src)
{
    size_t element = dtype_size(src->dtype);
    bool one_piece = dst->stride == dst->cols && src->stride == src->cols;
    int32_t rows = one_piece && src->rows > 0 ? 1 : src->rows;
    size_t bytes = (size_t)src->cols * element * (size_t)(one_piece ? src->rows : 1);
    for (int64_t r = 0; bytes > 0 && r < rows; r++)
        d->backend->copy(d, (char *)dst->data + (size_t)(r * dst->stride) * element,
                         (const char *)src->data + (size_t)(r * src->stride) * element, bytes,
                         COPY_ON_DEVICE);
}

static void local_all_reduce(struct comm *base, struct device *d, struct tensor *x)
{
    struct local_comm *c = (struct local_comm *)base;
    const struct shown *ranks = c->world->ranks;
    int32_t size = base->world_size;
    if (!enter(c, d, &(struct shown){ .what = ALL_REDUCE, .x = *x }))
        return;
    struct tensor sum = part_of(&ranks[0].x, base->rank, size);
    for (int32_t r = 1; r < size && sum.cols > 0; r++) {
        struct tensor part = part_of(&ranks[r].x, base->rank, size);
        d->backend->add(d, &sum, &part);
    }
    for (int32_t r = 1; r < size; r++) {
        struct tensor part = part_of(&ranks[r].x, base->rank, size);
        copy_rows(d, &part, &sum);
    }
    leave(c, d);
}

static void local_all_gather(struct comm *base, struct device *d, struct tensor *out,
                             const struct tensor *x)
{
    struct local_comm *c = (struct local_comm *)base;
    assert(out->rows == x->rows && out->dtype == x->dtype);
    assert(out->cols == base->world_size * x->cols);
    if (!enter(c, d, &(struct shown){ .what = ALL_GATHER, .x = *x }))
        return;
    for (int32_t r = 0; r < base->world_size; r++) {
        struct tensor part = tensor_columns(out, r * x->cols, x->cols);
        copy_rows(d, &part, &c->world->ranks[r].x);
    }
    leave(c, d);
}

static void local_broadcast(struct comm *base, struct device *d, void *data, size_t size_bytes,
                            int32_t root)
{
    struct local_comm *c = (struct local_comm *)base;
    assert(root >= 0 && root < base->world_size);
    if (!enter(c, d, &(struct shown){ .what = BROADCAST, .data = data, .size_bytes = size_bytes }))
        return;
    assert(c->world->ranks[root].size_bytes == size_bytes);
    if (base->rank != root && size_bytes > 0)
        d->backend->copy(d, data, c->world->ranks[root].data, size_bytes, COPY_ON_DEVICE);
    leave(c, d);
}

static bool local_barrier(struct comm *base, struct status *st)
{
    struct local_world *w = ((struct local_comm *)base)->world;
    if (meet(w, &w->entering))
        return true;
    pthread_mutex_lock(&w->mutex);
    *st = w->failure;
    pthread_mutex_unlock(&w->mutex);
    return false;
}

/* --- life ------------------------------------------------------------------------------------- */

static void local_abort(struct comm *base, const struct status *why)
{
    struct local_world *w = ((struct local_comm *)base)->world;
    assert(why->code != STATUS_OK);
    pthread_mutex_lock(&w->mutex);
    if (w->failure.code == STATUS_OK)
        w->failure = *why;
    pthread_mutex_unlock(&w->mutex);
    atomic_fetch_or_explicit(&w->entering, CALLED_OFF, memory_order_acq_rel);
    futex_wake(&w->entering, INT_MAX);
}

static void local_close(struct comm *base)
{
    struct local_world *w = ((struct local_comm *)base)->world;
    free(base);
    if (atomic_fetch_sub(&w->num_open, 1) > 1)
        return;
    pthread_mutex_destroy(&w->mutex);
    free(w->ranks);
    free(w);
}

static void *lines_of(size_t count, size_t size)
{
    void *p = aligned_alloc(64, count * size);
    if (p)
        memset(p, 0, count * size);
    return p;
}

bool comm_local_open(struct comm **out, int32_t world_size, struct status *st)
{
    assert(world_size >= 1 && world_size <= COMM_LOCAL_MAX_RANKS);
    struct local_world *w = lines_of(1, sizeof *w);
    struct shown *ranks = lines_of((size_t)world_size, sizeof *ranks);
    if (!w || !ranks) {
        free(w);
        free(ranks);
        return status_set(st, STATUS_INTERNAL, "communicator of %d ranks: out of memory",
                          world_size);
    }
    w->size = world_size;
    w->ranks = ranks;
    w->oversubscribed = world_size > thread_allowed_cpus(NULL, 0);
    atomic_init(&w->num_open, world_size);
    pthread_mutex_init(&w->mutex, NULL);
    for (int32_t rank = 0; rank < world_size; rank++) {
        struct local_comm *c = xcalloc(1, sizeof *c);
        c->base = (struct comm){ .rank = rank,
                                 .world_size = world_size,
                                 .all_reduce = local_all_reduce,
                                 .all_gather = local_all_gather,
                                 .broadcast = local_broadcast,
                                 .barrier = local_barrier,
                                 .abort = local_abort,
                                 .close = local_close,
                                 .description = "threads of this process" };
        c->world = w;
        out[rank] = &c->base;
    }
    return true;
}
