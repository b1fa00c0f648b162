/* test_rope_desc.c - the spellings of rope settings, and their frequencies against the formulas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/config_helper.h"
#include "engine/model/rope_desc.h"

#include <math.h>

static void test_spellings(void **state)
{
    (void)state;
    struct rope_desc plain = desc_of("{}").rope;
    assert_int_equal(plain.type, ROPE_DEFAULT);
    assert_true(plain.theta == 10000.0);
    assert_int_equal(plain.rotary_dim, 8);
    assert_false(plain.interleaved);

    static const char *const linear[] = {
        "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5},\"rope_theta\":5e5}",
        "{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5},\"rope_theta\":500000}",
        "{\"rope_scaling\":{\"type\":\"linear\",\"rope_type\":\"linear\",\"factor\":2.5},"
        "\"rope_theta\":500000}",
        "{\"rope_scaling\":\"-\",\"rope_theta\":\"-\",\"rope_parameters\":{\"rope_type\":"
        "\"linear\","
        "\"factor\":2.5,\"rope_theta\":500000.0}}",
        /* The old keys go before the new one where both are there. */
        "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5},\"rope_theta\":5e5,"
        "\"rope_parameters\":{\"rope_type\":\"default\"}}",
    };
    for (size_t i = 0; i < sizeof linear / sizeof linear[0]; i++) {
        struct rope_desc r = desc_of(linear[i]).rope;
        assert_int_equal(r.type, ROPE_LINEAR);
        assert_true(r.factor == 2.5 && r.theta == 500000.0);
    }
    struct rope_desc r = desc_of("{\"rope_theta\":\"-\",\"rope_parameters\":{\"rope_type\":"
                                 "\"default\",\"rope_theta\":20000}}")
                             .rope;
    assert_int_equal(r.type, ROPE_DEFAULT);
    assert_true(r.theta == 20000);
    /* The rope object's theta goes before the one outside. */
    r = desc_of("{\"rope_parameters\":{\"rope_theta\":30000}}").rope;
    assert_true(r.theta == 30000);
}

static void test_llama3(void **state)
{
    (void)state;
    struct rope_desc r =
        desc_of("{\"head_dim\":128,\"rope_theta\":500000.0,\"rope_scaling\":{\"factor\":8.0,"
                "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                "\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"}}")
            .rope;
    float inv_freq[64];
    int kept = 0, divided = 0, between = 0;
    assert_int_equal(r.type, ROPE_LLAMA3);
    assert_int_equal(r.original_max_position_embeddings, 8192);
    rope_desc_inv_freq(&r, inv_freq);
    for (int i = 0; i < 64; i++) {
        double plain = pow(500000.0, -2.0 * i / 128), wavelength = 2 * acos(-1) / plain;
        if (wavelength < 8192 / 4.0) {
            assert_true(fabs(inv_freq[i] / plain - 1) < 1e-6);
            kept++;
        } else if (wavelength > 8192) {
            assert_true(fabs(inv_freq[i] * 8 / plain - 1) < 1e-6);
            divided++;
        } else {
            double smooth = (8192 / wavelength - 1) / 3;
            assert_true(fabs(inv_freq[i] / (plain * ((1 - smooth) / 8 + smooth)) - 1) < 1e-6);
            between++;
        }
    }
    assert_true(kept > 20 && divided > 20 && between > 3);
}

static void test_frequencies(void **state)
{
    (void)state;
    float inv_freq[4];
    struct rope_desc r = { .type = ROPE_DEFAULT, .theta = 10000, .rotary_dim = 8, .factor = 1 };
    rope_desc_inv_freq(&r, inv_freq);
    for (int i = 0; i < 4; i++)
        assert_true(inv_freq[i] == (float)pow(10, -i));
    r.type = ROPE_LINEAR;
    r.factor = 4;
    rope_desc_inv_freq(&r, inv_freq);
    for (int i = 0; i < 4; i++)
        assert_true(inv_freq[i] == (float)(pow(10, -i) / 4));
}

/* Dynamic: a base for the length served; longrope: factors by it. */
static void test_served_length(void **state)
{
    (void)state;
    float inv_freq[4];
    struct rope_desc r = desc_of("{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}").rope;
    r.max_len = 200;
    rope_desc_inv_freq(&r, inv_freq);
    assert_true(inv_freq[1] == (float)pow(10, -1)); /* up to 256 nothing is stretched */
    r.max_len = 512;
    rope_desc_inv_freq(&r, inv_freq);
    double theta = 10000 * pow(2 * 2 - 1, 8.0 / 6);
    for (int i = 0; i < 4; i++)
        assert_true(fabs(inv_freq[i] / pow(theta, -i / 4.0) - 1) < 1e-6);

    r = desc_of("{\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,2,3,4],"
                "\"long_factor\":[5,6,7,8],\"original_max_position_embeddings\":64}}")
            .rope;
    assert_true(fabs(r.attention_factor - sqrt(1 + log(4) / log(64))) < 1e-12);
    for (int32_t len = 64; len <= 65; len++) {
        r.max_len = len;
        rope_desc_inv_freq(&r, inv_freq);
        for (int i = 0; i < 4; i++)
            assert_true(fabs(inv_freq[i] * (len > 64 ? 5 + i : 1 + i) / pow(10, -i) - 1) < 1e-6);
    }
}

/* Yarn: high frequencies stay, low ones are divided, and cos and sin grow by a factor. */
static void test_yarn(void **state)
{
    (void)state;
    struct rope_desc r =
        desc_of("{\"head_dim\":128,\"rope_theta\":1e6,\"rope_scaling\":{\"type\":"
                "\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768}}")
            .rope;
    float inv_freq[64];
    assert_true(fabs(r.attention_factor - (0.1 * log(4) + 1)) < 1e-12);
    rope_desc_inv_freq(&r, inv_freq);
    for (int i = 0; i < 64; i++) {
        /* The range is floor(23.59) to ceil(39.64): where 32768 positions turn 32 times, or once.
         */
        double plain = pow(1e6, -i / 64.0), share = fmin(fmax((i - 23) / 17.0, 0), 1);
        assert_true(fabs(inv_freq[i] / (plain * (1 - share) + plain / 4 * share) - 1) < 1e-6);
    }
    r = desc_of("{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,\"mscale\":1,\"mscale_all_"
                "dim\":0.5}}")
            .rope;
    assert_int_equal(r.original_max_position_embeddings, 256); /* max_position_embeddings */
    assert_true(fabs(r.attention_factor - (0.1 * log(40) + 1) / (0.05 * log(40) + 1)) < 1e-12);
    r = desc_of("{\"rope_scaling\":{\"type\":\"yarn\",\"original_max_position_embeddings\":64,"
                "\"attention_factor\":1.5}}")
            .rope;
    assert_true(r.factor == 4 && r.attention_factor == 1.5);
}

#define SCALING(members) "{\"rope_scaling\":{" members "}}"
#define LLAMA3(factor, low, high, original)                                                        \
    SCALING("\"rope_type\":\"llama3\",\"factor\":" factor ",\"low_freq_factor\":" low              \
            ",\"high_freq_factor\":" high ",\"original_max_position_embeddings\":" original)

static void test_refused(void **state)
{
    static const struct {
        const char *patch, *words;
    } cases[] = {
        { SCALING("\"rope_type\":\"xrope\",\"factor\":2"), "rope_scaling.rope_type is \"xrope\"" },
        { SCALING("\"type\":\"proportional\",\"factor\":2"), "\"proportional\"" },
        { SCALING("\"type\":3"), "rope_type is 3" },
        { SCALING("\"type\":\"linear\",\"rope_type\":\"llama3\",\"factor\":2"), "disagree" },
        { SCALING("\"type\":\"linear\""), "rope_scaling lacks \"factor\"" },
        { SCALING("\"type\":\"linear\",\"factor\":\"2\""), "factor is \"2\"" },
        { SCALING("\"type\":\"linear\",\"factor\":0.5"), "factor is 0.5" },
        { SCALING("\"type\":\"linear\",\"factor\":1e300"), "factor is 1e300" },
        { SCALING("\"factor\":2"), "a factor but no rope_type" },
        { SCALING("\"full_attention\":{\"rope_type\":\"default\"}"), "differs between layers" },
        { SCALING("\"partial_rotary_factor\":0.5"), "partial_rotary_factor is 0.5" },
        { "{\"rope_scaling\":\"linear\"}", "rope_scaling is \"linear\"" },
        { "{\"rope_parameters\":[]}", "rope_parameters is []" },
        { "{\"rope_parameters\":{\"rope_type\":\"x\"}}", "rope_parameters.rope_type" },
        { SCALING("\"type\":\"dynamic\""), "rope_scaling lacks \"factor\"" },
        { SCALING("\"type\":\"yarn\",\"factor\":0"), "rope_scaling.factor is 0" },
        { SCALING("\"type\":\"yarn\",\"factor\":2,\"truncate\":1"), "truncate is 1" },
        { SCALING("\"type\":\"yarn\",\"factor\":2,\"beta_fast\":-1"), "beta_fast is -1" },
        { SCALING("\"type\":\"yarn\",\"factor\":2,\"attention_factor\":0"),
          "attention_factor is 0" },
        { SCALING("\"type\":\"yarn\",\"original_max_position_embeddings\":0.5"),
          "original_max_position_embeddings is 0.5" },
        { SCALING("\"type\":\"yarn\",\"original_max_position_embeddings\":64.5"),
          "no whole number" },
        { SCALING("\"type\":\"longrope\",\"long_factor\":[1,1,1,1]"), "short_factor is missing" },
        { SCALING("\"type\":\"su\",\"short_factor\":[1,1,1]"), "expected a list of 4 numbers" },
        { SCALING("\"type\":\"longrope\",\"short_factor\":[1,1,1,1],\"long_factor\":[1,0,1,1]"),
          "long_factor holds 0" },
        { "{\"rope_theta\":0}", "rope_theta is 0" },
        { "{\"rope_theta\":1}", "rope_theta is 1" },
        { "{\"rope_theta\":\"1e4\"}", "rope_theta is \"1e4\"" },
        { "{\"rope_parameters\":{\"rope_theta\":-5}}", "rope_theta is -5" },
        { SCALING("\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1"),
          "lacks \"high_freq_factor\"" },
        { LLAMA3("0", "1", "4", "8192"), "factor is 0" },
        { LLAMA3("8", "0", "4", "8192"), "low_freq_factor is 0" },
        { LLAMA3("8", "4", "4", "8192"), "not above low_freq_factor" },
        { LLAMA3("8", "1", "4", "0"), "original_max_position_embeddings is 0" },
        { LLAMA3("8", "1", "4", "8192.5"), "no whole number" },
        { LLAMA3("8", "1", "4", "1e18"), "original_max_position_embeddings is 1e18" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_config_refused(cases[i].patch, cases[i].words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings),   cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_frequencies), cmocka_unit_test(test_served_length),
        cmocka_unit_test(test_yarn),        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
