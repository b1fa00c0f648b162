/* test_linear_cuda.c - products on the GPU against sums in double, for every dtype, odd shapes and
 * any number of rows; and that a row's bits do not depend on how many rows ride along. */
#include "tests/kernels/cuda/linear_fixture.h"

enum { MAX_ROWS = 300, MAX_IN = 8500 };

/* More than 8,192 columns are more pieces than a skinny product's block holds the sums of at once.
 */
static void follows_the_formula(void **state)
{
    (void)state;
    static const struct {
        int32_t rows, out, in;
    } shapes[] = { { 1, 1, 1 },    { 1, 16, 64 },    { 1, 33, 2100 }, { 3, 20, 257 },
                   { 8, 17, 600 }, { 9, 50, 100 },   { 16, 64, 65 },  { 17, 65, 320 },
                   { 40, 70, 31 }, { 129, 130, 96 }, { 2, 17, 8500 }, { 12, 18, 8450 } };
    for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            struct product p = random_product(&gpu, (enum dtype)dtype, shapes[i].rows,
                                              shapes[i].out, shapes[i].in);
            struct tensor out = run_rows(&gpu, &p, 0, shapes[i].rows);
            char what[100];
            snprintf(what, sizeof what, "%s, %d rows of %d, %d features",
                     dtype_name((enum dtype)dtype), shapes[i].rows, shapes[i].in, shapes[i].out);
            check_formula(&p, &out, what);
            free(out.data);
            free_product(&gpu, &p);
        }
    }
}

/* 1, 8, 16, 40 and 129 rows are done in five different ways; in_features of several pieces. */
static void rows_are_alone(void **state)
{
    (void)state;
    static const int32_t counts[] = { 1, 8, 13, 40 };
    for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) {
        struct product p = random_product(&gpu, (enum dtype)dtype, 129, RANDOM_OF(20, 24), 800);
        struct tensor whole = run_rows(&gpu, &p, 0, 129);
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            const int32_t begin = random_int(0, 129 - counts[i]);
            struct tensor part = run_rows(&gpu, &p, begin, counts[i]), same = whole;
            same.data = (float *)whole.data + begin * whole.stride;
            same.rows = counts[i];
            assert_tensors_equal(&part, &same, dtype_name((enum dtype)dtype));
            free(part.data);
        }
        free(whole.data);
        free_product(&gpu, &p);
    }
}

/* Links of different dtypes, one of them with its columns in another order, are as many products.
 */
static void chains_and_orders(void **state)
{
    (void)state;
    enum { IN = 70 };
    struct product a = random_product(&gpu, DTYPE_BF16, 3, 20, IN);
    struct product b = random_product(&gpu, DTYPE_F32, 3, 9, IN);
    int32_t *order = random_order(IN);
    struct tensor wanted_a = run_rows(&gpu, &a, 0, 3), ordered = copy_tensor(&a.x);
    for (int32_t r = 0; r < 3; r++) /* the second link sees the first one's x, reordered */
        for (int32_t i = 0; i < IN; i++)
            ((float *)ordered.data)[r * ordered.stride + i] =
                ((float *)a.x.data)[r * a.x.stride + order[i]];
    free(b.x.data);
    b.x = ordered;
    struct tensor wanted_b = run_rows(&gpu, &b, 0, 3);
    b.l.input_order = gpu_put(&gpu, order, IN * sizeof *order);
    a.l.next = &b.l;
    struct tensor out = random_tensor(3, 29, 1);
    struct tensor x_at = gpu_tensor(&gpu, &a.x), out_at = gpu_tensor(&gpu, &out);
    gpu.ops->linear(gpu.device, &out_at, &x_at, &a.l);
    gpu_get_tensor(&gpu, &out, &out_at);
    struct tensor first = tensor_columns(&out, 0, 20), second = tensor_columns(&out, 20, 9);
    assert_tensors_equal(&first, &wanted_a, "the first link");
    assert_tensors_equal(&second, &wanted_b, "the second link");
    free(order);
    free(wanted_a.data);
    free(wanted_b.data);
    free(out.data);
    free_product(&gpu, &a);
    free_product(&gpu, &b);
}

/* What float16 cannot hold is held at its greatest number instead of infinity. */
static void large_activations(void **state)
{
    (void)state;
    struct product p = random_product(&gpu, DTYPE_F16, 2, 4, 8);
    ((float *)p.x.data)[3] = 1e6f;
    struct tensor out = run_rows(&gpu, &p, 0, 2);
    for (int i = 0; i < 4; i++)
        assert_true(isfinite(((float *)out.data)[i]));
    free(out.data);
    free_product(&gpu, &p);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_formula),
        cmocka_unit_test(rows_are_alone),
        cmocka_unit_test(chains_and_orders),
        cmocka_unit_test(large_activations),
    };
    return gpu_run_tests(tests, products_workspace(MAX_ROWS, MAX_IN, 512));
}
