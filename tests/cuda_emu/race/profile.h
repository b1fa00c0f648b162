/* profile.h - what a kernel's accesses to memory cost on a device: 32-byte sectors of global
 * memory, wavefronts of shared memory. EMU_PROFILE in the environment names the file that gets the
 * table when the program ends.
 *
 * The lanes of a warp that are at the same place of the program for the same time since the warp
 * was last together are one instruction. A wavefront gives each of 32 banks one word: accesses of
 * up to 4 bytes are a wavefront for all lanes, of 8 bytes for each half of them, of 16 for each
 * quarter, and one more for each further word that a bank is asked for. */
#ifndef INFERD_TESTS_CUDA_EMU_RACE_PROFILE_H
#define INFERD_TESTS_CUDA_EMU_RACE_PROFILE_H

#include "tests/cuda_emu/race/shadow.h"

extern bool profile_is_on;

/* One of the current thread's; it reads or it writes. */
void profile_access(bool writes, enum space space, const void *at, size_t bytes, const void *pc);
/* All lanes of the warp are at one place, or have ended. */
void profile_warp(unsigned int warp);
void profile_all_warps(void);

#endif
