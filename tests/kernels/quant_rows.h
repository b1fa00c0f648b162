/* quant_rows.h - random rows of the families of formats in kernels/quant, for tests of kernels.
 * Include after cmocka.h. */
#ifndef INFERD_TESTS_KERNELS_QUANT_ROWS_H
#define INFERD_TESTS_KERNELS_QUANT_ROWS_H

#include "base/rng.h"
#include "kernels/quant/int_group.h"

#include <stdlib.h>
#include <string.h>

static uint64_t seed, counter;

static inline uint32_t random_word(void)
{
    return rng_philox(seed, 0, counter++).word[0];
}

static inline int32_t random_in(int32_t low, int32_t high)
{
    return low + (int32_t)(random_word() % (uint32_t)(high - low + 1));
}

static inline float random_value(void)
{
    return rng_uniform(random_word()) * 2.0f - 1.0f;
}

/* Of the family of integers, with one of these group sizes. */
static inline struct quant_format random_quant_format(const int32_t *sizes, int32_t num_sizes)
{
    return int_group_format(&(struct int_group_params){
        .bits = random_in(0, 1) ? 4 : 8,
        .group_size = sizes[random_in(0, num_sizes - 1)],
        .offset = (enum quant_offset)random_in(QUANT_OFFSET_MIDDLE, QUANT_OFFSET_MIN),
        .scale_dtype = (enum dtype)random_in(DTYPE_F32, DTYPE_F16),
    });
}

static inline void random_head(const struct quant_format *f, char *at)
{
    float scale = random_value() * 0.01f, min = random_value();
    uint32_t narrow_scale, narrow_min;
    dtype_convert(&narrow_scale, f->dtype, &scale, DTYPE_F32, 1);
    dtype_convert(&narrow_min, f->dtype, &min, DTYPE_F32, 1);
    int_group_set_head(f, at, &narrow_scale, random_in(0, 1 << f->bits), &narrow_min);
}

static inline void random_quant_row(const struct quant_format *f, char *row, int32_t count)
{
    size_t bytes = quant_row_bytes(f, count);
    for (size_t i = 0; i < bytes; i++)
        row[i] = (char)random_word();
    if (f->header_bytes > 0)
        random_head(f, row);
    for (size_t at = 0; f->header_bytes == 0 && at < bytes; at += (size_t)f->block_bytes)
        random_head(f, row + at);
}

#endif
