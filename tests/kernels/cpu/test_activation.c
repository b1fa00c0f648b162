/* test_activation.c - activations without a gate and the softcap, on every instruction set: in
 * place, against the formulas in double, with nothing written beside the view. */
#include "tests/kernels/cpu_fixture.h"

static const struct workspace_desc no_workspace = { .vocab_size = 1,
                                                    .head_dim = 1,
                                                    .max_num_seqs = 1 };

static double formula(double x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case ACT_GELU_TANH:
        return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_SWIGLU_OAI:
        x = fmin(x, 7);
        return x / (1 + exp(-1.702 * x));
    default:
        return x > 0 ? x : 0;
    }
}

/* Rows of `cols` elements with others between them, which must stay. */
struct rows {
    int32_t count, cols, stride;
    float *before, *x;
    struct tensor view;
};

static struct rows random_rows(float deviation)
{
    struct rows r = { .count = random_int(1, 5), .cols = RANDOM_OF(1, 7, 8, 15, 16, 17, 33, 300) };
    r.stride = r.cols + random_int(0, 4);
    size_t size = (size_t)(r.count * r.stride);
    r.before = random_floats(size, deviation);
    r.x = malloc(size * sizeof *r.x);
    assert_non_null(r.x);
    memcpy(r.x, r.before, size * sizeof *r.x);
    r.view = (struct tensor){ r.x, DTYPE_F32, r.count, r.cols, r.stride };
    return r;
}

/* `act` NUM_ACTIVATIONS: the softcap. */
static void check_rows(const struct rows *r, enum activation act, double cap)
{
    for (int32_t i = 0; i < r->count * r->stride; i++) {
        double x = (double)r->before[i], want = x;
        if (i % r->stride < r->cols)
            want = act == NUM_ACTIVATIONS ? cap * tanh(x / cap) : formula(x, act);
        /* tanh is exact to a few 1e-7 of its range, which is the cap. */
        if (!(fabs((double)r->x[i] - want) <= 1e-5 * fmax(fabs(want), 0.1) + 4e-7 * cap))
            fail_msg("%d: f(%.9g) is %.9g, expected %.9g", act, x, (double)r->x[i], want);
    }
}

static void free_rows(struct rows *r)
{
    free(r->before);
    free(r->x);
}

static void follow_the_formulas(void **state)
{
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    (void)state;
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = fixture_open(isas[i], 2, &no_workspace);
        for (int round = 0; round < 100; round++) {
            struct rows r = random_rows(4);
            enum activation act = (enum activation)random_int(0, NUM_ACTIVATIONS - 1);
            cpu_act(&d->base, &r.view, act);
            check_rows(&r, act, 0);
            free_rows(&r);

            float cap = RANDOM_OF(1, 5, 30, 50);
            r = random_rows(cap * 3);
            cpu_softcap(&d->base, &r.view, cap);
            check_rows(&r, NUM_ACTIVATIONS, (double)cap);
            free_rows(&r);
        }
        fixture_close(d);
    }
}

/* What lies beyond floats gives the cap, and NaN stays. */
static void softcap_at_the_ends(void **state)
{
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    (void)state;
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = fixture_open(isas[i], 1, &no_workspace);
        float x[5] = { INFINITY, -INFINITY, NAN, 3e38f, 0 };
        struct tensor view = tensor_view(x, DTYPE_F32, 1, 5);
        cpu_softcap(&d->base, &view, 30);
        assert_true(x[0] == 30 && x[1] == -30 && isnan(x[2]) && x[3] == 30 && x[4] == 0);
        fixture_close(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follow_the_formulas),
        cmocka_unit_test(softcap_at_the_ends),
    };
    fixture_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
