/* test_arch_cuda.c - every architecture on the CUDA backend against transformers: the tiny models
 * of test_arch_parity.c, their logits within the bound that the CPU's have, the same greedy tokens.
 * Latent attention on tensor cores, with every cache and with quantized weights, against the CPU;
 * and that a row's bits do not depend on the batch.
 *
 * An emulated device takes its time: by default each model has one prompt and a few tokens there.
 * INFERD_TEST_ALL=1 runs all of both; a real device always does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/plugin.h"
#include "tests/engine/model/same_bits.h"
#include "tests/kernels/cuda/plugin_path.h"

static const struct backend *cuda;

static int load_plugin(void **state)
{
    struct status st;
    (void)state;
    cuda = backend_load(gpu_plugin_path(), &st);
    if (!cuda)
        rig_fail(gpu_plugin_path(), &st);
    return 0;
}

static void float32_goldens(void **state)
{
    const bool all = getenv("INFERD_TEST_ALL") || !gpu_is_emulated();
    const size_t num_prompts = all ? 2 : 1;
    (void)state;
    for (int i = 0; i < NUM_ARCH_MODELS; i++) {
        struct fixture f;
        json_t *prompt;
        size_t p;
        double worst = 0;
        fixture_open(&f, arch_models[i]);
        for (p = 0; p < num_prompts; p++) {
            prompt = json_array_get(json_object_get(f.golden, "prompts"), p);
            assert_non_null(prompt);
            worst =
                fmax(worst, prompt_error_on(f.dir, prompt, cuda, "scalar", all ? NUM_GREEDY : 8));
        }
        print_message("%s: worst difference %.2g of the range\n", arch_models[i], worst);
        assert_true(worst <= 1e-4);
        fixture_close(&f);
    }
}

/* --- latents of DeepSeek's own kind, multiples of 8 ------------------------------------------- */

enum { LATENT = 64, LATENT_ROPE = 16, LATENT_LEN = 48 };

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The logits of a prompt, whole and then a token at a time. The caller frees them. */
static float *latent_logits(const struct rig_options *o)
{
    struct rig r;
    int32_t ids[LATENT_LEN];
    rig_open_options(&r, o);
    const int32_t vocab = r.model->desc.vocab_size, first = LATENT_LEN - 6;
    float *all = xmalloc((size_t)LATENT_LEN * (size_t)vocab * sizeof *all);
    for (int32_t i = 0; i < LATENT_LEN; i++)
        ids[i] = (i * 29 + 4) % vocab;
    for (int32_t at = 0; at < LATENT_LEN;) {
        const int32_t count = at < first ? first : 1;
        const struct tensor *logits = rig_step(&r, &(struct rig_span){ 1, ids + at, count }, 1);
        for (int32_t i = 0; i < count; i++)
            memcpy(all + (int64_t)(at + i) * vocab, logits_row(logits, i),
                   (size_t)vocab * sizeof *all);
        at += count;
    }
    rig_close(&r);
    return all;
}

/* The median over rows of their greatest difference, in parts of the row's range: where rounding
 * makes a token choose other experts, its row differs by more. */
static double median_difference(const float *want, const float *got, int32_t vocab)
{
    double rows[LATENT_LEN];
    for (int32_t t = 0; t < LATENT_LEN; t++) {
        double low = INFINITY, high = -INFINITY, most = 0;
        for (int32_t i = t * vocab; i < (t + 1) * vocab; i++) {
            assert_false(isnan(got[i]));
            low = fmin(low, (double)want[i]);
            high = fmax(high, (double)want[i]);
            most = fmax(most, fabs((double)got[i] - (double)want[i]));
        }
        rows[t] = most / (high - low);
    }
    qsort(rows, LATENT_LEN, sizeof *rows, by_value);
    return rows[LATENT_LEN / 2];
}

static double difference_from_cpu(const struct fixture *f, const char *kv_dtype,
                                  const char *quantization)
{
    struct rig_options o = { .path = f->dir,
                             .load_format = "auto",
                             .dtype = "bfloat16",
                             .isa = "scalar",
                             .kv_dtype = kv_dtype,
                             .quantization = quantization };
    float *want = latent_logits(&o);
    o.backend = cuda;
    float *got = latent_logits(&o);
    const json_t *config = json_array_get(json_object_get(f->golden, "configs"), 0);
    const double difference = median_difference(
        want, got, (int32_t)json_integer_value(json_object_get(config, "vocab_size")));
    free(want);
    free(got);
    return difference;
}

static void latents_follow_the_cpu(void **state)
{
    /* An 8-bit cache moves a key to its next code where it differs in its last bit. */
    static const struct {
        const char *model, *kv_dtype, *quantization;
        double bound;
    } cases[] = {
        { "deepseek_v2", "bfloat16", NULL, 0.02 },
        { "deepseek_v3", "bfloat16", NULL, 0.02 },
        { "deepseek_v2_lite", "float16", NULL, 0.02 },
        { "deepseek_v3_halves", "float16", NULL, 0.02 },
        { "deepseek_v2", "fp8", NULL, 0.04 },
        { "deepseek_v3_halves", "fp8", NULL, 0.04 },
        { "deepseek_v2_lite", "int8", NULL, 0.04 },
        { "deepseek_v3", "int8", NULL, 0.04 },
        /* kv_b_proj too, whose heads are dequantized. */
        { "deepseek_v2", "bfloat16", "fp8", 0.02 },
        { "deepseek_v3", "bfloat16", "int8", 0.02 },
        { "deepseek_v2_lite", "bfloat16", "int4", 0.02 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        fixture_open_latent(&f, cases[i].model, LATENT, LATENT_ROPE);
        const double difference = difference_from_cpu(&f, cases[i].kv_dtype, cases[i].quantization);
        print_message("%s, cache in %s, weights in %s: %.2g of the range\n", cases[i].model,
                      cases[i].kv_dtype, cases[i].quantization ? cases[i].quantization : "bfloat16",
                      difference);
        assert_true(difference <= cases[i].bound);
        fixture_close(&f);
    }
}

/* --- the same bits --------------------------------------------------------------------------- */

static void check_gpu_bits(const struct fixture *f, const char *kv_dtype, const char *quantization)
{
    static const int32_t chunks[] = { 7 };
    const struct rig_options o = { .path = f->dir,
                                   .load_format = "auto",
                                   .dtype = "bfloat16",
                                   .isa = "scalar",
                                   .kv_dtype = kv_dtype,
                                   .quantization = quantization,
                                   .backend = cuda };
    check_same_bits(&o, chunks, sizeof chunks / sizeof chunks[0], false);
}

static void bits_do_not_depend_on_the_batch(void **state)
{
    static const char *const mixtures[] = { "mixtral", "qwen2_moe", "gpt_oss" };
    struct fixture f;
    (void)state;
    for (size_t i = 0; i < sizeof mixtures / sizeof mixtures[0]; i++) {
        fixture_open(&f, mixtures[i]);
        check_gpu_bits(&f, NULL, NULL);
        fixture_close(&f);
    }
    fixture_open_latent(&f, "deepseek_v3", LATENT, LATENT_ROPE);
    check_gpu_bits(&f, NULL, NULL);
    check_gpu_bits(&f, "fp8", "int8");
    fixture_close(&f);
    fixture_open_latent(&f, "deepseek_v2", LATENT, LATENT_ROPE);
    check_gpu_bits(&f, "int8", "fp8");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_goldens),
        cmocka_unit_test(latents_follow_the_cpu),
        cmocka_unit_test(bits_do_not_depend_on_the_batch),
    };
    return cmocka_run_group_tests(tests, load_plugin, NULL);
}
