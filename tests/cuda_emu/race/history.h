/* history.h - when things happened in a grid, and what happened before what.
 *
 * A block's barriers order all its threads, __syncwarp those of a warp: so a moment of a thread is
 * how many of each it has come through. Threads that neither of these orders may be ordered by
 * fences: what a thread has done before a fence, and what it knew then, becomes known to a thread
 * that has a fence behind an atomic operation that saw one of the first thread's, behind its fence.
 */
#ifndef INFERD_TESTS_CUDA_EMU_RACE_HISTORY_H
#define INFERD_TESTS_CUDA_EMU_RACE_HISTORY_H

#include "tests/cuda_emu/grid.h"

#include <cstdint>

enum event_kind {
    EVENT_PLAIN,
    EVENT_ATOMIC, /* or another operation that may meet its like */
    EVENT_COPY    /* under way */
};

/* What a thread did, and when. */
struct event {
    uint32_t run;   /* of a block, counted through the whole program; 0: nothing was done */
    uint32_t place; /* in the program, from where the library begins */
    uint64_t thread : 10, kind : 2, barriers : 18, warp_syncs : 14, exchanges : 12, fences : 8;
};

struct warp_clock {
    uint32_t syncs, exchanges; /* since the last barrier */
};
struct block_clock {
    uint32_t run, barriers;
    struct warp_clock warps[EMU_MAX_THREADS / EMU_WARP];
    uint8_t fences[EMU_MAX_THREADS];
    bool has_fences; /* some thread of the grid has come through one */
};
extern struct block_clock history_now;

void history_begin_grid(unsigned int num_threads);
void history_begin_block(void);
void history_barrier(void);
void history_exchange(unsigned int warp, bool orders_memory);
void history_fence(bool of_block);
/* Relaxed operations on `at`: what is read there is known after the next fence; what was known at
 * the last one is there to be read. Then a store that releases, a load that acquires. */
void history_see(const void *at);
void history_show(const void *at);
void history_release(const void *at);
void history_acquire(const void *at);
/* Whether the current thread knows of it by fences. */
bool history_knows(const struct event *a);
/* The number of the block whose run it was. */
unsigned long history_block_of(uint32_t run);

static inline struct event history_event(enum event_kind kind, uint32_t place)
{
    const unsigned int thread = emu_self->linear;
    const struct warp_clock *warp = &history_now.warps[thread / EMU_WARP];
    struct event a;
    a.run = history_now.run;
    a.place = place;
    a.thread = thread;
    a.kind = kind;
    a.barriers = history_now.barriers;
    a.warp_syncs = warp->syncs;
    a.exchanges = warp->exchanges;
    a.fences = history_now.fences[thread];
    return a;
}

/* Whether `a`, of this grid, happened before what the current thread does now. */
static inline bool history_before(const struct event *a)
{
    const unsigned int thread = emu_self->linear, warp = thread / EMU_WARP;
    if (a->kind == EVENT_COPY)
        return false;
    if (a->run == history_now.run) {
        if (a->thread == thread || a->barriers < history_now.barriers)
            return true;
        if (a->thread / EMU_WARP == warp && a->warp_syncs < history_now.warps[warp].syncs)
            return true;
    }
    return history_now.has_fences && history_knows(a);
}

/* Whether only operations of the warp, which order no memory, lie between. */
static inline bool history_around_exchange(const struct event *a)
{
    const unsigned int warp = emu_self->linear / EMU_WARP;
    return a->run == history_now.run && a->thread / EMU_WARP == warp &&
           a->exchanges < history_now.warps[warp].exchanges;
}

#endif
