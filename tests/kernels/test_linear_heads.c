/* test_linear_heads.c - a linear for each head: the same bits as each of them by itself, on every
 * instruction set and in every dtype, whatever the number of rows, threads and turns. */
#include "tests/kernels/cpu_fixture.h"

#include "kernels/cpu/linear.h"

struct heads {
    int32_t count, in, out;
    struct linear *linears;
    float *values;
    char *packed;
};

/* Packed one after the other from random float32 rows. */
static struct heads random_heads(struct cpu_device *d, enum dtype dtype)
{
    struct status st = { 0 };
    struct heads h = { .count = RANDOM_OF(1, 2, 3, 5, 16, 40),
                       .in = RANDOM_OF(1, 7, 16, 32, 33, 64, 128),
                       .out = RANDOM_OF(1, 8, 31, 32, 33, 64, 100, 128) };
    h.linears = calloc((size_t)h.count, sizeof *h.linears);
    h.values = random_floats((size_t)(h.count * h.in * h.out), 1);
    for (int32_t i = 0; i < h.count; i++) {
        h.linears[i] = (struct linear){ .in_features = h.in,
                                        .out_features = h.out,
                                        .format = quant_format_of_dtype(dtype) };
        assert_true(cpu_linear_plan(&d->base, &h.linears[i], &st));
    }
    size_t one = h.linears->packed_bytes;
    assert_int_equal(posix_memalign((void **)&h.packed, 64, one * (size_t)h.count), 0);
    for (int32_t i = 0; i < h.count; i++) {
        h.linears[i].packed = h.packed + one * (size_t)i;
        cpu_linear_pack(&d->base, &h.linears[i], 0, h.out, h.values + i * h.in * h.out,
                        quant_format_of_dtype(DTYPE_F32));
    }
    return h;
}

static void free_heads(struct heads *h)
{
    free(h->linears);
    free(h->values);
    free(h->packed);
}

/* With scratch memory for rows of `max_in_features`, which may be less than all heads take. */
static struct cpu_device *open_device(enum cpu_isa isa, int32_t threads, int32_t max_in_features)
{
    struct workspace_desc w = { .max_num_tokens = 40,
                                .max_num_seqs = 1,
                                .max_logits_rows = 1,
                                .max_in_features = max_in_features,
                                .head_dim = 1,
                                .vocab_size = 1 };
    struct cpu_device *d = fixture_open(isa, threads, &w);
    d->linear_scratch_bytes = cpu_linear_scratch_bytes(d, &w);
    assert_int_equal(posix_memalign(&d->linear_scratch, 64, d->linear_scratch_bytes), 0);
    memset(d->linear_scratch, 0xff, d->linear_scratch_bytes);
    return d;
}

static void close_device(struct cpu_device *d)
{
    free(d->linear_scratch);
    fixture_close(d);
}

static void check_heads(struct cpu_device *d, enum dtype dtype)
{
    struct heads h = random_heads(d, dtype);
    const int32_t rows = RANDOM_OF(0, 1, 2, 5, 17, 40),
                  x_stride = h.count * h.in + random_int(0, 9);
    const int32_t out_cols = h.count * h.out, out_stride = out_cols + random_int(0, 9);
    float *x = random_floats((size_t)(rows * x_stride) + 1, 1);
    float *got = random_floats((size_t)(rows * out_stride) + 1, 1);
    float *want = malloc(((size_t)(rows * out_stride) + 1) * sizeof *want);
    memcpy(want, got, ((size_t)(rows * out_stride) + 1) * sizeof *want);
    struct tensor from = { x, DTYPE_F32, rows, h.count * h.in, x_stride };
    struct tensor to = { got, DTYPE_F32, rows, out_cols, out_stride };
    struct tensor expected = { want, DTYPE_F32, rows, out_cols, out_stride };
    cpu_linear_heads(&d->base, &to, &from, h.linears, h.count);
    for (int32_t i = 0; i < h.count; i++) {
        struct tensor x_head = tensor_columns(&from, i * h.in, h.in);
        struct tensor out_head = tensor_columns(&expected, i * h.out, h.out);
        cpu_linear(&d->base, &out_head, &x_head, &h.linears[i]);
    }
    char what[160];
    snprintf(what, sizeof what, "%s, %s, %d heads of %d to %d, %d rows", cpu_isa_name(d->isa),
             dtype_name(dtype), h.count, h.in, h.out, rows);
    /* What lies between the rows too: nothing is written there. */
    assert_same_bits(got, want, (size_t)(rows * out_stride) + 1, what);
    free_heads(&h);
    free(x);
    free(got);
    free(want);
}

static void test_as_one_by_one(void **state)
{
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    (void)state;
    for (int i = 0; i < num_isas; i++) {
        for (int round = 0; round < 12; round++) {
            struct cpu_device *d =
                open_device(isas[i], random_int(1, 3), RANDOM_OF(128, 300, 128 * 40));
            for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++)
                check_heads(d, (enum dtype)dtype);
            close_device(d);
        }
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
