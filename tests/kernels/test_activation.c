/* test_activation.c - activations against the formulas in double, over the whole range of floats;
 * bits that do not depend on the place in a row. */
#include "tests/kernels/cpu_fixture.h"

static const struct workspace_desc no_workspace = { .vocab_size = 1,
                                                    .head_dim = 1,
                                                    .max_num_seqs = 1 };

static double formula(double x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return x == -INFINITY ? NAN : x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case ACT_GELU_TANH:
        /* 1 + tanh(u) = 2 / (1 + e^-2u), without the cancellation. */
        return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_SWIGLU_OAI:
        x = fmin(x, 7);
        return x / (1 + exp(-1.702 * x));
    default:
        return x > 0 ? x : 0;
    }
}

/* What the activated gate is multiplied with. */
static double gated(double up, enum activation act)
{
    return act == ACT_SWIGLU_OAI ? fmax(fmin(up, 7), -7) + 1 : up;
}

/* Gates of every size: most near 0, where activations bend, some anywhere among the floats. */
static float random_gate(void)
{
    if (random_int(0, 3))
        return 4 * random_normal();
    return (random_int(0, 1) ? 1.0f : -1.0f) * expf(random_uniform(-80, 80));
}

/* The scalar row takes libm's functions, the others their own: gelu_tanh loses digits where its
 * result is close to 0, as the formula in float does everywhere: of a gate of -5 a unit in the last
 * place of tanh is 3e-7, and what it is multiplied with multiplies that. */
static void follows_the_formula(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = fixture_open(isas[i], 2, &no_workspace);
        for (int round = 0; round < 200; round++) {
            enum activation act = (enum activation)random_int(0, NUM_ACTIVATIONS - 1);
            const int32_t rows = random_int(1, 4), cols = RANDOM_OF(1, 7, 8, 15, 16, 17, 40, 500);
            const int32_t stride = 2 * cols + random_int(0, 5), out_stride = cols + 3;
            float *x = random_floats((size_t)(rows * stride), 1);
            float *out = random_floats((size_t)(rows * out_stride), 1);
            struct tensor x_view = { x, DTYPE_F32, rows, 2 * cols, stride };
            struct tensor out_view = { out, DTYPE_F32, rows, cols, out_stride };
            for (int32_t j = 0; j < rows * stride; j++)
                x[j] = j % stride < cols ? random_gate() : 4 * x[j];
            cpu_act_and_mul(&d->base, &out_view, &x_view, act);
            for (int32_t row = 0; row < rows; row++) {
                for (int32_t j = 0; j < cols; j++) {
                    float gate = x[row * stride + j], up = x[row * stride + cols + j];
                    double want = formula(gate, act) * gated(up, act);
                    char what[96];
                    snprintf(what, sizeof what, "%s, activation %d of %.9g times %.9g",
                             cpu_isa_name(isas[i]), act, (double)gate, (double)up);
                    const double lost = act == ACT_GELU_TANH ? 1e-6 * fmax(1, fabs(up)) : 1e-6;
                    if (fabs(want) < 1e37) /* past that float may overflow */
                        assert_close(&out[row * out_stride + j], &want, 1, lost, 5e-6, what);
                }
            }
            free(x);
            free(out);
        }
        fixture_close(d);
    }
}

/* e^x itself, seen through silu's only exponential: 1 / (1 + e^-x) for large negative x is e^x. */
static void exponential_is_accurate(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = fixture_open(isas[i], 1, &no_workspace);
        enum { COUNT = 4096 };
        static float x[2 * COUNT], out[COUNT];
        double worst = 0;
        for (int round = 0; round < 50; round++) {
            for (int j = 0; j < COUNT; j++) {
                x[j] = random_uniform(-80, -25);
                x[COUNT + j] = 1;
            }
            struct tensor x_view = tensor_view(x, DTYPE_F32, 1, 2 * COUNT);
            struct tensor out_view = tensor_view(out, DTYPE_F32, 1, COUNT);
            cpu_act_and_mul(&d->base, &out_view, &x_view, ACT_SILU);
            for (int j = 0; j < COUNT; j++) {
                double want = (double)x[j] * exp(x[j]);
                double error = fabs(out[j] - want) / fabs(want);
                worst = error > worst ? error : worst;
            }
        }
        printf("%s: e^x off by at most %.3g, and one division\n", cpu_isa_name(isas[i]), worst);
        assert_true(worst < 1.8e-7);
        fixture_close(d);
    }
}

static void special_values(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = fixture_open(isas[i], 1, &no_workspace);
        for (int act = 0; act < NUM_ACTIVATIONS; act++) {
            float x[10] = { NAN, 0, INFINITY, -200, 200, 1, 1, 1, 1, 1 }, out[5];
            struct tensor x_view = tensor_view(x, DTYPE_F32, 1, 10);
            struct tensor out_view = tensor_view(out, DTYPE_F32, 1, 5);
            cpu_act_and_mul(&d->base, &out_view, &x_view, (enum activation)act);
            assert_true(isnan(out[0]));
            assert_true(out[1] == 0);
            assert_true(fabsf(out[3]) < 1e-20f);
            if (act == ACT_SWIGLU_OAI) { /* both are held at 7; up is 1 + 1 */
                assert_true(out[2] == out[4] && fabs((double)out[4] - 14) < 1e-3);
                continue;
            }
            assert_true(out[2] == INFINITY);
            assert_true(out[4] == 200);
        }
        fixture_close(d);
    }
}

/* An up that is no number, or none that is finite. */
static void special_ups(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = fixture_open(isas[i], 1, &no_workspace);
        float x[6] = { 200, 200, 200, NAN, INFINITY, -INFINITY }, out[3];
        struct tensor x_view = tensor_view(x, DTYPE_F32, 1, 6);
        struct tensor out_view = tensor_view(out, DTYPE_F32, 1, 3);
        cpu_act_and_mul(&d->base, &out_view, &x_view, ACT_SWIGLU_OAI);
        assert_true(isnan(out[0]));
        assert_true(fabs((double)out[1] - 56) < 1e-3 && fabs((double)out[2] + 42) < 1e-3);
        fixture_close(d);
    }
}

static void bits_do_not_depend_on_the_place(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *few = fixture_open(isas[i], 1, &no_workspace);
        struct cpu_device *many = fixture_open(isas[i], 4, &no_workspace);
        for (int act = 0; act < NUM_ACTIVATIONS; act++) {
            enum { ROWS = 33, COLS = 1000 };
            float *x = random_floats(ROWS * 2 * COLS, 3), *out = random_floats(ROWS * COLS, 1);
            struct tensor x_view = tensor_view(x, DTYPE_F32, ROWS, 2 * COLS);
            struct tensor out_view = tensor_view(out, DTYPE_F32, ROWS, COLS);
            cpu_act_and_mul(&many->base, &out_view, &x_view, (enum activation)act);
            for (int round = 0; round < 50; round++) {
                int32_t row = random_int(0, ROWS - 1), at = random_int(0, COLS - 1);
                float pair[2] = { x[row * 2 * COLS + at], x[row * 2 * COLS + COLS + at] }, one;
                struct tensor pair_view = tensor_view(pair, DTYPE_F32, 1, 2);
                struct tensor one_view = tensor_view(&one, DTYPE_F32, 1, 1);
                cpu_act_and_mul(&few->base, &one_view, &pair_view, (enum activation)act);
                assert_same_bits(&one, &out[row * COLS + at], 1, "one element");
            }
            free(x);
            free(out);
        }
        fixture_close(few);
        fixture_close(many);
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_formula),
        cmocka_unit_test(exponential_is_accurate),
        cmocka_unit_test(special_values),
        cmocka_unit_test(special_ups),
        cmocka_unit_test(bits_do_not_depend_on_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
