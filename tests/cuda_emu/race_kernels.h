/* race_kernels.h - what the library of test_race.c's kernels has: build/race_kernels.so. */
#ifndef INFERD_TESTS_CUDA_EMU_RACE_KERNELS_H
#define INFERD_TESTS_CUDA_EMU_RACE_KERNELS_H

enum { RACE_KERNELS_OUT = 1024 };

/* Runs the kernel of that name once; `out` [RACE_KERNELS_OUT] is what it has made of zeros. */
void race_kernels_run(const char *name, int *out);

#endif
