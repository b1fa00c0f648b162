/* fiber.h - a stack of its own for each emulated thread, and the switch between two of them.
 *
 * Not for several operating-system threads at once: whoever runs a grid holds the runtime's lock.
 */
#ifndef INFERD_TESTS_CUDA_EMU_FIBER_H
#define INFERD_TESTS_CUDA_EMU_FIBER_H

#include <cstddef>
#include <ucontext.h>

struct emu_fiber {
    void *stack; /* lowest address; NULL: the thread that runs the grid */
    size_t stack_bytes;
    void *sp;           /* where it goes on; x86-64 */
    ucontext_t context; /* elsewhere */
    void *asan_stack;
    void (*entry)(); /* never returns */
};

/* Gives the fiber a stack, once. */
void emu_fiber_open(struct emu_fiber *f, size_t stack_bytes);
/* Makes it begin at `entry` when switched to next. */
void emu_fiber_reset(struct emu_fiber *f, void (*entry)());
/* What runs on it is left where it stands; it may be reset. */
void emu_fiber_discard(struct emu_fiber *f);
/* `last`: `from` is never switched back to as it stands. */
void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to, bool last);
/* The first thing that a fiber's entry calls. */
void emu_fiber_entered(struct emu_fiber *f);

#endif
