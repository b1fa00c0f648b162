/* test_linear_codes.c - products of codes with codes on the GPU against the scalar CPU's linear,
 * for odd shapes, any number of rows and rows that are no numbers; and that a row's bits do not
 * depend on how many rows ride along. */
#include "tests/kernels/cuda/codes_fixture.h"

enum { MAX_ROWS = 300, MAX_IN = 2304 };

static const struct input_quant inputs[] = {
    { INPUT_QUANT_INT8, 0 },
    { INPUT_QUANT_FP8, 0 },
    { INPUT_QUANT_FP8, 0.02f }, /* beyond 448 times this values are held */
};
enum { NUM_INPUTS = sizeof inputs / sizeof inputs[0] };

static void near_the_scalar_cpu(void **state)
{
    (void)state;
    static const struct {
        int32_t rows, out, in;
    } shapes[] = {
        { 1, 1, 1 },    { 1, 16, 64 },  { 1, 33, 2304 }, { 3, 20, 257 },  { 8, 17, 600 },
        { 9, 50, 100 }, { 16, 64, 65 }, { 17, 65, 320 }, { 40, 270, 31 }, { 270, 130, 96 },
    };
    for (int kind = 0; kind < NUM_INPUTS; kind++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            struct codes c;
            char what[100];
            const enum dtype scales = (enum dtype)(random_word() % 3); /* a float's */
            random_codes(&gpu, &c, inputs[kind], scales, shapes[i].out, shapes[i].in);
            struct tensor x = random_tensor(shapes[i].rows, shapes[i].in, random_uniform(0.1f, 9));
            snprintf(what, sizeof what, "input %d, scales %s, %d rows of %d, %d features", kind,
                     dtype_name(scales), shapes[i].rows, shapes[i].in, shapes[i].out);
            check_codes(&gpu, &c, &x, what);
            free(x.data);
            free_codes(&gpu, &c);
        }
    }
}

/* Sums that float32 does not hold: 2304 times 127 * -128, and one step less. */
static void sums_of_whole_numbers_are_exact(void **state)
{
    (void)state;
    struct codes c;
    random_codes(&gpu, &c, inputs[0], DTYPE_F32, 2, MAX_IN);
    const size_t row_bytes = quant_row_bytes(&c.format, MAX_IN);
    unsigned char *rows = calloc(2, row_bytes);
    const float one = 1;
    for (int r = 0; r < 2; r++)
        memcpy(rows + (size_t)r * row_bytes, &one, sizeof one);
    rows[row_bytes + 4 + 7] = 1; /* all codes are -128, but one that is -127 */
    gpu.ops->linear_pack(gpu.device, &c.gpu, 0, 2, rows, &c.format);
    gpu_sync(&gpu);
    c.gpu.bias = NULL;
    for (int32_t count = 1; count < 50; count += 24) {
        struct tensor x = random_tensor(count, MAX_IN, 1);
        for (int32_t r = 0; r < count; r++)
            for (int32_t i = 0; i < MAX_IN; i++)
                ((float *)x.data)[r * x.stride + i] = 127; /* its scale is 1 */
        struct tensor out = gpu_codes_product(&gpu, &c, &x);
        for (int32_t r = 0; r < count; r++) {
            const float *got = (const float *)out.data + r * out.stride;
            assert_true(got[0] == -(float)(MAX_IN * 127 * 128));
            assert_true(got[1] == -(float)(MAX_IN * 127 * 128 - 127));
        }
        free(x.data);
        free(out.data);
    }
    free(rows);
    free_codes(&gpu, &c);
}

/* Zeros, numbers at either end of float32, infinities and NaN, each in a row of its own. */
static void rows_of_all_kinds(void **state)
{
    (void)state;
    enum { ROWS = 24, IN = 70 };
    static const float values[] = { 0, -0.0f, 1e-45f, 1e-40f, 1e30f, INFINITY, -INFINITY, NAN };
    for (int kind = 0; kind < NUM_INPUTS; kind++) {
        struct codes c;
        random_codes(&gpu, &c, inputs[kind], DTYPE_F32, 19, IN);
        struct tensor x = random_tensor(ROWS, IN, 1);
        for (int32_t r = 0; r < 16; r++) /* a row full of it, then one with one of it */
            for (int32_t i = 0; i < (r < 8 ? IN : 1); i++)
                ((float *)x.data)[r * x.stride + i + (r < 8 ? 0 : 33)] = values[r % 8];
        check_codes(&gpu, &c, &x, "rows of all kinds");
        struct tensor out = gpu_codes_product(&gpu, &c, &x);
        for (int32_t r = 0; r < ROWS; r++) {
            const bool none = inputs[kind].scale > 0 ? r % 8 == 7 : r % 8 >= 5;
            for (int32_t i = 0; i < 19; i++)
                assert_int_equal(isnan(((float *)out.data)[r * out.stride + i]) != 0,
                                 r < 16 && none);
        }
        free(out.data);
        free(x.data);
        free_codes(&gpu, &c);
    }
}

/* A norm fused with the rounding gives the bits of a norm and then the product; and it leaves the
 * same residual. Sizes on both sides of where a row gets a whole block. */
static void norms_fused(void **state)
{
    (void)state;
    static const int32_t sizes[] = { 1, 70, 512, 513, 800 };
    for (int n = 0; n < 15; n++) {
        const int32_t in = sizes[n / 3], rows = RANDOM_OF(0, 1, 7, 16, 40);
        struct codes c;
        random_codes(&gpu, &c, inputs[n % 3], DTYPE_BF16, random_int(1, 40), in);
        float *weight = random_floats((size_t)in, 1), *bias = random_floats((size_t)in, 1);
        const struct norm norm = { .kind = random_int(0, 1) ? NORM_RMS : NORM_LAYER,
                                   .size = in,
                                   .weight = gpu_put(&gpu, weight, (size_t)in * sizeof *weight),
                                   .bias = random_int(0, 1)
                                               ? gpu_put(&gpu, bias, (size_t)in * sizeof *bias)
                                               : NULL,
                                   .eps = 1e-5f };
        struct tensor x = random_tensor(rows, in, 3), sum = random_tensor(rows, in, 1);
        struct tensor x_at = gpu_tensor(&gpu, &x), normed_at = gpu_tensor(&gpu, &x);
        struct tensor sum_at[2] = { gpu_tensor(&gpu, &sum), gpu_tensor(&gpu, &sum) };
        struct tensor out[2], out_at[2], sums[2] = { copy_tensor(&sum), copy_tensor(&sum) };
        for (int i = 0; i < 2; i++) {
            out[i] = (struct tensor){ random_floats((size_t)(rows * c.gpu.out_features), 1),
                                      DTYPE_F32, rows, c.gpu.out_features, c.gpu.out_features };
            out_at[i] = gpu_tensor(&gpu, &out[i]);
        }
        gpu.ops->norm_linear(gpu.device, &out_at[0], &sum_at[0], &x_at, &norm, &c.gpu);
        x_at = gpu_tensor(&gpu, &x);
        gpu.ops->norm(gpu.device, &normed_at, &sum_at[1], &x_at, &norm);
        gpu.ops->linear(gpu.device, &out_at[1], &normed_at, &c.gpu);
        for (int i = 0; i < 2; i++) {
            gpu_get_tensor(&gpu, &out[i], &out_at[i]);
            gpu_get_tensor(&gpu, &sums[i], &sum_at[i]);
        }
        assert_tensors_equal(&out[0], &out[1], "a norm and a product");
        assert_tensors_equal(&sums[0], &sums[1], "the residual");
        for (int i = 0; i < 2; i++) {
            free(out[i].data);
            free(sums[i].data);
        }
        free(x.data);
        free(sum.data);
        free(weight);
        free(bias);
        free_codes(&gpu, &c);
    }
}

static void no_rows(void **state)
{
    (void)state;
    struct codes c;
    random_codes(&gpu, &c, inputs[0], DTYPE_F16, 5, 40);
    struct tensor x = random_tensor(0, 40, 1), out = gpu_codes_product(&gpu, &c, &x);
    free(x.data);
    free(out.data);
    free_codes(&gpu, &c);
}

/* 1, 8, 16, 40 and 129 rows are done in five different ways; in_features of several pieces. */
static void rows_are_alone(void **state)
{
    (void)state;
    static const int32_t counts[] = { 1, 8, 13, 40 };
    for (int kind = 0; kind < NUM_INPUTS; kind++) {
        struct codes c;
        random_codes(&gpu, &c, inputs[kind], DTYPE_BF16, RANDOM_OF(20, 24), 800);
        struct tensor x = random_tensor(129, 800, 1), whole = gpu_codes_product(&gpu, &c, &x);
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            const int32_t begin = random_int(0, 129 - counts[i]);
            struct tensor part = x, same = whole;
            part.data = (float *)x.data + begin * x.stride;
            same.data = (float *)whole.data + begin * whole.stride;
            part.rows = same.rows = counts[i];
            struct tensor out = gpu_codes_product(&gpu, &c, &part);
            assert_tensors_equal(&out, &same, "rows alone");
            free(out.data);
        }
        free(x.data);
        free(whole.data);
        free_codes(&gpu, &c);
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(near_the_scalar_cpu), cmocka_unit_test(sums_of_whole_numbers_are_exact),
        cmocka_unit_test(rows_of_all_kinds),   cmocka_unit_test(no_rows),
        cmocka_unit_test(rows_are_alone),      cmocka_unit_test(norms_fused),
    };
    return gpu_run_tests(tests, products_workspace(MAX_ROWS, MAX_IN, 512));
}
