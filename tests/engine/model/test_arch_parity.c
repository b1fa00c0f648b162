/* test_arch_parity.c - every architecture against transformers: a tiny model with weights drawn
 * from its tensors' names, the logits at every position, 32 greedy tokens, and the error of
 * bfloat16; and the same bits whether a prompt comes whole, in chunks, in company, or behind a
 * prefix that another sequence left in the cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/same_bits.h"

/* --- parity ---------------------------------------------------------------------------------- */

/* Every spelling of the configuration, on the plain kernels and on the best ones. */
static void test_parity(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_ARCH_MODELS; i++) {
        struct fixture f;
        json_t *config, *prompt;
        size_t c, p;
        double worst = 0;
        fixture_open(&f, arch_models[i]);
        json_array_foreach(json_object_get(f.golden, "configs"), c, config)
        {
            write_config(f.dir, config);
            json_array_foreach(json_object_get(f.golden, "prompts"), p, prompt)
            {
                worst = fmax(worst, prompt_error(f.dir, prompt, "scalar"));
                worst = fmax(worst, prompt_error(f.dir, prompt, "auto"));
            }
            assert_int_equal(p, 2);
        }
        print_message("%s: worst difference %.2g of the range, %zu spellings\n", arch_models[i],
                      worst, c);
        assert_true(worst <= 1e-4);
        fixture_close(&f);
    }
}

/* --- bfloat16 -------------------------------------------------------------------------------- */

/* transformers' bfloat16 run of the same weights is `theirs`; both are compared with its float32
 * run. In rms and median ours may not be farther away. Maximum and mean hang on single roundings,
 * which are other ones with another instruction set: on scalar and AVX2 kernels they are within
 * transformers' too, but the test leaves a quarter more. */
static void check_no_worse(const char *what, double ours, const json_t *theirs, const char *key)
{
    bool by_chance = strcmp(key, "max") == 0 || strcmp(key, "mean") == 0;
    double bound = json_number_value(json_object_get(theirs, key)) * (by_chance ? 1.25 : 1);
    assert_true(bound > 0);
    if (!(ours > 0 && ours <= bound))
        fail_msg("%s: the %s error is %.3g, which is over %.3g", what, key, ours, bound);
}

static struct error step_error(struct rig *r, const int32_t *ids, int32_t n, const json_t *expected)
{
    rig_reset(r);
    const struct tensor *logits = rig_step(r, &(struct rig_span){ 0, ids, n }, 1);
    struct tensor last = *logits;
    int32_t rows = (int32_t)json_array_size(expected);
    last.data = (float *)last.data + (last.rows - rows) * last.stride;
    last.rows = rows;
    return logits_error(&last, expected);
}

/* Every position of the prompts. The greatest error is compared where the KV cache is the server's
 * default for these models, float16; a bfloat16 cache is held to the rms error alone. */
static void check_bf16_prompts(const struct fixture *f, const char *name, const char *isa,
                               const char *kv_dtype)
{
    json_t *prompt;
    size_t p;
    json_array_foreach(json_object_get(f->golden, "prompts"), p, prompt)
    {
        struct rig r;
        int32_t ids[RIG_MAX_LEN], n = json_ints(json_object_get(prompt, "ids"), ids, RIG_MAX_LEN);
        int32_t served = (int32_t)json_integer_value(json_object_get(prompt, "served_len"));
        struct rig_options o = { .path = f->dir,
                                 .load_format = "auto",
                                 .dtype = "bfloat16",
                                 .isa = isa,
                                 .kv_dtype = kv_dtype,
                                 .served_len = served };
        rig_open_options(&r, &o);
        struct error e = step_error(&r, ids, n, json_object_get(prompt, "logits"));
        check_no_worse(name, e.rms, json_object_get(prompt, "bf16_error"), "rms");
        if (strcmp(kv_dtype, "float16") == 0)
            check_no_worse(name, e.max, json_object_get(prompt, "bf16_error"), "max");
        rig_close(&r);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* With experts: the last position of many prompts, since an error jumps where rounding sends a
 * token to another expert, and which tokens these are is chance. The mean, in which these jumps
 * show, is compared with the default cache only. */
static void check_bf16_experts(const struct fixture *f, const char *name, const char *isa,
                               const char *kv_dtype)
{
    enum { MAX_PROMPTS = 64 };
    const json_t *theirs = json_object_get(f->golden, "bf16");
    const json_t *prompts = json_object_get(theirs, "prompts");
    double errors[MAX_PROMPTS], sum = 0;
    size_t count = json_array_size(prompts), p;
    json_t *prompt;
    struct rig r;
    assert_true(count >= 20 && count <= MAX_PROMPTS);
    rig_open_with_kv(&r, f->dir, "auto", "bfloat16", isa, kv_dtype);
    json_array_foreach((json_t *)prompts, p, prompt)
    {
        int32_t ids[RIG_MAX_LEN], n = json_ints(json_object_get(prompt, "ids"), ids, RIG_MAX_LEN);
        json_t *expected = json_pack("[O]", json_object_get(prompt, "logits"));
        errors[p] = step_error(&r, ids, n, expected).rms;
        sum += errors[p];
        json_decref(expected);
    }
    qsort(errors, count, sizeof *errors, by_value);
    double median = (errors[(count - 1) / 2] + errors[count / 2]) / 2, mean = sum / (double)count;
    check_no_worse(name, median, theirs, "median");
    if (strcmp(kv_dtype, "float16") == 0)
        check_no_worse(name, mean, theirs, "mean");
    rig_close(&r);
}

static void test_bf16(void **state)
{
    static const struct {
        const char *isa, *kv_dtype;
    } runs[] = { { "scalar", "float16" }, { "auto", "float16" }, { "auto", "bfloat16" } };
    (void)state;
    for (int i = 0; i < NUM_ARCH_MODELS; i++) {
        struct fixture f;
        fixture_open(&f, arch_models[i]);
        for (size_t run = 0; run < sizeof runs / sizeof runs[0]; run++) {
            if (json_object_get(f.golden, "bf16"))
                check_bf16_experts(&f, arch_models[i], runs[run].isa, runs[run].kv_dtype);
            else
                check_bf16_prompts(&f, arch_models[i], runs[run].isa, runs[run].kv_dtype);
        }
        fixture_close(&f);
    }
}

/* --- the same bits --------------------------------------------------------------------------- */

static void check_cpu_bits(const struct fixture *f, const char *isa, const char *dtype)
{
    static const int32_t chunks[] = { SAME_LEN, 1, 7, 16, 40 };
    struct rig_options o = { .path = f->dir, .load_format = "auto", .dtype = dtype, .isa = isa };
    check_same_bits(&o, chunks, sizeof chunks / sizeof chunks[0], true);
}

static void test_same_bits(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_ARCH_MODELS; i++) {
        struct fixture f;
        fixture_open(&f, arch_models[i]);
        check_cpu_bits(&f, "scalar", "float32");
        check_cpu_bits(&f, "auto", "float32");
        check_cpu_bits(&f, "auto", "bfloat16");
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
