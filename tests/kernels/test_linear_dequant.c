/* test_linear_dequant.c - weights held in a format's own bytes give, bit for bit, what their
 * dequantized values give as float32: in products, chains, embeddings and mixtures of experts. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu_device.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/products_device.h"
#include "tests/kernels/quant_rows.h"

/* Not multiples of four, for which there are kernels. */
static const int32_t groups[4] = { 2, 6, 30, 1022 };

enum { MAX_ROWS = 60, MAX_FEATURES = 1600, EXPERTS = 3, TOP_K = 2 };

static struct device *open_device(enum cpu_isa isa, int32_t num_threads)
{
    struct workspace_desc w = products_workspace(MAX_ROWS, MAX_FEATURES, MAX_FEATURES);
    w.num_experts = EXPERTS;
    w.num_experts_per_tok = TOP_K;
    w.moe_hidden_size = w.moe_intermediate_size = MAX_FEATURES;
    return open_products_device(cpu_isa_name(isa), num_threads, &w);
}

/* --- weights----------------------------------------------------------------------------------
 */

/* Weights in some format, and the same as float32. */
struct weights {
    struct linear packed, wide;
    char *rows;
    float *values, *bias;
    struct buffer memory[2];
};

static char *row_at(const struct weights *w, int32_t row)
{
    return w->rows + (size_t)row * quant_row_bytes(w->packed.format, w->packed.in_features);
}

static void fill(struct weights *w)
{
    const struct quant_format *f = w->packed.format;
    int32_t n = w->packed.out_features, k = w->packed.in_features;
    w->rows = malloc((size_t)n * quant_row_bytes(f, k));
    w->values = malloc((size_t)n * (size_t)k * sizeof *w->values);
    for (int32_t r = 0; r < n; r++) {
        random_quant_row(f, row_at(w, r), k);
        f->dequantize(f, w->values + (size_t)r * (size_t)k, row_at(w, r), 0, k);
    }
}

static void plan(struct device *d, struct linear *l, struct buffer *memory)
{
    struct status st = { 0 };
    if (!d->backend->linear_plan(d, l, &st) ||
        !d->backend->alloc(d, memory, l->packed_bytes, MEMORY_DEVICE, &st))
        fail_msg("%s", st.message);
    l->packed = memory->data;
}

static void make_weights(struct device *d, struct weights *w, const struct quant_format *f,
                         int32_t n, int32_t k)
{
    *w = (struct weights){ .packed = { .out_features = n, .in_features = k, .format = f } };
    fill(w);
    w->wide = w->packed;
    w->wide.format = &quant_format_float32;
    if (random_in(0, 1)) {
        w->bias = malloc((size_t)n * sizeof *w->bias);
        for (int32_t i = 0; i < n; i++)
            w->bias[i] = random_value();
    }
    w->packed.bias = w->wide.bias = w->bias;
    plan(d, &w->packed, &w->memory[0]);
    plan(d, &w->wide, &w->memory[1]);
    int32_t cut = random_in(0, n);
    d->backend->linear_pack(d, &w->packed, cut, n - cut, row_at(w, cut), f);
    d->backend->linear_pack(d, &w->packed, 0, cut, w->rows, f);
    d->backend->linear_pack(d, &w->wide, 0, n, w->rows, f); /* dequantized on the way */
}

static void free_weights(struct device *d, struct weights *w)
{
    d->backend->free(d, &w->memory[0]);
    d->backend->free(d, &w->memory[1]);
    free(w->rows);
    free(w->values);
    free(w->bias);
}

static struct tensor random_rows(int32_t rows, int32_t cols)
{
    float *x = malloc((size_t)rows * (size_t)cols * sizeof *x);
    for (int64_t i = 0; i < (int64_t)rows * cols; i++)
        x[i] = random_value();
    return tensor_view(x, DTYPE_F32, rows, cols);
}

static struct tensor product(struct device *d, const struct tensor *x, const struct linear *l)
{
    struct status st = { 0 };
    int32_t n = linear_out_features(l);
    struct tensor out =
        tensor_view(malloc((size_t)x->rows * (size_t)n * sizeof(float)), DTYPE_F32, x->rows, n);
    d->backend->linear(d, &out, x, l);
    assert_true(d->backend->sync(d, &st));
    return out;
}

static void assert_same(const struct tensor *a, const struct tensor *b)
{
    assert_memory_equal(a->data, b->data, (size_t)a->rows * (size_t)a->cols * sizeof(float));
}

/* --- tests --------------------------------------------------------------------------------------
 */

static void check_product(struct device *d, int32_t n, int32_t k, int32_t rows)
{
    struct weights w;
    struct quant_format f = random_quant_format(groups, 4);
    make_weights(d, &w, &f, n, k);
    struct tensor x = random_rows(rows, k);
    struct tensor out = product(d, &x, &w.packed), expected = product(d, &x, &w.wide);
    assert_same(&out, &expected);
    for (int32_t i = 0; i < 5; i++) { /* some row alone */
        int32_t r = random_in(0, rows - 1);
        struct tensor one = tensor_view((float *)x.data + (size_t)r * (size_t)k, DTYPE_F32, 1, k);
        struct tensor alone = product(d, &one, &w.packed);
        assert_memory_equal(alone.data, (float *)out.data + (size_t)r * (size_t)n,
                            (size_t)n * sizeof(float));
        free(alone.data);
    }
    float *row = malloc((size_t)k * sizeof *row);
    struct tensor embedded = tensor_view(row, DTYPE_F32, 1, k);
    int32_t id = random_in(0, n - 1);
    d->backend->embedding(d, &embedded, &id, &w.packed);
    assert_memory_equal(row, w.values + (size_t)id * (size_t)k, (size_t)k * sizeof *row);
    free(row);
    free(x.data);
    free(out.data);
    free(expected.data);
    free_weights(d, &w);
}

static void test_products_and_embeddings(void **state)
{
    (void)state;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        struct device *d = open_device((enum cpu_isa)isa, 3);
        check_product(d, 1, 1, 1);
        check_product(d, 33, MAX_FEATURES, MAX_ROWS);
        check_product(d, 200, 512, 49);
        for (int i = 0; i < 30; i++)
            check_product(d, random_in(1, 120), random_in(1, MAX_FEATURES), random_in(1, 20));
        d->backend->close(d);
    }
}

/* Three formats over one x, each with an order of the columns of its own, one of them plain. */
static void test_chains_and_orders(void **state)
{
    (void)state;
    struct device *d = open_device(cpu_isa_detect(), 2);
    for (int round = 0; round < 10; round++) {
        struct weights w[3];
        int32_t k = random_in(1, 700), *order = malloc((size_t)k * sizeof *order);
        struct quant_format formats[3] = { random_quant_format(groups, 4),
                                           random_quant_format(groups, 4),
                                           random_quant_format(groups, 4) };
        struct tensor x = random_rows(7, k), turned = random_rows(7, k);
        for (int32_t i = 0; i < k; i++)
            order[i] = i;
        for (int32_t i = k - 1; i > 0; i--) {
            int32_t j = random_in(0, i), t = order[i];
            order[i] = order[j];
            order[j] = t;
        }
        for (int32_t r = 0; r < 7; r++)
            for (int32_t i = 0; i < k; i++)
                ((float *)turned.data)[r * k + i] = ((float *)x.data)[r * k + order[i]];
        for (int i = 0; i < 3; i++)
            make_weights(d, &w[i], &formats[i], random_in(1, 80), k);
        struct linear chain[3] = { w[0].packed, w[1].wide, w[2].packed };
        chain[0].next = &chain[1];
        chain[1].next = &chain[2];
        chain[0].input_order = order;
        chain[1].input_order = order;
        struct tensor out = product(d, &x, &chain[0]);
        int32_t column = 0;
        for (int i = 0; i < 3; i++) {
            struct tensor part = product(d, i < 2 ? &turned : &x, &w[i].wide);
            for (int32_t r = 0; r < 7; r++)
                assert_memory_equal((float *)out.data + r * out.cols + column,
                                    (float *)part.data + r * part.cols,
                                    (size_t)part.cols * sizeof(float));
            column += part.cols;
            free(part.data);
            free_weights(d, &w[i]);
        }
        assert_int_equal(column, out.cols);
        free(out.data);
        free(x.data);
        free(turned.data);
        free(order);
    }
    d->backend->close(d);
}

static struct tensor mixture(struct device *d, const struct tensor *x, const struct tensor *logits,
                             const struct linear *gate_up, const struct linear *down)
{
    struct status st = { 0 };
    struct moe moe = { .num_experts = EXPERTS,
                       .num_experts_per_tok = TOP_K,
                       .routed_scaling_factor = 1,
                       .gate_up = gate_up,
                       .down = down };
    struct tensor out = random_rows(x->rows, x->cols);
    d->backend->moe(d, &out, x, logits, &moe);
    assert_true(d->backend->sync(d, &st));
    return out;
}

static void test_experts(void **state)
{
    (void)state;
    struct device *d = open_device(cpu_isa_detect(), 2);
    for (int round = 0; round < 10; round++) {
        struct weights up[EXPERTS], down[EXPERTS];
        struct linear packed[2][EXPERTS], wide[2][EXPERTS];
        struct quant_format f = random_quant_format(groups, 4), g = random_quant_format(groups, 4);
        int32_t hidden = random_in(2, 300), inner = random_in(1, 300);
        int32_t *turned = malloc((size_t)hidden * sizeof *turned);
        for (int32_t i = 0; i < hidden; i++)
            turned[i] = hidden - 1 - i;
        for (int e = 0; e < EXPERTS; e++) {
            make_weights(d, &up[e], &f, 2 * inner, hidden);
            make_weights(d, &down[e], &g, hidden, inner);
            if (e == 1)
                up[e].packed.input_order = up[e].wide.input_order = turned;
            packed[0][e] = up[e].packed, packed[1][e] = down[e].packed;
            wide[0][e] = up[e].wide, wide[1][e] = down[e].wide;
        }
        struct tensor x = random_rows(MAX_ROWS, hidden), logits = random_rows(MAX_ROWS, EXPERTS);
        struct tensor out = mixture(d, &x, &logits, packed[0], packed[1]);
        struct tensor expected = mixture(d, &x, &logits, wide[0], wide[1]);
        assert_same(&out, &expected);
        for (int e = 0; e < EXPERTS; e++)
            up[e].packed.input_order = NULL, free_weights(d, &up[e]), free_weights(d, &down[e]);
        free(out.data);
        free(expected.data);
        free(x.data);
        free(logits.data);
        free(turned);
    }
    d->backend->close(d);
}

int main(void)
{
    rng_system(&seed, sizeof seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_and_embeddings),
        cmocka_unit_test(test_chains_and_orders),
        cmocka_unit_test(test_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
