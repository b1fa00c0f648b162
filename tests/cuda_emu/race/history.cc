/* history.cc - the clocks of blocks and warps, and what threads know of each other by fences. */
#include "tests/cuda_emu/race/history.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

enum {
    MAX_BARRIERS = (1 << 18) - 1,
    MAX_WARP_SYNCS = (1 << 14) - 1,
    MAX_EXCHANGES = (1 << 12) - 1,
    MAX_FENCES = (1 << 8) - 1
};

namespace
{

/* All that a thread had done, and all that barriers and __syncwarp had told it of, is known. */
struct moment {
    uint32_t run, thread, barriers, warp_syncs, fences;
    bool in_block; /* only to threads of the same block */
};
typedef std::vector<moment> horizon;

struct thread_knowledge {
    horizon known;
    horizon seen;     /* by atomic operations; known after the next fence */
    horizon released; /* at the last fence */
};

thread_knowledge threads[EMU_MAX_THREADS];
horizon known_to_block;
std::unordered_map<const void *, horizon> at_address;
std::vector<unsigned long> blocks; /* the number of each run of this grid */
uint32_t first_run = 1;
unsigned int num_threads;

void learn(horizon *to, const horizon &from)
{
    for (const moment &m : from) {
        auto known = std::find_if(to->begin(), to->end(), [&m](const moment &k) {
            return k.run == m.run && k.thread == m.thread && k.in_block == m.in_block;
        });
        if (known == to->end())
            to->push_back(m);
        else if (known->fences < m.fences)
            *known = m;
    }
}

bool covers(const moment &m, const event *a)
{
    if (m.run != a->run || (m.in_block && m.run != history_now.run))
        return false;
    if (m.thread == a->thread)
        return a->fences < m.fences;
    if (m.thread / EMU_WARP == a->thread / EMU_WARP && a->barriers == m.barriers)
        return a->warp_syncs < m.warp_syncs;
    return a->barriers < m.barriers;
}

bool any_covers(const horizon &h, const event *a)
{
    return std::any_of(h.begin(), h.end(), [a](const moment &m) { return covers(m, a); });
}

void forget_threads()
{
    for (unsigned int i = 0; i < num_threads; i++) {
        threads[i].known.clear();
        threads[i].seen.clear();
        threads[i].released.clear();
    }
    known_to_block.clear();
}

} // namespace

struct block_clock history_now;

void history_begin_grid(unsigned int threads_of_block)
{
    if (history_now.has_fences)
        forget_threads();
    num_threads = threads_of_block;
    history_now.has_fences = false;
    at_address.clear();
    blocks.clear();
    first_run = history_now.run + 1;
}

void history_begin_block(void)
{
    if (history_now.has_fences)
        forget_threads();
    blocks.push_back(emu_block_index.x +
                     (unsigned long)emu_grid_size.x *
                         (emu_block_index.y + (unsigned long)emu_grid_size.y * emu_block_index.z));
    history_now.run++;
    history_now.barriers = 0;
    memset(history_now.warps, 0, sizeof history_now.warps);
    memset(history_now.fences, 0, sizeof history_now.fences);
}

unsigned long history_block_of(uint32_t run)
{
    return blocks[run - first_run];
}

void history_barrier(void)
{
    if (++history_now.barriers > MAX_BARRIERS)
        emu_die("more barriers than the race detector can count");
    memset(history_now.warps, 0, sizeof history_now.warps);
    for (unsigned int i = 0; history_now.has_fences && i < num_threads; i++) {
        learn(&known_to_block, threads[i].known);
        threads[i].known.clear();
    }
}

void history_exchange(unsigned int warp, bool orders_memory)
{
    struct warp_clock *clock = &history_now.warps[warp];
    clock->exchanges += clock->exchanges < MAX_EXCHANGES;
    if (!orders_memory)
        return;
    if (++clock->syncs > MAX_WARP_SYNCS)
        emu_die("more __syncwarp without a barrier than the race detector can count");
    if (!history_now.has_fences)
        return;
    horizon all;
    for (unsigned int i = 0; i < EMU_WARP; i++)
        learn(&all, threads[warp * EMU_WARP + i].known);
    for (unsigned int i = 0; i < EMU_WARP; i++)
        threads[warp * EMU_WARP + i].known = all;
}

void history_fence(bool of_block)
{
    const event a = history_event(EVENT_PLAIN, 0);
    thread_knowledge *t = &threads[a.thread];
    history_now.has_fences = true;
    if (++history_now.fences[a.thread] == MAX_FENCES)
        emu_die("more fences than the race detector can count");
    learn(&t->known, t->seen);
    t->seen.clear();
    t->released = { { a.run, (uint32_t)a.thread, (uint32_t)a.barriers, (uint32_t)a.warp_syncs,
                      history_now.fences[a.thread], of_block } };
    learn(&t->released, t->known);
    learn(&t->released, known_to_block);
}

void history_see(const void *at)
{
    if (history_now.has_fences)
        learn(&threads[emu_self->linear].seen, at_address[at]);
}

void history_show(const void *at)
{
    if (history_now.has_fences)
        learn(&at_address[at], threads[emu_self->linear].released);
}

void history_release(const void *at)
{
    history_fence(false);
    at_address[at] = threads[emu_self->linear].released;
}

void history_acquire(const void *at)
{
    if (history_now.has_fences)
        learn(&threads[emu_self->linear].known, at_address[at]);
}

bool history_knows(const struct event *a)
{
    return any_covers(threads[emu_self->linear].known, a) || any_covers(known_to_block, a);
}
