/* rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). The same key and counter give the same words on every backend, so
 * sampling depends on the request's seed and position only, never on what else runs. */
#ifndef INFERD_BASE_RNG_H
#define INFERD_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng_block {
    uint32_t word[4];
};

struct rng_block rng_philox(uint64_t key, uint64_t counter_high, uint64_t counter_low);
/* A float in (0, 1), never 0 or 1: (w >> 9 + 0.5) * 2^-23. */
float rng_uniform(uint32_t word);
/* Unpredictable bytes from the system; aborts where it has none. */
void rng_system(void *out, size_t len);

#endif
