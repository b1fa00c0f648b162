/* grid.h - runs a kernel's grid: its blocks one after another, a block's threads as fibers.
 *
 * A thread runs until it waits: at the block's barrier, or in an operation of its warp until all 32
 * lanes have come to the same one. What CUDA leaves undefined ends the program with a message:
 * threads at different operations of one warp, a thread that ends while others wait for it. */
#ifndef INFERD_TESTS_CUDA_EMU_GRID_H
#define INFERD_TESTS_CUDA_EMU_GRID_H

#include "tests/cuda_emu/fiber.h"

#include <cstdint>
#include <cstring>

struct uint3 {
    unsigned int x, y, z;
};
struct dim3 {
    unsigned int x, y, z;
    dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

enum { EMU_WARP = 32, EMU_MAX_THREADS = 1024, EMU_SLOT_BYTES = 64 };

/* What a lane brings to an operation of its warp. */
struct emu_slot {
    alignas(16) unsigned char bytes[EMU_SLOT_BYTES];
};

enum emu_state { EMU_RUNS, EMU_WAITS_WARP, EMU_WAITS_BLOCK, EMU_ENDED };

struct emu_thread {
    struct emu_fiber fiber;
    struct uint3 index;
    unsigned int linear; /* within the block */
    enum emu_state state;
};

extern struct emu_thread *emu_self;
extern struct uint3 emu_block_index;
extern struct dim3 emu_block_size, emu_grid_size;
extern unsigned char *emu_dynamic_shared;

/* Runs body() once per thread of the grid, beginning with the *next-th, which counts x first; it is
 * the first that is not done afterwards. False: that one waits for something, see emu_retry_block,
 * and the grid shall go on with it later. */
bool emu_run_grid(struct dim3 grid, struct dim3 block, size_t shared_bytes, void (*body)(void *),
                  void *arg, unsigned long *next);
/* Gives the block up, to begin it anew when others have run: what it has done so far must be what
 * it would do again. */
[[noreturn]] void emu_retry_block(void);
void emu_barrier(void);
/* Every lane brings `size` bytes to operation `what` (a literal); when all have come, returns the
 * 32 slots, which stay as they are until the lane's operation after the next. */
const struct emu_slot *emu_exchange(const char *what, const void *mine, size_t size);
[[noreturn]] void emu_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
