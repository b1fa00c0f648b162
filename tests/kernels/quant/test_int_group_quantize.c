/* test_int_group_quantize.c - what quantization at load makes of rows: within half a step, better
 * with the search than without, and nothing of rows that codes can hold exactly is lost. */
#include "kernels/quant/fp8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/quant_rows.h"

enum { COUNT = 1000 };

/* Sums of three are near enough to normal. */
static void random_row(float *x)
{
    for (int i = 0; i < COUNT; i++)
        x[i] = (random_value() + random_value() + random_value()) * 0.02f;
}

static void round_trip(const struct quant_format *f, float *out, const float *x, int32_t count)
{
    unsigned char *row = malloc(quant_row_bytes(f, count));
    f->quantize(f, row, x, count);
    f->dequantize(f, out, row, 0, count);
    free(row);
}

static double squared_error(const float *a, const float *b)
{
    double sum = 0;
    for (int i = 0; i < COUNT; i++)
        sum += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
    return sum;
}

/* Codes spread evenly from the least to the greatest of a group. */
static double plain_error(const float *x, int32_t group)
{
    double sum = 0;
    for (int32_t begin = 0; begin < COUNT; begin += group) {
        int32_t n = COUNT - begin < group ? COUNT - begin : group;
        float low = x[begin], high = x[begin];
        for (int32_t i = 0; i < n; i++) {
            low = fminf(low, x[begin + i]);
            high = fmaxf(high, x[begin + i]);
        }
        float step = (high - low) / 15;
        for (int32_t i = 0; i < n; i++) {
            double off = (double)(roundf((x[begin + i] - low) / step) * step + low - x[begin + i]);
            sum += off * off;
        }
    }
    return sum;
}

static void test_search_beats_the_plain_range(void **state)
{
    static const int32_t groups[] = { 32, 64, 128 };
    (void)state;
    for (int g = 0; g < 3; g++) {
        struct quant_format f = int_group_format(
            &(struct int_group_params){ 4, groups[g], QUANT_OFFSET_MIN, DTYPE_F16 });
        double searched = 0, plain = 0;
        for (int round = 0; round < 20; round++) {
            float x[COUNT], y[COUNT];
            random_row(x);
            round_trip(&f, y, x, COUNT);
            searched += squared_error(x, y);
            plain += plain_error(x, groups[g]);
        }
        print_message("groups of %d: %.3f of the plain error\n", groups[g], searched / plain);
        assert_true(searched < 0.97 * plain);
    }
}

static void test_exact_rows_come_back(void **state)
{
    (void)state;
    struct quant_format f =
        int_group_format(&(struct int_group_params){ 4, 32, QUANT_OFFSET_MIN, DTYPE_F16 });
    for (int round = 0; round < 50; round++) {
        float x[COUNT], y[COUNT];
        for (int g = 0; g < COUNT; g += 32) {
            float scale = f16_to_f32(f16_from_f32(0.001f + 0.01f * fabsf(random_value())));
            float min = f16_to_f32(f16_from_f32(random_value() * 0.1f));
            for (int i = g; i < g + 32 && i < COUNT; i++) /* both ends are there */
                x[i] = (float)(i % 32 == 0 ? 0 : i % 32 == 1 ? 15 : random_in(0, 15)) * scale + min;
        }
        round_trip(&f, y, x, COUNT);
        for (int i = 0; i < COUNT; i++)
            assert_true(fabsf(x[i] - y[i]) <= 1e-3f * fabsf(x[i]) + 1e-4f);
    }
}

static void test_eight_bits(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct quant_format f = kind == 0 ? fp8_format(0, DTYPE_F32)
                                          : int_group_format(&(struct int_group_params){
                                                8, 128, QUANT_OFFSET_MIDDLE, DTYPE_F16 });
        for (int round = 0; round < 50; round++) {
            float x[COUNT], y[COUNT], most = 0;
            random_row(x);
            for (int i = 0; i < COUNT; i++)
                most = fmaxf(most, fabsf(x[i]));
            round_trip(&f, y, x, COUNT);
            for (int i = 0; i < COUNT; i++) {
                /* fp8: half of the last place, or of the smallest step at the greatest scale that
                 * is tried, 2^(3/4) times the one that spans the row. int8: half a step; the scale
                 * and the product, up to 127 steps, are each rounded to float16. */
                float step = kind == 0 ? fmaxf(fabsf(x[i]) / 16, most / 448 * 1.6818f * 0x1p-10f)
                                       : most / 127 * (0.5f + 2 * 127 * 0x1p-11f);
                assert_true(fabsf(x[i] - y[i]) <= step * 1.001f);
            }
        }
    }
}

static void test_rows_without_a_range(void **state)
{
    (void)state;
    static const float values[] = { 0, 0.5f, -3, 1e-30f };
    for (int v = 0; v < 4; v++)
        for (int kind = 0; kind < 3; kind++) {
            float x[COUNT], y[COUNT];
            struct quant_format f =
                kind == 0 ? fp8_format(0, DTYPE_F32)
                          : int_group_format(&(struct int_group_params){
                                kind == 1 ? 8 : 4, 32,
                                kind == 1 ? QUANT_OFFSET_MIDDLE : QUANT_OFFSET_MIN, DTYPE_F16 });
            for (int i = 0; i < COUNT; i++)
                x[i] = values[v];
            round_trip(&f, y, x, COUNT);
            for (int i = 0; i < COUNT; i++)
                assert_true(fabsf(y[i] - x[i]) <= 0x1p-10f * fabsf(x[i]) + 1e-29f);
            x[3] = NAN; /* whatever it becomes, it is one of the codes */
            round_trip(&f, y, x, COUNT);
        }
}

int main(void)
{
    rng_system(&seed, sizeof seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search_beats_the_plain_range),
        cmocka_unit_test(test_exact_rows_come_back),
        cmocka_unit_test(test_eight_bits),
        cmocka_unit_test(test_rows_without_a_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
