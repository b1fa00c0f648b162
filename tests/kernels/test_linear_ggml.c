/* test_linear_ggml.c - products by whole numbers with weights in ggml's formats: against double
 * arithmetic on the same codes of x, against the plain kernel, and against themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/linear_ggml.h"
#include "kernels/quant/ggml_formats.h"
#include "tests/kernels/products_device.h"
#include "tests/kernels/quant_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 60, MAX_FEATURES = 1536, PIECE = 256 };
#define GREATEST_CODE 32767.0f /* of x */

static struct device *open_device(const char *isa)
{
    const struct workspace_desc w = products_workspace(MAX_ROWS, MAX_FEATURES, MAX_FEATURES);
    return open_products_device(isa, 2, &w);
}

/* --- weights -----------------------------------------------------------------------------------
 */

/* Formats with where their float16 scales stand. */
static const struct format_case {
    const struct quant_format *format;
    int32_t halves[2]; /* -1: none */
} formats[] = {
    { &quant_format_q4_0, { 0, -1 } },   { &quant_format_q4_1, { 0, 2 } },
    { &quant_format_q5_0, { 0, -1 } },   { &quant_format_q5_1, { 0, 2 } },
    { &quant_format_q8_0, { 0, -1 } },   { &quant_format_q2_k, { 80, 82 } },
    { &quant_format_q3_k, { 108, -1 } }, { &quant_format_q4_k, { 0, 2 } },
    { &quant_format_q5_k, { 0, 2 } },    { &quant_format_q6_k, { 208, -1 } },
    { &quant_format_iq4_nl, { 0, -1 } }, { &quant_format_iq4_xs, { 0, -1 } },
    { &quant_format_mxfp4, { -1, -1 } },
};
enum { NUM_FORMATS = sizeof formats / sizeof formats[0] };

struct weights {
    struct linear linear;
    unsigned char *rows;
    float *values, *bias;
    struct buffer memory;
};

/* Random in every bit of the codes and the small scales. */
static void fill(struct weights *w, const struct format_case *c)
{
    const struct quant_format *f = c->format;
    int32_t n = w->linear.out_features, k = w->linear.in_features;
    size_t row_bytes = quant_row_bytes(f, k);
    w->rows = xmalloc((size_t)n * row_bytes);
    for (size_t i = 0; i < (size_t)n * row_bytes; i++)
        w->rows[i] = (unsigned char)random_word();
    for (size_t at = 0; at < (size_t)n * row_bytes; at += (size_t)f->block_bytes) {
        for (int i = 0; i < 2 && c->halves[i] >= 0; i++) {
            uint16_t half = f16_from_f32(random_value() * 0.05f);
            memcpy(w->rows + at + c->halves[i], &half, sizeof half);
        }
        if (c->halves[0] < 0)
            w->rows[at] = (unsigned char)(120 + random_word() % 4);
    }
    w->values = xmalloc((size_t)n * (size_t)k * sizeof *w->values);
    w->bias = xmalloc((size_t)n * sizeof *w->bias);
    for (int32_t r = 0; r < n; r++) {
        f->dequantize(f, w->values + (size_t)r * (size_t)k, w->rows + (size_t)r * row_bytes, 0, k);
        w->bias[r] = random_value();
    }
}

static void make_weights(struct device *d, struct weights *w, const struct format_case *c,
                         int32_t n, int32_t k, bool has_bias)
{
    struct status st = { 0 };
    *w = (struct weights){ .linear = { .out_features = n, .in_features = k, .format = c->format } };
    fill(w, c);
    w->linear.bias = has_bias ? w->bias : NULL;
    if (!d->backend->linear_plan(d, &w->linear, &st) ||
        !d->backend->alloc(d, &w->memory, w->linear.packed_bytes, MEMORY_DEVICE, &st))
        fail_msg("%s", st.message);
    w->linear.packed = w->memory.data;
    int32_t cut = n / 3; /* packed in pieces, as threads do */
    size_t row_bytes = quant_row_bytes(c->format, k);
    d->backend->linear_pack(d, &w->linear, cut, n - cut, w->rows + (size_t)cut * row_bytes,
                            c->format);
    d->backend->linear_pack(d, &w->linear, 0, cut, w->rows, c->format);
}

static void free_weights(struct device *d, struct weights *w)
{
    d->backend->free(d, &w->memory);
    free(w->rows);
    free(w->values);
    free(w->bias);
}

/* --- the reference -----------------------------------------------------------------------------
 */

/* What the kernels see of x: codes of each 256 elements times their scale. */
static void round_x(double *out, const float *x, int32_t count)
{
    for (int32_t at = 0; at < count; at += PIECE) {
        int32_t end = count - at < PIECE ? count : at + PIECE;
        float most = 0;
        for (int32_t i = at; i < end; i++)
            most = fmaxf(most, fabsf(x[i]));
        float inverse = most > 0 ? GREATEST_CODE / most : 0;
        for (int32_t i = at; i < end; i++)
            out[i] = (double)nearbyintf(x[i] * inverse) * (double)(most / GREATEST_CODE);
    }
}

/* Only rows that a whole-number kernel is made for. */
static bool is_rounding(const struct weights *w)
{
    return w->linear.kernel->input == LINEAR_INPUT_Q16;
}

static void check_product(struct device *d, const struct weights *w, const float *x, int32_t rows,
                          const float *out)
{
    int32_t n = w->linear.out_features, k = w->linear.in_features;
    double *row = xmalloc((size_t)k * sizeof *row);
    (void)d;
    for (int32_t r = 0; r < rows; r++) {
        if (is_rounding(w))
            round_x(row, x + (size_t)r * (size_t)k, k);
        else
            for (int32_t i = 0; i < k; i++)
                row[i] = (double)x[(size_t)r * (size_t)k + (size_t)i];
        for (int32_t j = 0; j < n; j++) {
            double sum = w->linear.bias ? (double)w->bias[j] : 0, size = fabs(sum);
            for (int32_t i = 0; i < k; i++) {
                double product = row[i] * (double)w->values[(size_t)j * (size_t)k + (size_t)i];
                sum += product;
                size += fabs(product);
            }
            double got = (double)out[(size_t)r * (size_t)n + (size_t)j];
            /* Formats with an offset sum codes and offset apart, which are larger than the weight.
             */
            if (!(fabs(got - sum) <= 4e-6 * size + 1e-6))
                fail_msg("%s, %d x %d, row %d of %d, output %d: %g, expected %g",
                         w->linear.kernel->name, n, k, r, rows, j, got, sum);
        }
    }
    free(row);
}

static void run(struct device *d, const struct weights *w, const float *x, int32_t rows, float *out)
{
    struct status st = { 0 };
    struct tensor in = tensor_view((void *)(uintptr_t)x, DTYPE_F32, rows, w->linear.in_features);
    struct tensor result = tensor_view(out, DTYPE_F32, rows, w->linear.out_features);
    d->backend->linear(d, &result, &in, &w->linear);
    assert_true(d->backend->sync(d, &st));
}

static float *random_x(int32_t rows, int32_t k)
{
    float *x = xmalloc((size_t)rows * (size_t)k * sizeof *x);
    for (size_t i = 0; i < (size_t)rows * (size_t)k; i++)
        x[i] = random_value() * (random_word() % 16 ? 1.0f : 8.0f);
    return x;
}

/* With a short piece of x in the end, where the format allows it. */
static int32_t columns_of(const struct format_case *c, int32_t k)
{
    return c->format->block_elements == 32 ? k - 96 : k;
}

static void test_products(void **state)
{
    static const int32_t sizes[][2] = {
        { 1, 256 }, { 8, 512 }, { 37, 768 }, { 100, 256 }, { 64, 1536 }
    };
    static const int32_t rows[] = { 1, 2, 4, 5, 9, 21 };
    (void)state;
    struct device *d = open_device("auto");
    for (int f = 0; f < NUM_FORMATS; f++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            struct weights w;
            int32_t n = sizes[s][0], k = columns_of(&formats[f], sizes[s][1]),
                    count = rows[(s + (size_t)f) % 6];
            make_weights(d, &w, &formats[f], n, k, s % 2 != 0);
            float *x = random_x(count, k), *out = xmalloc((size_t)(count * n) * sizeof *out);
            run(d, &w, x, count, out);
            check_product(d, &w, x, count, out);
            free(x);
            free(out);
            free_weights(d, &w);
        }
    backend_cpu.close(d);
}

/* Near what the scalar kernel gives, which does not round x. */
static void test_near_scalar(void **state)
{
    enum { N = 96, K = 512, ROWS = 5 };
    (void)state;
    struct device *best = open_device("auto"), *scalar = open_device("scalar");
    static float fast[ROWS * N], plain[ROWS * N];
    for (int f = 0; f < NUM_FORMATS; f++) {
        struct weights a, b;
        uint64_t at = counter;
        make_weights(best, &a, &formats[f], N, K, false);
        counter = at;
        make_weights(scalar, &b, &formats[f], N, K, false);
        float *x = random_x(ROWS, K);
        run(best, &a, x, ROWS, fast);
        run(scalar, &b, x, ROWS, plain);
        double error = 0, size = 0;
        for (int i = 0; i < ROWS * N; i++) {
            error += pow((double)fast[i] - (double)plain[i], 2);
            size += pow((double)plain[i], 2);
        }
        print_message("%s: %.2g of the scalar kernel's\n", a.linear.kernel->name,
                      sqrt(error / size));
        assert_true(sqrt(error / size) < 1e-4);
        free(x);
        free_weights(best, &a);
        free_weights(scalar, &b);
    }
    backend_cpu.close(best);
    backend_cpu.close(scalar);
}

/* A row's bits do not depend on the rows beside it. */
static void test_same_bits(void **state)
{
    enum { N = 75, ROWS = 23 };
    (void)state;
    struct device *d = open_device("auto");
    static float whole[ROWS * N], one[ROWS * N];
    for (int f = 0; f < NUM_FORMATS; f++) {
        struct weights w;
        int32_t k = columns_of(&formats[f], 768);
        make_weights(d, &w, &formats[f], N, k, true);
        float *x = random_x(ROWS, k);
        run(d, &w, x, ROWS, whole);
        for (int32_t r = 0; r < ROWS; r += 1 + r % 3) {
            int32_t count = ROWS - r < 1 + r % 3 ? ROWS - r : 1 + r % 3;
            run(d, &w, x + r * k, count, one);
            assert_memory_equal(one, whole + r * N, (size_t)(count * N) * sizeof(float));
        }
        free(x);
        free_weights(d, &w);
    }
    backend_cpu.close(d);
}

/* A row read back is the row that was packed, to the bit. */
static void test_rows(void **state)
{
    enum { N = 45, K = 768 };
    (void)state;
    struct device *d = open_device("auto");
    static float out[N * K];
    int32_t ids[N];
    for (int32_t i = 0; i < N; i++)
        ids[i] = i;
    for (int f = 0; f < NUM_FORMATS; f++) {
        struct weights w;
        struct status st = { 0 };
        struct tensor result = tensor_view(out, DTYPE_F32, N, K);
        make_weights(d, &w, &formats[f], N, K, false);
        d->backend->embedding(d, &result, ids, &w.linear);
        assert_true(d->backend->sync(d, &st));
        assert_memory_equal(out, w.values, sizeof out);
        free_weights(d, &w);
    }
    backend_cpu.close(d);
}

/* What is not finite reaches every output of its row, and no other row. */
static void test_not_finite(void **state)
{
    enum { N = 40, K = 512, ROWS = 4 };
    static const float bad[] = { INFINITY, -INFINITY, NAN };
    (void)state;
    struct device *d = open_device("auto");
    static float out[ROWS * N];
    for (int f = 0; f < NUM_FORMATS; f++)
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            struct weights w;
            make_weights(d, &w, &formats[f], N, K, false);
            float *x = random_x(ROWS, K);
            memset(x + 3 * K, 0, K * sizeof *x);
            x[2 * K + 77] = bad[i];
            run(d, &w, x, ROWS, out);
            for (int32_t j = 0; j < N; j++) {
                assert_true(isfinite(out[N + j]));
                assert_true(!is_rounding(&w) || isnan(out[2 * N + j]));
                assert_true(out[3 * N + j] == 0);
            }
            free(x);
            free_weights(d, &w);
        }
    backend_cpu.close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),   cmocka_unit_test(test_near_scalar),
        cmocka_unit_test(test_same_bits),  cmocka_unit_test(test_rows),
        cmocka_unit_test(test_not_finite),
    };
    seed = 11;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
