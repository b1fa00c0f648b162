/* test_linear.c - the product on every instruction set of this machine against a sum in double, the
 * packing of weights, and that a row's result does not depend on what rides along. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu_device.h"

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

enum { MAX_ROWS = 70, MAX_FEATURES = 4096, GUARD = 5 };
#define SENTINEL 12345.0f

static struct device *open_device(enum cpu_isa isa, int32_t num_threads, int32_t max_num_tokens)
{
    const struct workspace_desc w = products_workspace(max_num_tokens, MAX_FEATURES, MAX_FEATURES);
    return open_products_device(cpu_isa_name(isa), num_threads, &w);
}

/* --- one weight matrix, as a checkpoint would give it ------------------------------------------
 */

struct weights {
    struct linear l;
    struct buffer packed;
    void *rows;   /* [out_features, in_features] in the source format */
    float *exact; /* the same values after rounding to the format in memory */
    float *bias;
};

static void *stored_row(const struct weights *w, const struct quant_format *source, int32_t row)
{
    return (char *)w->rows + (size_t)row * quant_row_bytes(source, w->l.in_features);
}

static void plan(struct device *d, struct weights *w)
{
    struct status st = { 0 };
    if (!d->backend->linear_plan(d, &w->l, &st) ||
        !d->backend->alloc(d, &w->packed, w->l.packed_bytes, MEMORY_DEVICE, &st))
        fail_msg("%s", st.message);
    w->l.packed = w->packed.data;
}

static struct weights make_weights(struct device *d, int32_t k, int32_t n, enum dtype held,
                                   enum dtype source_dtype, bool bias)
{
    struct weights w = {
        .l = { .in_features = k, .out_features = n, .format = quant_format_of_dtype(held) }
    };
    const struct quant_format *source = quant_format_of_dtype(source_dtype);
    size_t count = (size_t)k * (size_t)n;
    uint16_t *rounded = malloc(count * sizeof *rounded);
    w.exact = malloc(count * sizeof *w.exact);
    w.rows = malloc(quant_row_bytes(source, (int64_t)count));
    for (size_t i = 0; i < count; i++)
        w.exact[i] = random_value();
    source->quantize(source, w.rows, w.exact, (int64_t)count);
    source->dequantize(source, w.exact, w.rows, 0, (int64_t)count);
    if (held != DTYPE_F32) {
        dtype_convert(rounded, held, w.exact, DTYPE_F32, count);
        dtype_convert(w.exact, DTYPE_F32, rounded, held, count);
    }
    free(rounded);
    if (bias) {
        w.bias = malloc((size_t)n * sizeof *w.bias);
        for (int32_t i = 0; i < n; i++)
            w.bias[i] = random_value();
        w.l.bias = w.bias;
    }
    plan(d, &w);
    d->backend->linear_pack(d, &w.l, 0, n, w.rows, source);
    return w;
}

static void free_weights(struct device *d, struct weights *w)
{
    d->backend->free(d, &w->packed);
    free(w->rows);
    free(w->exact);
    free(w->bias);
}

/* --- activations, with room around them that must stay as it is ---------------------------------
 */

struct rows {
    struct tensor t;
    float *memory;
};

static struct rows make_rows(int32_t rows, int32_t cols)
{
    struct rows r;
    size_t stride = (size_t)cols + 2 * GUARD;
    size_t count = stride * (size_t)rows + 1; /* no row: still memory to point to */
    r.memory = malloc(count * sizeof *r.memory);
    for (size_t i = 0; i < count; i++)
        r.memory[i] = SENTINEL;
    r.t = (struct tensor){ r.memory + GUARD, DTYPE_F32, rows, cols, (int64_t)stride };
    return r;
}

static float *row_of(const struct tensor *t, int32_t row)
{
    return (float *)t->data + row * t->stride;
}

static struct rows random_rows(int32_t rows, int32_t cols)
{
    struct rows r = make_rows(rows, cols);
    for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < cols; j++)
            row_of(&r.t, i)[j] = random_value();
    return r;
}

static void check_guards(const struct rows *r)
{
    for (int32_t i = 0; i < r->t.rows; i++)
        for (int32_t j = 1; j <= GUARD; j++) {
            assert_true(row_of(&r->t, i)[-j] == SENTINEL);
            assert_true(row_of(&r->t, i)[r->t.cols - 1 + j] == SENTINEL);
        }
}

static struct rows product(struct device *d, const struct tensor *x, const struct weights *w)
{
    struct rows out = make_rows(x->rows, w->l.out_features);
    struct status st = { 0 };
    d->backend->linear(d, &out.t, x, &w->l);
    if (!d->backend->sync(d, &st))
        fail_msg("%s", st.message);
    check_guards(&out);
    return out;
}

static struct tensor some_rows(const struct tensor *t, int32_t begin, int32_t count)
{
    struct tensor view = *t;
    view.data = row_of(t, begin);
    view.rows = count;
    return view;
}

/* --- tests --------------------------------------------------------------------------------------
 */

/* A sum of K products rounds at most K times, each time by half a unit of the running sum. */
static void check_against_double(const struct rows *out, const struct tensor *x,
                                 const struct weights *w, const char *name)
{
    int32_t k = w->l.in_features;
    for (int32_t r = 0; r < x->rows; r++)
        for (int32_t c = 0; c < w->l.out_features; c++) {
            double sum = w->bias ? (double)w->bias[c] : 0, size = fabs(sum);
            for (int32_t i = 0; i < k; i++) {
                float factor = row_of(x, r)[i];
                if (w->l.format->dtype == DTYPE_BF16)
                    factor = bf16_to_f32(bf16_from_f32(factor));
                double term = (double)factor * (double)w->exact[(size_t)c * (size_t)k + (size_t)i];
                sum += term;
                size += fabs(term);
            }
            double error = fabs((double)row_of(&out->t, r)[c] - sum);
            double bound = (k + 2) * 0x1p-24 * size + 1e-30;
            if (!(error <= bound))
                fail_msg("%s: K=%d N=%d M=%d: out[%d][%d] is %.9g, should be %.9g", name, k,
                         w->l.out_features, x->rows, r, c, (double)row_of(&out->t, r)[c], sum);
        }
}

static void check_product(struct device *d, enum cpu_isa isa, enum dtype dtype, int32_t k,
                          int32_t n, int32_t rows)
{
    char name[64];
    struct weights w = make_weights(d, k, n, dtype, dtype, random_word() % 2 == 0);
    struct rows x = random_rows(rows, k);
    struct rows out = product(d, &x.t, &w);
    snprintf(name, sizeof name, "%s %s", cpu_isa_name(isa), dtype_name(dtype));
    check_against_double(&out, &x.t, &w, name);
    check_guards(&x);
    free(out.memory);
    free(x.memory);
    free_weights(d, &w);
}

static void test_every_kernel_against_double(void **state)
{
    (void)state;
    static const int32_t edges[][3] = { { 1, 1, 1 },    { 2, 32, 1 },   { 3, 33, 2 },
                                        { 1, 31, 13 },  { 64, 15, 12 }, { 65, 16, 11 },
                                        { 63, 17, 25 }, { 129, 1, 70 }, { 4096, 40, 3 } };
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        struct device *d = open_device((enum cpu_isa)isa, 3, MAX_ROWS);
        for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) {
            for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
                check_product(d, (enum cpu_isa)isa, (enum dtype)dtype, edges[i][0], edges[i][1],
                              edges[i][2]);
            for (int32_t rows = 1; rows <= MAX_ROWS; rows++)
                check_product(d, (enum cpu_isa)isa, (enum dtype)dtype, random_in(1, 130),
                              random_in(1, 130), rows);
        }
        d->backend->close(d);
    }
}

static void assert_same_bits(const struct tensor *a, const struct tensor *b)
{
    assert_int_equal(a->rows, b->rows);
    for (int32_t r = 0; r < a->rows; r++)
        assert_memory_equal(row_of(a, r), row_of(b, r), (size_t)a->cols * sizeof(float));
}

/* All rows at once, each alone, random batches, 1 to 4 threads, and a workspace so small that the
 * op must work in turns: always the same bits. */
static void check_batch_invariance(enum cpu_isa isa, enum dtype dtype, int32_t k, int32_t n)
{
    struct device *first = open_device(isa, 1, MAX_ROWS);
    struct weights w = make_weights(first, k, n, dtype, dtype, true);
    struct rows x = random_rows(MAX_ROWS, k);
    row_of(&x.t, 3)[k / 2] = 1e-40f; /* subnormal */
    row_of(&x.t, 4)[0] = 1e38f;
    struct rows whole = product(first, &x.t, &w);
    for (int32_t threads = 1; threads <= 4; threads++) {
        struct device *d = open_device(isa, threads, threads == 3 ? 5 : MAX_ROWS);
        struct rows again = product(d, &x.t, &w);
        assert_same_bits(&whole.t, &again.t);
        free(again.memory);
        for (int32_t i = 0; i < 20 + MAX_ROWS; i++) {
            int32_t begin = i < MAX_ROWS ? i : random_in(0, MAX_ROWS - 1);
            int32_t count = i < MAX_ROWS ? 1 : random_in(1, MAX_ROWS - begin);
            struct tensor part = some_rows(&x.t, begin, count);
            struct tensor expected = some_rows(&whole.t, begin, count);
            struct rows out = product(d, &part, &w);
            assert_same_bits(&expected, &out.t);
            free(out.memory);
        }
        d->backend->close(d);
    }
    free(whole.memory);
    free(x.memory);
    free_weights(first, &w);
    first->backend->close(first);
}

static void test_a_row_is_the_same_in_any_batch(void **state)
{
    (void)state;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++)
        for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) {
            check_batch_invariance((enum cpu_isa)isa, (enum dtype)dtype, random_in(100, 300),
                                   random_in(300, 600));
            check_batch_invariance((enum cpu_isa)isa, (enum dtype)dtype, 512, 48);
        }
}

static void test_not_a_number_stays_in_its_row(void **state)
{
    (void)state;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++)
        for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) {
            struct device *d = open_device((enum cpu_isa)isa, 2, MAX_ROWS);
            struct weights w = make_weights(d, 77, 90, (enum dtype)dtype, DTYPE_F32, false);
            struct rows x = random_rows(13, 77);
            struct rows before = product(d, &x.t, &w);
            uint32_t narrow = 0x7f800001u; /* a payload that rounding alone would lose */
            memcpy(&row_of(&x.t, 5)[76], &narrow, sizeof narrow);
            struct rows after = product(d, &x.t, &w);
            for (int32_t r = 0; r < 13; r++)
                for (int32_t c = 0; c < 90; c++) {
                    float a = row_of(&after.t, r)[c];
                    assert_true(r == 5 ? isnan(a) : a == row_of(&before.t, r)[c]);
                }
            free(before.memory);
            free(after.memory);
            free(x.memory);
            free_weights(d, &w);
            d->backend->close(d);
        }
}

static void test_no_rows_is_no_work(void **state)
{
    (void)state;
    struct device *d = open_device(cpu_isa_detect(), 2, MAX_ROWS);
    struct weights w = make_weights(d, 64, 64, DTYPE_BF16, DTYPE_BF16, false);
    struct rows x = make_rows(0, 64);
    struct rows out = product(d, &x.t, &w);
    free(out.memory);
    free(x.memory);
    free_weights(d, &w);
    d->backend->close(d);
}

/* Pieces that begin and end anywhere, in any order, from an odd address. */
static void check_pack(struct device *d, enum dtype held, enum dtype source_dtype)
{
    int32_t k = random_in(1, 200), n = random_in(1, 200);
    const struct quant_format *source = quant_format_of_dtype(source_dtype);
    struct weights w = make_weights(d, k, n, held, source_dtype, false);
    size_t row_bytes = quant_row_bytes(source, k);
    struct weights pieces = { .l = w.l };
    plan(d, &pieces);
    assert_int_equal(pieces.l.packed_bytes, w.l.packed_bytes);
    char *odd = malloc(row_bytes * (size_t)n + 1);
    memcpy(odd + 1, w.rows, row_bytes * (size_t)n);
    int32_t cut = random_in(0, n);
    for (int32_t half = 0; half < 2; half++) {
        int32_t at = half == 0 ? cut : 0, end = half == 0 ? n : cut;
        while (at < end) {
            int32_t count = random_in(1, end - at);
            d->backend->linear_pack(d, &pieces.l, at, count, odd + 1 + (size_t)at * row_bytes,
                                    source);
            at += count;
        }
    }
    assert_memory_equal(pieces.l.packed, w.l.packed, w.l.packed_bytes);
    int32_t ids[3] = { 0, n - 1, random_in(0, n - 1) };
    struct rows out = make_rows(3, k);
    struct status st = { 0 };
    d->backend->embedding(d, &out.t, ids, &w.l);
    assert_true(d->backend->sync(d, &st));
    check_guards(&out);
    for (int32_t r = 0; r < 3; r++)
        assert_memory_equal(row_of(&out.t, r), w.exact + (size_t)ids[r] * (size_t)k,
                            (size_t)k * sizeof(float));
    free(odd);
    free(out.memory);
    d->backend->free(d, &pieces.packed);
    free_weights(d, &w);
}

static void test_packing_in_pieces_and_rows_back(void **state)
{
    (void)state;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        struct device *d = open_device((enum cpu_isa)isa, 2, MAX_ROWS);
        for (int held = DTYPE_F32; held <= DTYPE_F16; held++)
            for (int source = DTYPE_F32; source <= DTYPE_F16; source++)
                for (int i = 0; i < 5; i++)
                    check_pack(d, (enum dtype)held, (enum dtype)source);
        d->backend->close(d);
    }
}

struct pack_job {
    struct device *d;
    struct weights *w;
    struct linear *l;
    int32_t rows_per_task;
};

static void pack_task(void *arg, int32_t task, int32_t thread)
{
    const struct pack_job *job = arg;
    const struct quant_format *format = job->w->l.format;
    int32_t begin = task * job->rows_per_task;
    int32_t count = job->w->l.out_features - begin;
    (void)thread;
    job->d->backend->linear_pack(job->d, job->l, begin,
                                 count < job->rows_per_task ? count : job->rows_per_task,
                                 stored_row(job->w, format, begin), format);
}

static void test_packing_from_several_threads(void **state)
{
    (void)state;
    struct device *d = open_device(cpu_isa_detect(), 4, MAX_ROWS);
    for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) {
        struct weights w = make_weights(d, 301, 500, (enum dtype)dtype, (enum dtype)dtype, false);
        struct weights again = { .l = w.l };
        plan(d, &again);
        struct pack_job job = { d, &w, &again.l, 7 };
        thread_pool_run(cpu_device_of(d)->pool, (500 + 6) / 7, pack_task, &job);
        assert_memory_equal(again.l.packed, w.l.packed, w.l.packed_bytes);
        d->backend->free(d, &again.packed);
        free_weights(d, &w);
    }
    d->backend->close(d);
}

static void test_plan_refuses_empty_weights(void **state)
{
    (void)state;
    struct device *d = open_device(CPU_ISA_SCALAR, 1, 1);
    struct status st = { 0 };
    struct linear l = { .in_features = 0, .out_features = 4, .format = &quant_format_float32 };
    assert_false(d->backend->linear_plan(d, &l, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    l = (struct linear){ .in_features = 4, .out_features = 4 };
    assert_false(d->backend->linear_plan(d, &l, &st));
    d->backend->close(d);
}

int main(void)
{
    rng_system(&seed, sizeof seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kernel_against_double),
        cmocka_unit_test(test_a_row_is_the_same_in_any_batch),
        cmocka_unit_test(test_not_a_number_stays_in_its_row),
        cmocka_unit_test(test_no_rows_is_no_work),
        cmocka_unit_test(test_packing_in_pieces_and_rows_back),
        cmocka_unit_test(test_packing_from_several_threads),
        cmocka_unit_test(test_plan_refuses_empty_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
