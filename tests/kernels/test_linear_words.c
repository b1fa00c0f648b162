/* test_linear_words.c - packed integers and 8-bit floats on every instruction set of this machine
 * against a sum in double of what the codes stand for; and that a row is the same in any batch. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/quant/fp8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/products_device.h"
#include "tests/kernels/quant_rows.h"

enum { MAX_ROWS = 20, MAX_FEATURES = 1600 };

static struct device *open_device(enum cpu_isa isa, int32_t num_threads)
{
    const struct workspace_desc w = products_workspace(MAX_ROWS, MAX_FEATURES, MAX_FEATURES);
    return open_products_device(cpu_isa_name(isa), num_threads, &w);
}

static struct quant_format random_words_format(void)
{
    static const int32_t sizes[] = { 0, 8, 32, 96, 128, 1024 };
    if (random_in(0, 2) == 0)
        return fp8_format(sizes[random_in(0, 5)], (enum dtype)random_in(DTYPE_F32, DTYPE_F16));
    return random_quant_format(sizes, 6);
}

struct weights {
    struct linear l;
    struct buffer memory;
    char *rows;
    double *values;
};

static void random_fp8_row(const struct quant_format *f, unsigned char *row, int32_t count)
{
    float *src = malloc((size_t)count * sizeof *src);
    for (int32_t i = 0; i < count; i++)
        src[i] = random_value() * 0.1f;
    f->quantize(f, row, src, count);
    free(src);
}

/* What the codes stand for, without any rounding. */
static double exact_value(const struct quant_format *f, const unsigned char *row, int32_t k)
{
    const unsigned char *head = f->header_bytes > 0 ? row : quant_block_at(f, row, k);
    if (fp8_is(f)) {
        uint32_t narrow = 0;
        float scale;
        memcpy(&narrow, head, dtype_size(f->dtype));
        dtype_convert(&scale, DTYPE_F32, &narrow, f->dtype, 1);
        int32_t i = f->header_bytes > 0 ? k : k % f->block_elements;
        return (double)fp8_e4m3_to_f32(head[dtype_size(f->dtype) + (size_t)i]) * (double)scale;
    }
    struct int_group_head numbers = int_group_head(f, head);
    int32_t byte = row[int_group_code_offset(f, k)];
    int32_t code = f->bits == 8 ? byte : byte >> 4 * (k % 2) & 15;
    return ((double)code - (double)numbers.zero) * (double)numbers.scale + (double)numbers.min;
}

static void make_weights(struct device *d, struct weights *w, const struct quant_format *f,
                         int32_t n, int32_t k)
{
    struct status st = { 0 };
    size_t bytes = quant_row_bytes(f, k);
    *w = (struct weights){ .l = { .out_features = n, .in_features = k, .format = f } };
    w->rows = malloc((size_t)n * bytes);
    w->values = malloc((size_t)n * (size_t)k * sizeof *w->values);
    for (int32_t r = 0; r < n; r++) {
        char *row = w->rows + (size_t)r * bytes;
        if (fp8_is(f))
            random_fp8_row(f, (unsigned char *)row, k);
        else
            random_quant_row(f, row, k);
        for (int32_t i = 0; i < k; i++)
            w->values[(size_t)r * (size_t)k + (size_t)i] =
                exact_value(f, (const unsigned char *)row, i);
    }
    if (!d->backend->linear_plan(d, &w->l, &st) ||
        !d->backend->alloc(d, &w->memory, w->l.packed_bytes, MEMORY_DEVICE, &st))
        fail_msg("%s", st.message);
    w->l.packed = w->memory.data;
    int32_t cut = random_in(0, n);
    d->backend->linear_pack(d, &w->l, cut, n - cut, w->rows + (size_t)cut * bytes, f);
    d->backend->linear_pack(d, &w->l, 0, cut, w->rows, f);
}

static float *product(struct device *d, const struct weights *w, const float *x, int32_t rows)
{
    struct status st = { 0 };
    int32_t n = w->l.out_features, k = w->l.in_features;
    float *out = malloc((size_t)rows * (size_t)n * sizeof *out);
    struct tensor from = tensor_view((void *)(uintptr_t)x, DTYPE_F32, rows, k);
    struct tensor to = tensor_view(out, DTYPE_F32, rows, n);
    d->backend->linear(d, &to, &from, &w->l);
    assert_true(d->backend->sync(d, &st));
    return out;
}

#define LARGEST_ZERO (256 * 0.01) /* a zero point of 8 bits times the largest scale */

/* A sum rounds once for each product, and each weight is rounded twice at most: of a code less half
 * the range the two may be much larger than the weight, by as much as the range of the codes. A
 * zero point times the scale is rounded by itself, the same for a whole group. */
static void check_values(const struct weights *w, const float *x, const float *out, int32_t rows)
{
    int32_t n = w->l.out_features, k = w->l.in_features;
    const double zero = w->l.format->offset == QUANT_OFFSET_ZERO ? LARGEST_ZERO : 0;
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < n; c++) {
            double sum = 0, size = 0, inputs = 0;
            for (int32_t i = 0; i < k; i++) {
                double factor = (double)x[r * k + i];
                double value = w->values[(size_t)c * (size_t)k + (size_t)i];
                sum += factor * value;
                size += fabs(factor) * (fabs(value) + 2.6 * 0.01 * 2 / k);
                inputs += fabs(factor);
            }
            double error = fabs((double)out[r * n + c] - sum);
            if (!(error <= ((k + 4) * size + zero * inputs) * 0x1p-24 + 1e-30))
                fail_msg("%s %s: K=%d N=%d M=%d: out[%d][%d] is %.9g, should be %.9g",
                         w->l.format->name, "words", k, n, rows, r, c, (double)out[r * n + c], sum);
        }
}

static void check_product(struct device *d, int32_t n, int32_t k, int32_t rows)
{
    struct weights w;
    struct quant_format f = random_words_format();
    make_weights(d, &w, &f, n, k);
    float *x = malloc((size_t)rows * (size_t)k * sizeof *x);
    for (int32_t i = 0; i < rows * k; i++)
        x[i] = random_value();
    float *out = product(d, &w, x, rows);
    check_values(&w, x, out, rows);
    for (int i = 0; i < 4; i++) {
        int32_t r = random_in(0, rows - 1), count = random_in(1, rows - r);
        float *some = product(d, &w, x + (size_t)r * (size_t)k, count);
        assert_memory_equal(some, out + (size_t)r * (size_t)n,
                            (size_t)count * (size_t)n * sizeof *some);
        free(some);
    }
    struct tensor row = tensor_view(x, DTYPE_F32, 1, k);
    int32_t id = random_in(0, n - 1);
    d->backend->embedding(d, &row, &id, &w.l);
    for (int32_t i = 0; i < k; i++) {
        double value = w.values[(size_t)id * (size_t)k + (size_t)i];
        assert_true(fabs((double)x[i] - value) <= 0x1p-23 * (fabs(value) + 2.6));
    }
    free(x);
    free(out);
    d->backend->free(d, &w.memory);
    free(w.rows);
    free(w.values);
}

static void test_products(void **state)
{
    (void)state;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        struct device *d = open_device((enum cpu_isa)isa, 3);
        check_product(d, 1, 1, 1);
        check_product(d, 33, 1600, 13);
        check_product(d, 70, 1024, 2);
        for (int i = 0; i < 60; i++)
            check_product(d, random_in(1, 90), random_in(1, 400), random_in(1, MAX_ROWS));
        d->backend->close(d);
    }
}

/* A few rows, which are multiplied while the weights are expanded, are to the bit what they are
 * among many, which are multiplied with the expanded weights: every number of rows, with and
 * without a bias, columns that end within a group, a word and a panel. */
static void check_few_rows(struct device *d)
{
    enum { MANY = MAX_ROWS };
    struct weights w;
    struct quant_format f = random_words_format();
    int32_t n = random_in(1, 100), k = random_in(1, 300);
    make_weights(d, &w, &f, n, k);
    float *x = malloc((size_t)MANY * (size_t)k * sizeof *x), bias[100];
    for (int32_t i = 0; i < MANY * k; i++)
        x[i] = random_value();
    for (int32_t i = 0; i < n; i++)
        bias[i] = random_value();
    w.l.bias = random_in(0, 1) ? bias : NULL;
    float *many = product(d, &w, x, MANY);
    for (int32_t count = 1; count < MANY; count++) {
        int32_t r = random_in(0, MANY - count);
        float *few = product(d, &w, x + (size_t)r * (size_t)k, count);
        if (memcmp(few, many + (size_t)r * (size_t)n, (size_t)count * (size_t)n * sizeof *few) != 0)
            fail_msg("%s: K=%d N=%d: %d rows are not what they are among %d", f.name, k, n, count,
                     MANY);
        free(few);
    }
    free(x);
    free(many);
    d->backend->free(d, &w.memory);
    free(w.rows);
    free(w.values);
}

static void test_few_rows(void **state)
{
    (void)state;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        struct device *d = open_device((enum cpu_isa)isa, 1);
        for (int i = 0; i < 60; i++)
            check_few_rows(d);
        d->backend->close(d);
    }
}

/* A code that is not a number shows, though only its whole group can. */
static void test_not_a_number(void **state)
{
    (void)state;
    struct device *d = open_device(cpu_isa_detect(), 1);
    for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) {
        struct weights w;
        struct status st = { 0 };
        struct quant_format f = fp8_format(32, (enum dtype)dtype);
        make_weights(d, &w, &f, 40, 64);
        float x[64];
        for (int i = 0; i < 64; i++)
            x[i] = 1;
        w.rows[dtype_size((enum dtype)dtype) + 5] = (char)0xff;
        d->backend->linear_pack(d, &w.l, 0, 1, w.rows, &f);
        float *out = product(d, &w, x, 1);
        assert_true(isnan(out[0]));
        for (int c = 1; c < 40; c++)
            assert_true(isfinite(out[c]));
        assert_true(d->backend->sync(d, &st));
        free(out);
        d->backend->free(d, &w.memory);
        free(w.rows);
        free(w.values);
    }
    d->backend->close(d);
}

int main(void)
{
    rng_system(&seed, sizeof seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_not_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
