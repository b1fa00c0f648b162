/* grid.cc - the scheduler of emulated threads. */
#include "tests/cuda_emu/grid.h"
#include "tests/cuda_emu/race.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
enum { STACK_BYTES = 512 << 10 };
#else
enum { STACK_BYTES = 128 << 10 };
#endif

enum { SHARED_LIMIT_BYTES = 228 << 10 };

EMU_OWN struct emu_thread *emu_self;
EMU_OWN struct uint3 emu_block_index;
EMU_OWN struct dim3 emu_block_size, emu_grid_size;
EMU_OWN unsigned char *emu_dynamic_shared;

struct warp {
    const char *what; /* the operation that lanes are waiting in */
    unsigned int arrived, generation;
    struct emu_slot slots[2][EMU_WARP];
};

EMU_OWN static struct emu_thread threads[EMU_MAX_THREADS];
static struct warp warps[EMU_MAX_THREADS / EMU_WARP];
static struct emu_fiber outside;
static unsigned int num_threads, num_ended, num_at_barrier;
static bool retry; /* the block was given up */
static void (*body)(void *);
static void *body_arg;
alignas(1024) static unsigned char shared_memory[SHARED_LIMIT_BYTES];

void emu_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "cuda_emu: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, " (block %u %u %u, thread %u)\n", emu_block_index.x, emu_block_index.y,
            emu_block_index.z, emu_self ? emu_self->linear : 0);
    va_end(args);
    abort();
}

/* Goes on with another thread that can; `last` when this one has ended. */
static void yield(bool last)
{
    struct emu_thread *from = emu_self;
    const unsigned int first = emu_race_thread(from->linear + 1, num_threads);
    for (unsigned int i = 0; i < num_threads; i++) {
        struct emu_thread *to = &threads[(first + i) % num_threads];
        if (to->state != EMU_RUNS)
            continue;
        if (to == from)
            return;
        emu_self = to;
        emu_fiber_switch(&from->fiber, &to->fiber, last);
        return;
    }
    if (num_ended == num_threads) {
        emu_self = NULL;
        emu_fiber_switch(&from->fiber, &outside, true);
    }
    for (unsigned int i = 0; i < num_threads; i++)
        if (threads[i].state == EMU_WAITS_WARP)
            emu_die("thread %u waits in %s for lanes that do not come", i,
                    warps[i / EMU_WARP].what);
    emu_die("%u of %u threads wait at a barrier, %u have ended", num_at_barrier, num_threads,
            num_ended);
}

static void thread_main(void)
{
    emu_fiber_entered(&emu_self->fiber);
    body(body_arg);
    emu_self->state = EMU_ENDED;
    num_ended++;
    yield(true);
    abort(); /* an ended thread is not switched to */
}

void emu_barrier(void)
{
    if (++num_at_barrier < num_threads) {
        emu_self->state = EMU_WAITS_BLOCK;
        yield(false);
        return;
    }
    num_at_barrier = 0;
    for (unsigned int i = 0; i < num_threads; i++)
        threads[i].state = EMU_RUNS;
    emu_race_barrier();
    if (emu_race_pauses())
        yield(false);
}

const struct emu_slot *emu_exchange(const char *what, const void *mine, size_t size)
{
    struct warp *w = &warps[emu_self->linear / EMU_WARP];
    unsigned int first = emu_self->linear / EMU_WARP * EMU_WARP;
    struct emu_slot *slots = w->slots[w->generation % 2];
    if (first + EMU_WARP > num_threads)
        emu_die("%s in a warp of fewer than 32 threads", what);
    if (w->arrived > 0 && w->what != what && strcmp(w->what, what) != 0)
        emu_die("lanes of one warp are at %s and at %s", w->what, what);
    memcpy(slots[emu_self->linear % EMU_WARP].bytes, mine, size);
    w->what = what;
    if (++w->arrived < EMU_WARP) {
        emu_self->state = EMU_WAITS_WARP;
        yield(false);
        return slots;
    }
    w->arrived = 0;
    w->generation++;
    for (unsigned int i = first; i < first + EMU_WARP; i++)
        threads[i].state = EMU_RUNS;
    emu_race_exchange(first / EMU_WARP, what);
    if (emu_race_pauses())
        yield(false);
    return slots;
}

void emu_retry_block(void)
{
    struct emu_thread *from = emu_self;
    emu_self = NULL;
    retry = true;
    emu_fiber_switch(&from->fiber, &outside, true);
    abort(); /* it begins anew */
}

static void run_block(void)
{
    retry = false;
    num_ended = num_at_barrier = 0;
    memset(warps, 0, (num_threads + EMU_WARP - 1) / EMU_WARP * sizeof warps[0]);
    for (unsigned int i = 0; i < num_threads; i++) {
        struct emu_thread *t = &threads[i];
        if (!t->fiber.stack)
            emu_fiber_open(&t->fiber, STACK_BYTES);
        emu_fiber_reset(&t->fiber, thread_main);
        t->linear = i;
        t->index.x = i % emu_block_size.x;
        t->index.y = i / emu_block_size.x % emu_block_size.y;
        t->index.z = i / emu_block_size.x / emu_block_size.y;
        t->state = EMU_RUNS;
    }
    emu_race_begin_block();
    emu_self = &threads[emu_race_thread(0, num_threads)];
    emu_fiber_switch(&outside, &emu_self->fiber, false);
}

bool emu_run_grid(struct dim3 grid, struct dim3 block, size_t shared_bytes, void (*run)(void *),
                  void *arg, unsigned long *next)
{
    const unsigned long count = (unsigned long)grid.x * grid.y * grid.z;
    if (emu_self)
        emu_die("a kernel was launched from a kernel");
    body = run;
    body_arg = arg;
    emu_grid_size = grid;
    emu_block_size = block;
    num_threads = block.x * block.y * block.z;
    /* At the end of the region, so that what lies behind it is out of bounds. */
    emu_dynamic_shared = shared_memory + (SHARED_LIMIT_BYTES - shared_bytes) / 16 * 16;
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(shared_memory, sizeof shared_memory);
    __asan_unpoison_memory_region(emu_dynamic_shared, shared_bytes);
#endif
    /* A grid that goes on after it was given up: what its first blocks did is forgotten. */
    emu_race_begin_grid(count, num_threads);
    for (; *next < count; ++*next) {
        const unsigned long number = emu_race_block(*next, count);
        emu_block_index.x = (unsigned int)(number % grid.x);
        emu_block_index.y = (unsigned int)(number / grid.x % grid.y);
        emu_block_index.z = (unsigned int)(number / grid.x / grid.y);
        /* What a block leaves must not help the next one: every float is NaN. */
        memset(emu_dynamic_shared, 0xff, shared_bytes);
        run_block();
        if (retry) {
            for (unsigned int i = 0; i < num_threads; i++)
                emu_fiber_discard(&threads[i].fiber);
            return false;
        }
    }
    emu_race_end_grid();
    return true;
}
