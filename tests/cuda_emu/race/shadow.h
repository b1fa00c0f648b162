/* shadow.h - what was done last to each word of memory that threads share, in this grid. */
#ifndef INFERD_TESTS_CUDA_EMU_RACE_SHADOW_H
#define INFERD_TESTS_CUDA_EMU_RACE_SHADOW_H

#include "tests/cuda_emu/race/history.h"

enum space { SPACE_NONE, SPACE_SHARED, SPACE_GLOBAL };

/* Of a word of four bytes, or of one byte where the four have not all been accessed alike.
 * Of many reads two are enough to see every write that is not behind all of them: of different
 * blocks if there are such, else of different warps, else of different threads; the same holds for
 * atomic operations. */
struct cell {
    struct event write, reads[2];
    uint32_t grid;    /* else the cell is empty */
    uint32_t atomics; /* 1 + where the two are; 0: there are none */
    uint32_t bytes;   /* 1 + where the four cells of its bytes are; 0: they are all as this one */
    uint32_t unused;
};

void shadow_begin_grid(void);
/* What kind of memory it is; NONE: only one thread has it, or nobody writes to it. */
enum space shadow_space(const void *at);
/* The cell of a word; its bytes' cells, which it is given if it has none. */
struct cell *shadow_cell(uintptr_t word);
struct cell *shadow_bytes(struct cell *c);
struct event *shadow_atomics(struct cell *c);

#endif
