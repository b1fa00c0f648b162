/* race_control.h - what a test can ask of the race detector. Found by dlsym in a library that was
 * built with it. */
#ifndef INFERD_TESTS_CUDA_EMU_RACE_CONTROL_H
#define INFERD_TESTS_CUDA_EMU_RACE_CONTROL_H

#ifdef __cplusplus
extern "C" {
#endif

enum emu_hazard {
    /* Two threads of a block, one of which writes, and nothing between them. */
    EMU_RACE_IN_BLOCK,
    /* Of one warp, and between them nothing but a shuffle, a vote or a matrix operation: these
     * promise nothing about memory. */
    EMU_RACE_AROUND_EXCHANGE,
    EMU_RACE_BETWEEN_BLOCKS,
    /* What an asynchronous copy reads or writes is touched before its thread has waited for it. */
    EMU_RACE_WITH_COPY,
    /* Shared memory is read that the block has not written. */
    EMU_READ_OF_NOTHING,
};

/* `found` is called for each hazard, the first time that it is seen at these two places of the
 * program; NULL: it is printed, and the program ends with the grid. */
void emu_race_set_listener(void (*found)(enum emu_hazard hazard, const char *report));
/* Of the orders of blocks and threads; else it is EMU_SEED in the environment, or 1. */
void emu_race_set_seed(unsigned long seed);
/* Between the two, what kernels ask of memory is counted (race/profile.h), and nothing is looked
 * for; the second adds the table to that file. */
void emu_profile_begin(void);
void emu_profile_end(const char *path);

#ifdef __cplusplus
}
#endif

#endif
