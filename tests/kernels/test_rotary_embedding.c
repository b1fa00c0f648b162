/* test_rotary_embedding.c - rotations against the formula in double, and the same bits on every
 * instruction set. */
#include "tests/kernels/cpu_fixture.h"

static const struct workspace_desc no_workspace = { .vocab_size = 1,
                                                    .head_dim = 1,
                                                    .max_num_seqs = 1 };

struct rotary_case {
    struct rope rope;
    int32_t rows, heads, head_dim, stride;
    float *inv_freq, *x;
    int32_t *positions;
};

static struct rotary_case random_case(void)
{
    struct rotary_case c = { .rows = RANDOM_OF(1, 2, 7, 40),
                             .heads = random_int(1, 5),
                             .head_dim = RANDOM_OF(2, 8, 10, 64, 80, 128, 130) };
    c.rope.rotary_dim = random_int(0, 1) ? c.head_dim : 2 * random_int(1, c.head_dim / 2);
    c.rope.interleaved = random_int(0, 1);
    c.rope.attention_scaling = random_int(0, 1) ? 1 : random_uniform(0.5f, 1.5f);
    c.stride = c.heads * c.head_dim + random_int(0, 11);
    c.inv_freq = malloc((size_t)c.head_dim * sizeof(float));
    for (int32_t i = 0; i < c.rope.rotary_dim / 2; i++)
        c.inv_freq[i] = powf(10000, -2.0f * (float)i / (float)c.rope.rotary_dim);
    c.rope.inv_freq = c.inv_freq;
    c.x = random_floats((size_t)(c.rows * c.stride), 2);
    c.positions = malloc((size_t)c.rows * sizeof *c.positions);
    for (int32_t i = 0; i < c.rows; i++)
        c.positions[i] = random_int(0, random_int(0, 1) ? 100 : 131071);
    return c;
}

static void free_case(struct rotary_case *c)
{
    free(c->inv_freq);
    free(c->x);
    free(c->positions);
}

static float *run(struct cpu_device *d, const struct rotary_case *c)
{
    size_t count = (size_t)(c->rows * c->stride);
    float *x = malloc(count * sizeof *x);
    float *cos_sin = random_floats((size_t)(c->rows * c->rope.rotary_dim), 1);
    memcpy(x, c->x, count * sizeof *x);
    struct tensor cos_sin_view = tensor_view(cos_sin, DTYPE_F32, c->rows, c->rope.rotary_dim);
    struct tensor x_view = { x, DTYPE_F32, c->rows, c->heads * c->head_dim, c->stride };
    cpu_rotary_cos_sin(&d->base, &cos_sin_view, c->positions, &c->rope);
    cpu_rotary_embedding(&d->base, &x_view, c->head_dim, &cos_sin_view, &c->rope);
    free(cos_sin);
    return x;
}

static void check_row(const struct rotary_case *c, int32_t row, const float *got)
{
    const int32_t half = c->rope.rotary_dim / 2;
    const float *x = c->x + row * c->stride;
    double *want = malloc((size_t)c->stride * sizeof *want);
    for (int32_t i = 0; i < c->stride; i++)
        want[i] = x[i];
    for (int32_t i = 0; i < half; i++) {
        /* The angle is float32 by definition. */
        const float angle = (float)c->positions[row] * c->rope.inv_freq[i];
        double cosine = cos(angle) * c->rope.attention_scaling;
        double sine = sin(angle) * c->rope.attention_scaling;
        for (int32_t head = 0; head < c->heads; head++) {
            int32_t a = head * c->head_dim + (c->rope.interleaved ? 2 * i : i);
            int32_t b = c->rope.interleaved ? a + 1 : a + half;
            want[a] = x[a] * cosine - x[b] * sine;
            want[b] = x[b] * cosine + x[a] * sine;
        }
    }
    assert_close(got, want, (size_t)c->stride, 2e-6, 1e-6, "rotated row");
    free(want);
}

static void follows_the_formula(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    struct cpu_device *devices[NUM_CPU_ISAS][3];
    for (int i = 0; i < num_isas; i++)
        for (int t = 0; t < 3; t++)
            devices[i][t] = fixture_open(isas[i], t + 1, &no_workspace);
    for (int round = 0; round < 200; round++) {
        struct rotary_case c = random_case();
        float *oracle = run(devices[0][0], &c);
        for (int32_t row = 0; row < c.rows; row++)
            check_row(&c, row, oracle + row * c.stride);
        for (int i = 0; i < num_isas; i++) {
            float *x = run(devices[i][random_int(0, 2)], &c);
            assert_same_bits(x, oracle, (size_t)(c.rows * c.stride), cpu_isa_name(isas[i]));
            free(x);
        }
        free(oracle);
        free_case(&c);
    }
    for (int i = 0; i < num_isas; i++)
        for (int t = 0; t < 3; t++)
            fixture_close(devices[i][t]);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = { cmocka_unit_test(follows_the_formula) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
