/* test_layernorm.c - every row of the table against the formula in double; rows alone and in
 * company, on 1 to 4 threads. */
#include "tests/kernels/cpu_fixture.h"

struct norm_case {
    struct norm norm;
    int32_t rows, groups, x_stride, out_stride, residual_stride;
    bool has_residual, in_place;
};

static void formula(double *out, const double *x, const struct norm *norm)
{
    double mean = 0, square = 0;
    for (int32_t i = 0; i < norm->size; i++)
        mean += x[i] / norm->size;
    if (norm->kind == NORM_RMS)
        mean = 0;
    for (int32_t i = 0; i < norm->size; i++)
        square += (x[i] - mean) * (x[i] - mean) / norm->size;
    for (int32_t i = 0; i < norm->size; i++) {
        out[i] = (x[i] - mean) / sqrt(square + norm->eps);
        if (norm->weight)
            out[i] *= (double)norm->weight[i] + norm->weight_offset;
        if (norm->bias)
            out[i] += norm->bias[i];
    }
}

static struct norm_case random_case(const float *weight, const float *bias)
{
    struct norm_case c = { .rows = RANDOM_OF(1, 1, 2, 5, 64),
                           .groups = RANDOM_OF(1, 1, 2, 7),
                           .has_residual = random_int(0, 1),
                           .in_place = random_int(0, 1) };
    c.norm = (struct norm){ .kind = random_int(0, 2) ? NORM_RMS : NORM_LAYER,
                            .size = RANDOM_OF(1, 3, 8, 15, 16, 17, 31, 33, 64, 100, 576, 2048),
                            .weight = random_int(0, 3) ? weight : NULL,
                            .bias = random_int(0, 1) ? bias : NULL,
                            .eps = 1e-5f,
                            .weight_offset = (float)random_int(0, 1) };
    c.x_stride = c.norm.size * c.groups + random_int(0, 9);
    c.out_stride = c.in_place ? c.x_stride : c.norm.size * c.groups + random_int(0, 9);
    c.residual_stride = c.norm.size * c.groups + random_int(0, 9);
    return c;
}

static struct tensor view(float *data, const struct norm_case *c, int32_t stride)
{
    return (struct tensor){ data, DTYPE_F32, c->rows, c->norm.size * c->groups, stride };
}

static float *copy_of(const float *x, size_t count)
{
    float *copy = malloc(count * sizeof *copy);
    memcpy(copy, x, count * sizeof *copy);
    return copy;
}

/* out and residual as the op leaves them; x stays. The caller frees both. */
static void run(struct cpu_device *d, const struct norm_case *c, const float *x,
                const float *residual, float **out, float **new_residual)
{
    size_t out_count = (size_t)c->rows * (size_t)c->out_stride;
    *out = c->in_place ? copy_of(x, (size_t)c->rows * (size_t)c->x_stride)
                       : random_floats(out_count, 1);
    *new_residual = copy_of(residual, (size_t)c->rows * (size_t)c->residual_stride);
    struct tensor x_view = view(c->in_place ? *out : (float *)x, c, c->x_stride);
    struct tensor out_view = view(*out, c, c->out_stride);
    struct tensor residual_view = view(*new_residual, c, c->residual_stride);
    cpu_norm(&d->base, &out_view, c->has_residual ? &residual_view : NULL, &x_view, &c->norm);
}

static void check_formula(const struct norm_case *c, const float *x, const float *residual,
                          const float *out, const float *new_residual)
{
    const int32_t size = c->norm.size;
    double sum[2048], want[2048];
    for (int32_t row = 0; row < c->rows; row++) {
        for (int32_t at = 0; at < size * c->groups; at += size) {
            const float *r = residual + row * c->residual_stride + at;
            const float *new_r = new_residual + row * c->residual_stride + at;
            for (int32_t i = 0; i < size; i++) {
                float total = x[row * c->x_stride + at + i] + (c->has_residual ? r[i] : 0);
                sum[i] = total;
                assert_true(new_r[i] == (c->has_residual ? total : r[i]));
            }
            formula(want, sum, &c->norm);
            assert_close(out + row * c->out_stride + at, want, (size_t)size, 3e-5, 1e-5, "norm");
        }
    }
}

/* A row by itself must give what it gives among the others. */
static void check_alone(struct cpu_device *d, const struct norm_case *c, const float *x,
                        const float *residual, const float *out)
{
    struct norm_case one = *c;
    int32_t row = random_int(0, c->rows - 1);
    float *alone, *unused;
    one.rows = 1;
    run(d, &one, x + row * c->x_stride, residual + row * c->residual_stride, &alone, &unused);
    assert_same_bits(alone, out + row * c->out_stride, (size_t)(c->norm.size * c->groups),
                     "a row alone");
    free(alone);
    free(unused);
}

static void follows_the_formula(void **state)
{
    (void)state;
    struct workspace_desc w = { .vocab_size = 1, .head_dim = 1, .max_num_seqs = 1 };
    float *weight = random_floats(2048, 1), *bias = random_floats(2048, 1);
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *devices[4];
        for (int t = 0; t < 4; t++)
            devices[t] = fixture_open(isas[i], t + 1, &w);
        for (int round = 0; round < 100; round++) {
            struct norm_case c = random_case(weight, bias);
            float *x = random_floats((size_t)c.rows * (size_t)c.x_stride, 3);
            float *residual = random_floats((size_t)c.rows * (size_t)c.residual_stride, 3);
            float *out, *new_residual;
            run(devices[random_int(0, 3)], &c, x, residual, &out, &new_residual);
            check_formula(&c, x, residual, out, new_residual);
            check_alone(devices[random_int(0, 3)], &c, x, residual, out);
            free(out);
            free(new_residual);
            free(x);
            free(residual);
        }
        for (int t = 0; t < 4; t++)
            fixture_close(devices[t]);
    }
    free(weight);
    free(bias);
}

/* A NaN spoils its own row only, and all of it. */
static void nan_stays_in_its_row(void **state)
{
    (void)state;
    struct workspace_desc w = { .vocab_size = 1, .head_dim = 1, .max_num_seqs = 1 };
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = fixture_open(isas[i], 2, &w);
        float *x = random_floats(3 * 50, 1), out[150];
        struct norm norm = { .kind = NORM_RMS, .size = 50, .eps = 1e-6f };
        struct tensor x_view = tensor_view(x, DTYPE_F32, 3, 50);
        struct tensor out_view = tensor_view(out, DTYPE_F32, 3, 50);
        x[50 + random_int(0, 49)] = NAN;
        cpu_norm(&d->base, &out_view, NULL, &x_view, &norm);
        for (int j = 0; j < 150; j++)
            assert_int_equal(isnan(out[j]) != 0, j / 50 == 1);
        free(x);
        fixture_close(d);
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_formula),
        cmocka_unit_test(nan_stays_in_its_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
