/* cpu_fixture.h - what the tests of the CPU's ops share: a device without a backend around it,
 * random numbers from a printed seed, and comparisons. */
#ifndef INFERD_TESTS_KERNELS_CPU_FIXTURE_H
#define INFERD_TESTS_KERNELS_CPU_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernels/cpu/cpu_ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- random numbers --------------------------------------------------------------------------- */

static uint64_t fixture_seed, fixture_counter;

/* A fresh seed, or the one in INFERD_TEST_SEED, to repeat a failure; and only the tests that
 * INFERD_TEST_FILTER names, where it is set. */
static inline void fixture_start(void)
{
    const char *wanted = getenv("INFERD_TEST_SEED");
    if (wanted)
        fixture_seed = strtoull(wanted, NULL, 0);
    else
        rng_system(&fixture_seed, sizeof fixture_seed);
    const char *filter = getenv("INFERD_TEST_FILTER");
    if (filter)
        cmocka_set_test_filter(filter);
    printf("INFERD_TEST_SEED=0x%llx\n", (unsigned long long)fixture_seed);
    fflush(stdout);
}

static inline uint32_t random_word(void)
{
    return rng_philox(fixture_seed, 7, fixture_counter++).word[0];
}
/* In [low, high]. */
static inline int32_t random_int(int32_t low, int32_t high)
{
    return low + (int32_t)(random_word() % (uint32_t)(high - low + 1));
}
static inline float random_uniform(float low, float high)
{
    return low + (high - low) * rng_uniform(random_word());
}
static inline float random_normal(void)
{
    struct rng_block b = rng_philox(fixture_seed, 8, fixture_counter++);
    return sqrtf(-2 * logf(rng_uniform(b.word[0]))) * cosf(6.2831853f * rng_uniform(b.word[1]));
}
static inline float *random_floats(size_t count, float deviation)
{
    float *x = malloc((count ? count : 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < count; i++)
        x[i] = deviation * random_normal();
    return x;
}
/* 0 to count - 1 in any order; the caller frees it. */
static inline int32_t *random_order(int32_t count)
{
    int32_t *order = malloc((size_t)count * sizeof *order + 1);
    assert_non_null(order);
    for (int32_t i = 0; i < count; i++) {
        const int32_t other = random_int(0, i);
        order[i] = i;
        order[i] = order[other];
        order[other] = i;
    }
    return order;
}
#define RANDOM_OF(...)                                                                             \
    ((const int32_t[]){ __VA_ARGS__ })[random_int(                                                 \
        0, (int32_t)(sizeof((const int32_t[]){ __VA_ARGS__ }) / sizeof(int32_t)) - 1)]

/* --- devices ---------------------------------------------------------------------------------- */

static inline struct cpu_device *fixture_open(enum cpu_isa isa, int32_t num_threads,
                                              const struct workspace_desc *w)
{
    struct status st;
    struct cpu_device *d = calloc(1, sizeof *d);
    assert_non_null(d);
    d->isa = isa;
    if (!thread_pool_open(&d->pool, &(struct thread_pool_options){ num_threads, false, 0, 0 }, &st))
        fail_msg("%s", st.message);
    d->num_threads = thread_pool_size(d->pool);
    d->limits = *w;
    /* Exactly what was asked for, so that a sanitizer sees any step past it; and not zeroed. */
    d->attention_scratch_bytes = cpu_attention_scratch_bytes(d, w);
    d->sampling_scratch_bytes = cpu_sampling_scratch_bytes(d, w);
    assert_int_equal(posix_memalign(&d->attention_scratch, 64, d->attention_scratch_bytes + 1), 0);
    assert_int_equal(posix_memalign(&d->sampling_scratch, 64, d->sampling_scratch_bytes + 1), 0);
    memset(d->attention_scratch, 0xff, d->attention_scratch_bytes);
    memset(d->sampling_scratch, 0xff, d->sampling_scratch_bytes);
    return d;
}

static inline void fixture_close(struct cpu_device *d)
{
    thread_pool_close(d->pool);
    free(d->attention_scratch);
    free(d->sampling_scratch);
    free(d);
}

/* The levels whose kernels differ on this machine: scalar first. */
static inline int fixture_isas(enum cpu_isa out[NUM_CPU_ISAS])
{
    int count = 0;
    for (int isa = CPU_ISA_SCALAR; isa <= (int)cpu_isa_detect(); isa++)
        out[count++] = (enum cpu_isa)isa;
    return count;
}

/* --- comparisons ------------------------------------------------------------------------------ */

/* |a - b| <= absolute + relative |b|, or both NaN, or equal infinities. */
static inline void assert_close(const float *a, const double *b, size_t count, double absolute,
                                double relative, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        bool same = (isnan(a[i]) && isnan(b[i])) || (double)a[i] == b[i] ||
                    fabs((double)a[i] - b[i]) <= absolute + relative * fabs(b[i]);
        if (!same)
            fail_msg("%s: element %zu of %zu is %.9g, not %.9g", what, i, count, (double)a[i],
                     b[i]);
    }
}

static inline void assert_same_bits(const float *a, const float *b, size_t count, const char *what)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: element %zu of %zu is %.9g, not %.9g bit for bit", what, i, count,
                     (double)a[i], (double)b[i]);
}

#endif
