/* race_access.h - between the parts of the race detector that see accesses to memory. */
#ifndef INFERD_TESTS_CUDA_EMU_RACE_RACE_EVENT_H
#define INFERD_TESTS_CUDA_EMU_RACE_RACE_EVENT_H

#include "tests/cuda_emu/grid.h"

#include <cstddef>
#include <cstdint>

/* Whether an emulated thread runs here, and `at` is not on its stack: the host's threads run the
 * same code, to launch a kernel, while another one of them runs a grid. */
static inline bool race_is_thread(const void *at)
{
    const struct emu_thread *self = emu_self;
    if (!self)
        return false;
    const uintptr_t stack = (uintptr_t)self->fiber.stack;
    return (uintptr_t)__builtin_frame_address(0) - stack < self->fiber.stack_bytes &&
           (uintptr_t)at - stack >= self->fiber.stack_bytes;
}

void race_read(const void *at, size_t bytes, const void *pc);
void race_write(const void *at, size_t bytes, const void *pc);
/* PTX makes these relaxed operations, which may meet each other. */
void race_volatile_read(const void *at, size_t bytes, const void *pc);
void race_volatile_write(const void *at, size_t bytes, const void *pc);

/* An asynchronous copy of 16 bytes to shared memory, from when it is begun to when its thread has
 * waited for it. */
void race_copy_begins(const void *to, const void *pc);
void race_copy_ends(const void *to, const void *pc);
void race_source_changed(const void *from, const void *pc);
/* Those of the last block, which nobody waited for. */
void race_drop_copies(void);

#endif
