/* test_input_quant.c - what activations in 8 bits become, number by number; and which weights take
 * them. */
#include "kernels/quant/input_quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/quant/fp8.h"
#include "kernels/quant/int_group.h"

static void check(struct input_quant q, const float *x, const float *want, int64_t count)
{
    float out[8];
    assert_true(count <= 8);
    input_quant_row(&q, out, x, count);
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(isnan(out[i]) != 0, isnan(want[i]) != 0);
        assert_true(isnan(want[i]) || out[i] == want[i]);
    }
    memcpy(out, x, (size_t)count * sizeof *x); /* in place */
    input_quant_row(&q, out, out, count);
    for (int64_t i = 0; i < count; i++)
        assert_true(isnan(want[i]) || out[i] == want[i]);
}

/* 254 makes a step of 2: halves of it go to the even code. */
static void whole_numbers(void **state)
{
    (void)state;
    const struct input_quant q = { INPUT_QUANT_INT8, 0 };
    check(q, (float[]){ -254, 3, 5, 0.9f, -1.1f }, (float[]){ -254, 4, 4, 0, -2 }, 5);
    check(q, (float[]){ 0, -0.0f, 0 }, (float[]){ 0, 0, 0 }, 3);
    check(q, (float[]){ 1e-45f, 0 }, (float[]){ 0, 0 }, 2); /* there is no scale so small */
    check(q, (float[]){ 3, NAN, 0 }, (float[]){ NAN, NAN, NAN }, 3);
    check(q, (float[]){ 3, -INFINITY, 0 }, (float[]){ NAN, NAN, NAN }, 3);
}

/* 896 makes a scale of 2; between 256 and 448 codes are 32 apart. */
static void floats(void **state)
{
    (void)state;
    const struct input_quant own = { INPUT_QUANT_FP8, 0 }, fixed = { INPUT_QUANT_FP8, 0.5f };
    check(own, (float[]){ 896, -800, 608, 3 }, (float[]){ 896, -768, 640, 3 }, 4);
    check(own, (float[]){ 0, 0 }, (float[]){ 0, 0 }, 2);
    check(own, (float[]){ 1, NAN }, (float[]){ NAN, NAN }, 2);
    check(own, (float[]){ 1, INFINITY }, (float[]){ NAN, NAN }, 2);
    check(fixed, (float[]){ 1, 1000, -INFINITY, NAN, 0 }, (float[]){ 1, 224, -224, NAN, 0 }, 5);
}

static void which_weights(void **state)
{
    (void)state;
    struct int_group_params p = { 8, 0, QUANT_OFFSET_MIDDLE, DTYPE_BF16 };
    const struct quant_format row = int_group_format(&p), fp8 = fp8_format(0, DTYPE_F32);
    p.group_size = 64;
    const struct quant_format groups = int_group_format(&p), fp8_groups = fp8_format(64, DTYPE_F32);
    p = (struct int_group_params){ 8, 0, QUANT_OFFSET_ZERO, DTYPE_BF16 };
    const struct quant_format zeros = int_group_format(&p);
    p = (struct int_group_params){ 4, 0, QUANT_OFFSET_MIDDLE, DTYPE_BF16 };
    const struct quant_format four = int_group_format(&p);
    assert_true(input_quant_fits(INPUT_QUANT_INT8, &row, INPUT_QUANT_MAX_COLS));
    assert_true(input_quant_fits(INPUT_QUANT_FP8, &fp8, 64));
    assert_false(input_quant_fits(INPUT_QUANT_INT8, &row, INPUT_QUANT_MAX_COLS + 1));
    assert_false(input_quant_fits(INPUT_QUANT_NONE, &row, 64));
    assert_false(input_quant_fits(INPUT_QUANT_FP8, &row, 64));
    assert_false(input_quant_fits(INPUT_QUANT_INT8, &fp8, 64));
    assert_false(input_quant_fits(INPUT_QUANT_INT8, &groups, 64));
    assert_false(input_quant_fits(INPUT_QUANT_FP8, &fp8_groups, 64));
    assert_false(input_quant_fits(INPUT_QUANT_INT8, &zeros, 64));
    assert_false(input_quant_fits(INPUT_QUANT_INT8, &four, 64));
    assert_false(input_quant_fits(INPUT_QUANT_INT8, &quant_format_float32, 64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(floats),
        cmocka_unit_test(which_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
