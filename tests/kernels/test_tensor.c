/* test_tensor.c - conversions of every 16-bit value there is and back, rounding, and dtype names.
 */
#include "kernels/tensor.h"

#include "base/rng.h"
#include "kernels/quant/quant_format.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The value that IEEE 754 gives the bits, computed with ldexp rather than with shifts. */
static double f16_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    return exponent ? sign * ldexp(1024 + fraction, exponent - 25) : sign * ldexp(fraction, -24);
}

static void test_f16_to_f32_of_every_value(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        float value = f16_to_f32((uint16_t)i);
        double expected = f16_value((uint16_t)i);
        if (isnan(expected)) {
            assert_true(isnan(value));
            assert_int_equal(bits_of(value) >> 13 & 0x3ff, i & 0x3ff); /* the payload too */
        } else {
            assert_true((double)value == expected);
        }
        assert_int_equal(bits_of(value) >> 31, i >> 15);
    }
}

static void test_bf16_to_f32_of_every_value(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++)
        assert_int_equal(bits_of(bf16_to_f32((uint16_t)i)), i << 16);
}

static void test_every_16_bit_value_comes_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t half = f16_from_f32(f16_to_f32((uint16_t)i));
        uint16_t brain = bf16_from_f32(bf16_to_f32((uint16_t)i));
        /* A NaN stays one, made quiet. */
        assert_int_equal(half, (i & 0x7fff) > 0x7c00 ? i | 0x200 : i);
        assert_int_equal(brain, (i & 0x7fff) > 0x7f80 ? i | 0x40 : i);
    }
}

/* Between each pair of neighbours: just below, at and just above the middle. */
static void check_rounding(uint16_t (*narrow)(float), float (*widen)(uint16_t), uint16_t infinity)
{
    for (uint32_t i = 0; i + 1 < infinity; i++) {
        float low = widen((uint16_t)i), high = widen((uint16_t)(i + 1));
        float middle = (float)(((double)low + (double)high) / 2);
        uint16_t even = (uint16_t)(i % 2 == 0 ? i : i + 1);
        assert_int_equal(narrow(middle), even);
        assert_int_equal(narrow(-middle), even | 0x8000);
        if (middle > low) {
            assert_int_equal(narrow(nextafterf(middle, 0)), i);
            assert_int_equal(narrow(nextafterf(middle, INFINITY)), i + 1);
        }
    }
}

static void test_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(f16_from_f32, f16_to_f32, 0x7c00);
    check_rounding(bf16_from_f32, bf16_to_f32, 0x7f80);
    assert_int_equal(f16_from_f32(65519.99f), 0x7bff);
    assert_int_equal(f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(f16_from_f32(-1e30f), 0xfc00);
    assert_int_equal(f16_from_f32(INFINITY), 0x7c00);
    assert_int_equal(f16_from_f32(1e-30f), 0);
    assert_int_equal(f16_from_f32(-1e-30f), 0x8000);
    assert_int_equal(bf16_from_f32(float_of(0x7f7fffff)), 0x7f80);
    assert_int_equal(bf16_from_f32(-INFINITY), 0xff80);
    assert_true(isnan(bf16_to_f32(bf16_from_f32(float_of(0x7f800001)))));
    assert_true(isnan(f16_to_f32(f16_from_f32(float_of(0xff800001)))));
}

static void test_convert_agrees_with_the_scalars(void **state)
{
    (void)state;
    enum { COUNT = 1003 };
    float *wide = malloc(COUNT * sizeof *wide), *wide_out = malloc(COUNT * sizeof *wide_out);
    uint16_t *brain = malloc(COUNT * sizeof *brain), *half = malloc(COUNT * sizeof *half);
    uint16_t *narrow_out = malloc(COUNT * sizeof *narrow_out);
    for (uint32_t i = 0; i < COUNT; i++) {
        wide[i] = float_of(rng_philox(7, 0, i).word[0]);
        brain[i] = (uint16_t)rng_philox(7, 1, i).word[0];
        half[i] = (uint16_t)rng_philox(7, 2, i).word[0];
    }
    for (size_t n = 0; n <= COUNT; n += n < 40 ? 1 : 321) {
        dtype_convert(narrow_out, DTYPE_BF16, wide, DTYPE_F32, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(narrow_out[i], bf16_from_f32(wide[i]));
        dtype_convert(narrow_out, DTYPE_F16, wide, DTYPE_F32, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(narrow_out[i], f16_from_f32(wide[i]));
        dtype_convert(wide_out, DTYPE_F32, brain, DTYPE_BF16, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(bits_of(wide_out[i]), bits_of(bf16_to_f32(brain[i])));
        dtype_convert(wide_out, DTYPE_F32, half, DTYPE_F16, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(bits_of(wide_out[i]), bits_of(f16_to_f32(half[i])));
        dtype_convert(narrow_out, DTYPE_F16, brain, DTYPE_BF16, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(narrow_out[i], f16_from_f32(bf16_to_f32(brain[i])));
        dtype_convert(narrow_out, DTYPE_BF16, half, DTYPE_F16, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(narrow_out[i], bf16_from_f32(f16_to_f32(half[i])));
        dtype_convert(wide_out, DTYPE_F32, wide, DTYPE_F32, n);
        assert_memory_equal(wide_out, wide, n * sizeof *wide);
        dtype_convert(narrow_out, DTYPE_F16, half, DTYPE_F16, n);
        assert_memory_equal(narrow_out, half, n * sizeof *half);
    }
    free(wide);
    free(wide_out);
    free(brain);
    free(half);
    free(narrow_out);
}

static void test_names(void **state)
{
    (void)state;
    enum dtype dtype;
    for (int i = 0; i < NUM_DTYPES; i++) {
        /* Those of 8 bits are no dtype that a model could have. */
        assert_int_equal(dtype_parse(dtype_name((enum dtype)i), &dtype), i < DTYPE_F8_E4M3);
        assert_true(i >= DTYPE_F8_E4M3 || (int)dtype == i);
    }
    assert_true(dtype_parse("half", &dtype) && dtype == DTYPE_F16);
    assert_true(dtype_parse("float", &dtype) && dtype == DTYPE_F32);
    assert_false(dtype_parse("float8", &dtype));
    assert_false(dtype_parse("", &dtype));
    assert_false(dtype_parse(NULL, &dtype));
    assert_int_equal(dtype_size(DTYPE_F32), 4);
    assert_int_equal(dtype_size(DTYPE_BF16), 2);
    assert_int_equal(dtype_size(DTYPE_F16), 2);
    assert_int_equal(dtype_size(DTYPE_I32), 4);
    assert_int_equal(dtype_size(DTYPE_F8_E4M3), 1);
    assert_int_equal(dtype_size(DTYPE_I8), 1);
}

/* E4M3 without infinities, from its definition; and each value and what lies between two of them.
 */
static void test_fp8_e4m3(void **state)
{
    (void)state;
    float last = -1;
    for (int i = 0; i < 256; i++) {
        int exponent = i >> 3 & 15, mantissa = i & 7;
        double size = exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
        float value = fp8_e4m3_to_f32((uint8_t)i);
        if ((i & 0x7f) == 0x7f) {
            assert_true(isnan(value));
            continue;
        }
        assert_true((double)value == (i & 0x80 ? -size : size));
        assert_int_equal(signbit(value) != 0, i >> 7);
        assert_int_equal(fp8_e4m3_from_f32(value), i);
        if (i > 0 && i < 0x7f) {
            float middle = last + (value - last) / 2; /* exact; a tie, which goes to the even one */
            assert_int_equal(fp8_e4m3_from_f32(middle), i - 1 + ((i - 1) & 1));
            assert_int_equal(fp8_e4m3_from_f32(nextafterf(middle, 0)), i - 1);
            assert_int_equal(fp8_e4m3_from_f32(-nextafterf(middle, 1000)), 0x80 | i);
        }
        last = value;
    }
    assert_int_equal(fp8_e4m3_from_f32(449), 0x7e);
    assert_int_equal(fp8_e4m3_from_f32(-1e30f), 0xfe);
    assert_int_equal(fp8_e4m3_from_f32(INFINITY), 0x7e);
    assert_int_equal(fp8_e4m3_from_f32(NAN) & 0x7f, 0x7f);
    assert_int_equal(fp8_e4m3_from_f32(1e-30f), 0);
}

static void test_columns_of_a_view(void **state)
{
    (void)state;
    uint16_t data[12] = { 0 };
    struct tensor t = tensor_view(data, DTYPE_BF16, 3, 4);
    struct tensor c = tensor_columns(&t, 1, 2);
    assert_ptr_equal(c.data, data + 1);
    assert_int_equal(c.cols, 2);
    assert_int_equal(c.stride, 4);
    assert_int_equal(c.rows, 3);
}

static void test_formats(void **state)
{
    (void)state;
    for (int i = DTYPE_F32; i <= DTYPE_F16; i++) {
        const struct quant_format *f = quant_format_of_dtype((enum dtype)i);
        assert_ptr_equal(quant_format_find(dtype_name((enum dtype)i)), f);
        assert_int_equal(quant_row_bytes(f, 10), 10 * dtype_size((enum dtype)i));
        float in[3] = { 1.5f, -2.25f, 0 }, out[3];
        unsigned char stored[12];
        f->quantize(f, stored, in, 3);
        f->dequantize(f, out, stored, 0, 3);
        assert_memory_equal(in, out, sizeof in);
    }
    assert_non_null(quant_format_find("q4_0"));
    assert_null(quant_format_find("q4_7"));
    assert_null(quant_format_find(NULL));
    assert_null(quant_format_of_dtype(DTYPE_I32));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_to_f32_of_every_value),
        cmocka_unit_test(test_bf16_to_f32_of_every_value),
        cmocka_unit_test(test_every_16_bit_value_comes_back),
        cmocka_unit_test(test_rounds_to_nearest_even),
        cmocka_unit_test(test_convert_agrees_with_the_scalars),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_fp8_e4m3),
        cmocka_unit_test(test_columns_of_a_view),
        cmocka_unit_test(test_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
