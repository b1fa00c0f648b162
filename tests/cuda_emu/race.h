/* race.h - where the emulated device tells the race detector (tests/cuda_emu/race) what happens.
 *
 * Only the build with EMU_RACECHECK has a detector; elsewhere asynchronous copies are done at once,
 * and all else is nothing. There the
 * kernels are compiled with calls at every access to memory (-fsanitize=thread, whose functions are
 * ours, see callbacks.cc); what stands in for an instruction of the device is not, and says itself
 * what that instruction does to memory. */
#ifndef INFERD_TESTS_CUDA_EMU_RACE_H
#define INFERD_TESTS_CUDA_EMU_RACE_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef EMU_RACECHECK

/* Variables of the emulator's that kernels read, such as threadIdx. */
#define EMU_OWN __attribute__((section("emu_own")))
/* Functions whose accesses are none of the device's; the second kind has a return address, which is
 * where the kernel is. */
#define EMU_QUIET  __attribute__((no_sanitize("thread"))) inline
#define EMU_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#define EMU_PC     __builtin_return_address(0)

/* --- for grid.cc ------------------------------------------------------------------------------ */

/* `num_blocks` of `num_threads` are to come, in any order. */
void emu_race_begin_grid(unsigned long num_blocks, unsigned int num_threads);
void emu_race_begin_block(void);
/* Reports what was found: ends the program, unless something else is asked for. */
void emu_race_end_grid(void);
/* All threads of the block, or all lanes of a warp, have come to it. */
void emu_race_barrier(void);
void emu_race_exchange(unsigned int warp, const char *what);
/* Orders that a program must not depend on, from EMU_SEED in the environment: the block that is
 * run as number `next`, the thread to go on with, whether a thread that could go on lets others. */
unsigned long emu_race_block(unsigned long next, unsigned long num_blocks);
unsigned int emu_race_thread(unsigned int after, unsigned int num_threads);
bool emu_race_pauses(void);

/* --- for the device's instructions; `pc` is the kernel's ----------------------------------------
 */

void emu_race_read(const void *at, size_t bytes, const void *pc);
/* Gets what another lane reads for it. */
void emu_race_get(const void *at, size_t bytes, const void *pc);
/* Reads, changes and writes as one; with fences around it, threads order themselves by it. */
void emu_race_atomic(const void *at, size_t bytes, const void *pc);
void emu_race_fence(bool of_block);
void emu_race_release(const void *at, size_t bytes, const void *pc);
void emu_race_acquire(const void *at, size_t bytes, const void *pc);
/* 16 bytes, or zeros where `from` is NULL; they arrive when this thread waits for their group. */
void emu_race_copy_async(void *to, const void *from, const void *pc);
void emu_race_commit_copies(void);
void emu_race_wait_for_copies(unsigned int groups_under_way);

#else

#define EMU_OWN
#define EMU_QUIET  inline
#define EMU_UNSEEN inline
#define EMU_PC     nullptr

static inline void emu_race_begin_grid(unsigned long, unsigned int)
{
}
static inline void emu_race_begin_block(void)
{
}
static inline void emu_race_end_grid(void)
{
}
static inline void emu_race_barrier(void)
{
}
static inline void emu_race_exchange(unsigned int, const char *)
{
}
static inline unsigned long emu_race_block(unsigned long next, unsigned long)
{
    return next;
}
static inline unsigned int emu_race_thread(unsigned int after, unsigned int)
{
    return after;
}
static inline bool emu_race_pauses(void)
{
    return false;
}
static inline void emu_race_read(const void *, size_t, const void *)
{
}
static inline void emu_race_get(const void *, size_t, const void *)
{
}
static inline void emu_race_atomic(const void *, size_t, const void *)
{
}
static inline void emu_race_fence(bool)
{
}
static inline void emu_race_release(const void *, size_t, const void *)
{
}
static inline void emu_race_acquire(const void *, size_t, const void *)
{
}
static inline void emu_race_copy_async(void *to, const void *from, const void *)
{
    if (from)
        memcpy(to, from, 16);
    else
        memset(to, 0, 16);
}
static inline void emu_race_commit_copies(void)
{
}
static inline void emu_race_wait_for_copies(unsigned int)
{
}

#endif

#endif
