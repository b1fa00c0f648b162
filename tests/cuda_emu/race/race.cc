/* race.cc - the race detector: each access is held against what was done to the same bytes before,
 * and must come after it (history.h). */
#include "tests/cuda_emu/race.h"
#include "tests/cuda_emu/race/profile.h"
#include "tests/cuda_emu/race/race_access.h"
#include "tests/cuda_emu/race/report.h"
#include "tests/cuda_emu/race/shadow.h"

#include <cstdlib>
#include <numeric>

/* LOOKS and SETS are reads and writes that may meet each other, and CHANGES, which does both. */
enum operation { READS, WRITES, COPIES, LOOKS, SETS, CHANGES };

namespace
{

/* What the current thread does now, to bytes of one word. */
struct touch {
    enum operation operation;
    bool is_shared;
    struct event me;
    uintptr_t at;
};

uint64_t seed, random_state;

uint64_t next_random()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

const char *verb(enum operation operation)
{
    switch (operation) {
    case READS:
        return "reads";
    case WRITES:
        return "writes";
    case COPIES:
        return "copies to it asynchronously";
    case LOOKS:
        return "reads by an atomic operation";
    case SETS:
    case CHANGES:
        return "writes by an atomic operation";
    }
    return "";
}

void tell(const touch *t, const event *then, const char *did)
{
    enum emu_hazard hazard = EMU_RACE_IN_BLOCK;
    if (then->kind == EVENT_COPY)
        hazard = EMU_RACE_WITH_COPY;
    else if (then->run != t->me.run)
        hazard = EMU_RACE_BETWEEN_BLOCKS;
    else if (history_around_exchange(then))
        hazard = EMU_RACE_AROUND_EXCHANGE;
    const finding f = { hazard, verb(t->operation),  did,         t->me,
                        *then,  (const void *)t->at, t->is_shared };
    report_finding(&f);
}

/* Whether something was done that counts: in shared memory other blocks have their own. */
inline bool counts(const touch *t, const event *a)
{
    return a->run != 0 && (!t->is_shared || a->run == t->me.run);
}

inline void check(const touch *t, const event *then, const char *did)
{
    if (counts(t, then) && !history_before(then))
        tell(t, then, did);
}

/* How little two accesses have in common. */
inline int distance(const event *a, const event *b)
{
    if (a->run != b->run)
        return 3;
    if (a->thread / EMU_WARP != b->thread / EMU_WARP)
        return 2;
    return a->thread != b->thread;
}

/* Keeps the two that are enough, see struct cell. */
void keep(const touch *t, event two[2])
{
    const bool one_past = !counts(t, &two[1]) || history_before(&two[1]);
    if (!counts(t, &two[0]) || history_before(&two[0])) {
        two[0] = t->me;
        if (one_past)
            two[1].run = 0;
    } else if (one_past || distance(&t->me, &two[0]) > distance(&two[1], &two[0])) {
        two[1] = t->me;
    }
}

bool may_meet(enum operation operation)
{
    return operation >= LOOKS;
}

void check_reads(const touch *t, const struct cell *c)
{
    for (const event &read : c->reads)
        if (read.kind != EVENT_ATOMIC || !may_meet(t->operation))
            check(t, &read, read.kind == EVENT_ATOMIC ? "read by an atomic operation" : "read");
}

void check_atomics(const touch *t, struct cell *c)
{
    const event *two = shadow_atomics(c);
    for (int i = 0; i < 2; i++)
        check(t, &two[i], "wrote by an atomic operation");
}

/* Shared memory begins as rubbish. */
void check_there(const touch *t, struct cell *c)
{
    if (counts(t, &c->write))
        return;
    if (c->atomics > 0 && counts(t, &shadow_atomics(c)[0]))
        return;
    const finding f = {
        EMU_READ_OF_NOTHING, verb(t->operation), nullptr, t->me, t->me, (const void *)t->at, true
    };
    report_finding(&f);
}

void apply(const touch *t, struct cell *c)
{
    const bool reads = t->operation == READS || t->operation == LOOKS;
    check(t, &c->write, c->write.kind == EVENT_COPY ? "copied to it asynchronously" : "wrote");
    if (!may_meet(t->operation) && c->atomics > 0)
        check_atomics(t, c);
    if (t->is_shared && (reads || t->operation == CHANGES))
        check_there(t, c);
    if (reads) {
        keep(t, c->reads);
        return;
    }
    check_reads(t, c);
    if (may_meet(t->operation)) {
        keep(t, shadow_atomics(c));
        return;
    }
    c->write = t->me;
    c->reads[0].run = c->reads[1].run = 0;
    c->atomics = 0;
}

/* Each word that `at` and what follows lie in, with the bytes of it that are meant. */
template <typename F> inline void each_word(const void *at, size_t bytes, F f)
{
    const uintptr_t end = (uintptr_t)at + bytes;
    for (uintptr_t from = (uintptr_t)at; from < end;) {
        const uintptr_t word_end = from / 4 * 4 + 4, to = end < word_end ? end : word_end;
        f(shadow_cell(from / 4), from, to);
        from = to;
    }
}

void touch_memory(enum operation operation, const void *at, size_t bytes, const void *pc)
{
    const enum space space = shadow_space(at);
    if (space == SPACE_NONE)
        return;
    if (profile_is_on) {
        profile_access(operation != READS && operation != LOOKS, space, at, bytes, pc);
        return;
    }
    touch t = { operation, space == SPACE_SHARED, {}, 0 };
    const enum event_kind kind = may_meet(operation)   ? EVENT_ATOMIC
                                 : operation == COPIES ? EVENT_COPY
                                                       : EVENT_PLAIN;
    t.me = history_event(kind, report_place(pc));
    each_word(at, bytes, [&t](struct cell *c, uintptr_t from, uintptr_t to) {
        const bool whole = to - from == 4;
        t.at = from;
        if (whole && c->bytes == 0) {
            apply(&t, c);
            return;
        }
        struct cell *parts = shadow_bytes(c);
        for (; t.at < to; t.at++)
            apply(&t, &parts[t.at % 4]);
        if (whole && (t.operation == WRITES || t.operation == COPIES)) {
            *c = parts[0];
            c->bytes = 0;
        }
    });
}

} // namespace

/* --- what kernels do
 * ------------------------------------------------------------------------------
 */

void race_read(const void *at, size_t bytes, const void *pc)
{
    if (race_is_thread(at))
        touch_memory(READS, at, bytes, pc);
}

void race_write(const void *at, size_t bytes, const void *pc)
{
    if (race_is_thread(at))
        touch_memory(WRITES, at, bytes, pc);
}

void race_volatile_read(const void *at, size_t bytes, const void *pc)
{
    if (!race_is_thread(at))
        return;
    touch_memory(LOOKS, at, bytes, pc);
    history_see(at);
}

void race_volatile_write(const void *at, size_t bytes, const void *pc)
{
    if (!race_is_thread(at))
        return;
    touch_memory(SETS, at, bytes, pc);
    history_show(at);
}

void race_copy_begins(const void *to, const void *pc)
{
    touch_memory(COPIES, to, 16, pc);
}

void race_copy_ends(const void *to, const void *pc)
{
    if (profile_is_on)
        return;
    const event me = history_event(EVENT_PLAIN, report_place(pc));
    each_word(to, 16, [&me](struct cell *c, uintptr_t, uintptr_t) {
        c->write = me;
        c->bytes = 0;
    });
}

void race_source_changed(const void *from, const void *pc)
{
    finding f = {
        EMU_RACE_WITH_COPY, "copies what is changed before it waits", nullptr, {}, {}, from, false
    };
    f.now = history_event(EVENT_PLAIN, report_place(pc));
    report_finding(&f);
}

void emu_race_read(const void *at, size_t bytes, const void *pc)
{
    touch_memory(READS, at, bytes, pc);
}

void emu_race_get(const void *at, size_t bytes, const void *pc)
{
    if (!profile_is_on)
        touch_memory(READS, at, bytes, pc);
}

void emu_race_atomic(const void *at, size_t bytes, const void *pc)
{
    touch_memory(CHANGES, at, bytes, pc);
    history_see(at);
    history_show(at);
}

void emu_race_fence(bool of_block)
{
    history_fence(of_block);
}

void emu_race_release(const void *at, size_t bytes, const void *pc)
{
    touch_memory(SETS, at, bytes, pc);
    history_release(at);
}

void emu_race_acquire(const void *at, size_t bytes, const void *pc)
{
    touch_memory(LOOKS, at, bytes, pc);
    history_acquire(at);
}

/* --- what the grid does -------------------------------------------------------------------------
 */

void emu_race_begin_grid(unsigned long, unsigned int num_threads)
{
    if (seed == 0) {
        const char *text = getenv("EMU_SEED");
        emu_race_set_seed(text ? strtoul(text, nullptr, 10) : 1);
    }
    history_begin_grid(num_threads);
    shadow_begin_grid();
}

void emu_race_begin_block(void)
{
    if (profile_is_on)
        profile_all_warps();
    history_begin_block();
    race_drop_copies();
}

void emu_race_end_grid(void)
{
    if (profile_is_on)
        profile_all_warps();
    report_end_grid();
}

void emu_race_barrier(void)
{
    if (profile_is_on)
        profile_all_warps();
    history_barrier();
}

void emu_race_exchange(unsigned int warp, const char *what)
{
    if (profile_is_on)
        profile_warp(warp);
    history_exchange(warp, strcmp(what, "__syncwarp") == 0);
}

extern "C" void emu_race_set_seed(unsigned long value)
{
    seed = value ? value : 1;
    random_state = seed * 0x9e3779b97f4a7c15u;
}

/* In steps of a number that has no divisor in common with that of the blocks. It depends on the
 * seed alone: blocks of two grids that wait for each other come in the same order. */
unsigned long emu_race_block(unsigned long next, unsigned long num_blocks)
{
    unsigned long step = seed * 2654435761u % num_blocks;
    while (std::gcd(step, num_blocks) != 1)
        step++;
    return (unsigned long)(((unsigned __int128)next * step + seed) % num_blocks);
}

unsigned int emu_race_thread(unsigned int, unsigned int num_threads)
{
    return (unsigned int)(next_random() % num_threads);
}

bool emu_race_pauses(void)
{
    return next_random() % 2 != 0;
}
