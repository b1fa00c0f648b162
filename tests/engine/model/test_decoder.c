/* test_decoder.c - the forward pass against values computed elsewhere, and against itself: a prompt
 * in one piece, in chunks, and in company must give the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/model_helper.h"

#include <math.h>

#define SHARED "../shared/models/"

/* --- stories260K: float64 references --------------------------------------------------------- */

static double max_difference(const float *logits, const json_t *expected, int32_t n)
{
    double worst = 0;
    assert_int_equal((int32_t)json_array_size(expected), n);
    for (int32_t i = 0; i < n; i++)
        worst =
            fmax(worst, fabs(logits[i] - json_number_value(json_array_get(expected, (size_t)i))));
    return worst;
}

static void check_stories(const char *dir, const char *goldens_path, const char *dtype,
                          const char *isa, double tolerance, bool greedy)
{
    struct rig r;
    json_t *goldens = load_json(goldens_path), *prompt;
    size_t i;
    double worst = 0;
    rig_open(&r, dir, "auto", dtype, isa);
    json_array_foreach(json_object_get(goldens, "prompts"), i, prompt)
    {
        int32_t ids[RIG_MAX_LEN], expected[64], got[64];
        int32_t n = json_ints(json_object_get(prompt, "ids"), ids, RIG_MAX_LEN);
        int32_t m = json_ints(json_object_get(prompt, "greedy_ids"), expected, 64);
        rig_reset(&r);
        const struct tensor *logits = rig_step(&r, &(struct rig_span){ 0, ids, n }, 1);
        const float *last = logits_row(logits, n - 1);
        worst = fmax(worst, max_difference(last, json_object_get(prompt, "logits"), logits->cols));
        rig_greedy(&r, 0, last, got, m);
        if (greedy)
            assert_memory_equal(got, expected, (size_t)m * sizeof *got);
    }
    print_message("%s %s %s: worst logit difference %.2g\n", dir, dtype, isa, worst);
    assert_true(worst <= tolerance);
    json_decref(goldens);
    rig_close(&r);
}

static void test_stories_float32(void **state)
{
    (void)state;
    if (!file_exists(SHARED "goldens.json")) {
        print_message("skip: ../shared/models is not here\n");
        skip();
    }
    check_stories(SHARED "stories260K", SHARED "goldens.json", "float32", "scalar", 1e-4, true);
    check_stories(SHARED "stories260K", SHARED "goldens.json", "float32", "auto", 1e-4, true);
    check_stories(SHARED "stories260K-sharded", SHARED "goldens.json", "auto", "auto", 1e-4, true);
    check_stories(SHARED "stories260K-bf16", SHARED "goldens-bf16.json", "float32", "auto", 1e-4,
                  true);
}

/* --- bfloat16: looser, since activations are rounded before each product -----------------------
 */

static double log_sum_exp(const double *x, int32_t n)
{
    double max = x[0], sum = 0;
    for (int32_t i = 1; i < n; i++)
        max = fmax(max, x[i]);
    for (int32_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

static void check_bf16(const char *isa, const char *kv_dtype, double tolerance)
{
    struct rig r;
    json_t *goldens = load_json(SHARED "goldens-bf16.json"), *prompt, *id;
    size_t i, j;
    double worst = 0;
    rig_open_with_kv(&r, SHARED "stories260K-bf16", "auto", "auto", isa, kv_dtype);
    assert_string_equal(r.model->weight_format->name, "bfloat16");
    json_array_foreach(json_object_get(goldens, "prompts"), i, prompt)
    {
        int32_t ids[RIG_MAX_LEN];
        double expected[512], got[512];
        int32_t n = json_ints(json_object_get(prompt, "ids"), ids, RIG_MAX_LEN);
        rig_reset(&r);
        const struct tensor *logits = rig_step(&r, &(struct rig_span){ 0, ids, n }, 1);
        for (size_t k = 0; k < 512; k++) {
            got[k] = logits_row(logits, n - 1)[k];
            expected[k] = json_number_value(json_array_get(json_object_get(prompt, "logits"), k));
        }
        double shift = log_sum_exp(got, 512) - log_sum_exp(expected, 512);
        json_array_foreach(json_object_get(prompt, "top5"), j, id)
        {
            json_int_t k = json_integer_value(id);
            worst = fmax(worst, fabs(got[k] - expected[k] - shift));
        }
    }
    print_message("stories260K-bf16 %s, KV %s: worst top-5 logprob difference %.2g\n", isa,
                  kv_dtype, worst);
    assert_true(worst <= tolerance);
    json_decref(goldens);
    rig_close(&r);
}

static void test_stories_bfloat16(void **state)
{
    (void)state;
    if (!file_exists(SHARED "goldens-bf16.json")) {
        print_message("skip: ../shared/models is not here\n");
        skip();
    }
    check_bf16("scalar", "float32", 0.06);
    check_bf16("auto", "float32", 0.06);
    /* What --kv-cache-dtype auto means on the CPU. */
    check_bf16("scalar", "float16", 0.06);
    check_bf16("auto", "float16", 0.06);
    /* Keys lose 16 bits each, and their errors reach the scores at full size. */
    check_bf16("scalar", "bfloat16", 0.12);
    check_bf16("auto", "bfloat16", 0.12);
}

/* --- tiny models: transformers -----------------------------------------------------------------
 */

static double number_at(const json_t *array, int32_t i)
{
    return json_number_value(json_array_get(array, (size_t)i));
}

/* All positions of the prompt against the golden, errors relative to the row's range. */
static double tiny_difference(const struct tensor *logits, const json_t *prompt, int32_t step)
{
    double worst = 0, row[512];
    assert_int_equal(logits->cols, 512);
    for (int32_t t = 0; t < logits->rows; t++) {
        const json_t *expected = json_array_get(json_object_get(prompt, "logits"), (size_t)t);
        double low = number_at(json_object_get(prompt, "min"), t);
        double high = number_at(json_object_get(prompt, "max"), t);
        double sum = number_at(json_object_get(prompt, "logsumexp"), t), error = 0;
        double got_low = INFINITY, got_high = -INFINITY;
        for (int32_t i = 0; i < 512; i++) {
            row[i] = logits_row(logits, t)[i];
            got_low = fmin(got_low, row[i]);
            got_high = fmax(got_high, row[i]);
            if (i % step == 0)
                error = fmax(error, fabs(row[i] - number_at(expected, i / step)));
        }
        error = fmax(error, fabs(log_sum_exp(row, 512) - sum));
        error = fmax(error, fmax(fabs(got_low - low), fabs(got_high - high)));
        assert_true(high > low && !isnan(error));
        worst = fmax(worst, error / (high - low));
    }
    return worst;
}

static void check_tiny(const char *preset, const char *options, const char *isa)
{
    char dir[64], all[160];
    struct rig r;
    json_t *goldens = load_json("tests/golden/llama_tiny.json"), *prompt;
    int32_t step = (int32_t)json_integer_value(json_object_get(goldens, "column_step"));
    size_t i;
    double worst = 0;
    snprintf(all, sizeof all, "--preset %s %s", preset, options);
    if (!make_tiny(dir, all)) {
        print_message("skip: there is no python3\n");
        skip();
    }
    rig_open(&r, dir, "auto", "auto", isa);
    json_array_foreach(json_object_get(json_object_get(goldens, "cases"), preset), i, prompt)
    {
        int32_t ids[RIG_MAX_LEN], expected[64], got[64];
        int32_t n = json_ints(json_object_get(prompt, "ids"), ids, RIG_MAX_LEN);
        int32_t m = json_ints(json_object_get(prompt, "greedy_ids"), expected, 64);
        rig_reset(&r);
        const struct tensor *logits = rig_step(&r, &(struct rig_span){ 0, ids, n }, 1);
        worst = fmax(worst, tiny_difference(logits, prompt, step));
        rig_greedy(&r, 0, logits_row(logits, n - 1), got, m);
        assert_memory_equal(got, expected, (size_t)m * sizeof *got);
    }
    assert_int_equal(i, 2);
    print_message("%s %s %s: worst difference %.2g of the range\n", preset, options, isa, worst);
    assert_true(worst <= 1e-4);
    json_decref(goldens);
    rig_close(&r);
    remove_dir(dir);
}

static void test_tiny_transformers(void **state)
{
    static const char *const presets[] = { "default", "untied", "linear",
                                           "llama3",  "biases", "head_dim" };
    (void)state;
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        check_tiny(presets[i], "", "scalar");
        check_tiny(presets[i], "--sharded", "auto");
    }
}

static void test_tiny_rope_spellings(void **state)
{
    (void)state;
    check_tiny("linear", "--rope-style rope_scaling_type", "auto");
    check_tiny("linear", "--rope-style rope_parameters", "auto");
    check_tiny("llama3", "--rope-style rope_scaling_type", "auto");
    check_tiny("llama3", "--rope-style rope_scaling", "auto");
}

/* --- the same bits however the prompt comes ----------------------------------------------------
 */

enum { SAME_LEN = 61, OTHER_LEN = 37 };

static void expect_rows(const struct tensor *logits, int32_t first, int32_t count,
                        const float *expected)
{
    for (int32_t i = 0; i < count; i++)
        assert_memory_equal(logits_row(logits, first + i), expected + (int64_t)i * logits->cols,
                            (size_t)logits->cols * sizeof(float));
}

/* The prompt cut into pieces of `chunk`; with `other`, every step also carries a piece of another
 * sequence of another length, before or behind. */
static void check_chunks(struct rig *r, const int32_t *ids, const float *expected, int32_t chunk,
                         const int32_t *other, bool other_first)
{
    int32_t vocab = r->model->desc.vocab_size, other_at = 0;
    rig_reset(r);
    for (int32_t at = 0; at < SAME_LEN; at += chunk) {
        int32_t count = SAME_LEN - at < chunk ? SAME_LEN - at : chunk;
        int32_t other_count = other ? 1 + at % 5 : 0;
        if (other_count > OTHER_LEN - other_at)
            other_count = OTHER_LEN - other_at;
        struct rig_span mine = { 1, ids + at, count }, spans[2] = { mine, mine };
        if (other_count > 0)
            spans[other_first ? 0 : 1] = (struct rig_span){ 2, other + other_at, other_count };
        const struct tensor *logits = rig_step(r, spans, other_count > 0 ? 2 : 1);
        expect_rows(logits, other_first ? other_count : 0, count, expected + (int64_t)at * vocab);
        other_at += other_count;
    }
}

static void check_same_bits(const char *dir, const char *dtype, const char *isa)
{
    struct rig r;
    int32_t ids[SAME_LEN], other[OTHER_LEN];
    rig_open(&r, dir, "auto", dtype, isa);
    int32_t vocab = r.model->desc.vocab_size;
    for (int32_t i = 0; i < SAME_LEN; i++)
        ids[i] = (i * 37 + 1) % vocab;
    for (int32_t i = 0; i < OTHER_LEN; i++)
        other[i] = (i * 91 + 5) % vocab;
    const struct tensor *whole = rig_step(&r, &(struct rig_span){ 0, ids, SAME_LEN }, 1);
    float *expected = malloc((size_t)SAME_LEN * (size_t)vocab * sizeof *expected);
    for (int32_t i = 0; i < SAME_LEN; i++)
        memcpy(expected + (int64_t)i * vocab, logits_row(whole, i), (size_t)vocab * sizeof(float));
    static const int32_t chunks[] = { SAME_LEN, 1, 7, 16, 17, 40 };
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        check_chunks(&r, ids, expected, chunks[i], NULL, false);
        check_chunks(&r, ids, expected, chunks[i], other, false);
        check_chunks(&r, ids, expected, chunks[i], other, true);
    }
    free(expected);
    rig_close(&r);
}

static void test_same_bits(void **state)
{
    static const char *const isas[] = { "scalar", "auto" }, *const dtypes[] = { "float32",
                                                                                "bfloat16",
                                                                                "float16" };
    char dir[2][64];
    (void)state;
    if (!make_tiny(dir[0], "") || !make_tiny(dir[1], "--preset head_dim")) {
        print_message("skip: there is no python3\n");
        skip();
    }
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < 2; i++)
            for (int t = 0; t < 3; t++)
                check_same_bits(dir[d], dtypes[t], isas[i]);
    remove_dir(dir[0]);
    remove_dir(dir[1]);
}

/* --- the arena and the ops ---------------------------------------------------------------------
 */

static const struct decoder_desc small = { .architecture = "LlamaForCausalLM",
                                           .hidden_size = 64,
                                           .intermediate_size = 128,
                                           .num_hidden_layers = 2,
                                           .vocab_size = 512,
                                           .num_attention_heads = 4,
                                           .num_key_value_heads = 2,
                                           .head_dim = 16,
                                           .rope = { .rotary_dim = 16 } };

/* Lasting: residual, hidden, cos and sin. Beside them the largest of attention (q, k, v and its
 * output), MLP (gate and up, and their product) and logits (chosen rows and their logits). */
static void test_activation_bytes(void **state)
{
    (void)state;
    struct decoder_limits few = { .max_num_tokens = 100, .max_logits_rows = 1 };
    assert_int_equal(decoder_activation_bytes(&small, &few),
                     4 * 100 * (64 + 64 + 16) + 4 * 100 * (256 + 128));
    struct decoder_limits many = { .max_num_tokens = 100, .max_logits_rows = 100 };
    assert_int_equal(decoder_activation_bytes(&small, &many),
                     4 * 100 * (64 + 64 + 16) + 4 * 100 * (64 + 512));
}

static void test_workspace(void **state)
{
    (void)state;
    struct decoder_limits l = { .max_num_tokens = 100, .max_logits_rows = 7 };
    struct workspace_desc w = { .max_num_seqs = 3 };
    decoder_workspace(&small, &l, &w);
    assert_int_equal(w.max_num_seqs, 3);
    assert_int_equal(w.max_num_tokens, 100);
    assert_int_equal(w.max_logits_rows, 7);
    assert_int_equal(w.max_in_features, 128);
    assert_int_equal(w.max_out_features, 512);
    assert_int_equal(w.num_heads, 4);
    assert_int_equal(w.num_kv_heads, 2);
    assert_int_equal(w.head_dim, 16);
    assert_int_equal(w.vocab_size, 512);
}

static void test_check_ops(void **state)
{
    (void)state;
    struct status st;
    struct backend without = backend_cpu;
    assert_true(decoder_check_ops(&small, &backend_cpu, &st));
    without.name = "toaster";
    without.attention = NULL;
    assert_false(decoder_check_ops(&small, &without, &st));
    assert_int_equal(st.code, STATUS_UNSUPPORTED);
    assert_non_null(strstr(st.message, "attention"));
    assert_non_null(strstr(st.message, "toaster"));
    assert_non_null(strstr(st.message, "LlamaForCausalLM"));
}

/* What only some models need is asked of the backend for those alone. */
static void test_check_some_ops(void **state)
{
    struct decoder_desc plain_mlp = small, capped = small, scaled = small, after = small;
    struct backend without[4] = { backend_cpu, backend_cpu, backend_cpu, backend_cpu };
    struct status st;
    (void)state;
    plain_mlp.traits.plain_mlp = true;
    without[0].act = NULL;
    capped.final_logit_softcap = 30;
    without[1].softcap = NULL;
    scaled.residual_scale = 0.5f;
    without[2].scale = NULL;
    after.traits.norm_placement = NORM_AFTER;
    without[3].add = NULL;
    const struct decoder_desc *const descs[] = { &plain_mlp, &capped, &scaled, &after };
    static const char *const names[] = { "op act,", "op softcap,", "op scale,", "op add," };
    for (int i = 0; i < 4; i++) {
        assert_true(decoder_check_ops(&small, &without[i], &st));
        assert_true(decoder_check_ops(descs[i], &backend_cpu, &st));
        assert_false(decoder_check_ops(descs[i], &without[i], &st));
        assert_non_null(strstr(st.message, names[i]));
    }
    without[0].act_and_mul = NULL; /* a plain MLP multiplies nothing */
    without[0].act = backend_cpu.act;
    assert_true(decoder_check_ops(&plain_mlp, &without[0], &st));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories_float32),   cmocka_unit_test(test_stories_bfloat16),
        cmocka_unit_test(test_tiny_transformers), cmocka_unit_test(test_tiny_rope_spellings),
        cmocka_unit_test(test_same_bits),         cmocka_unit_test(test_activation_bytes),
        cmocka_unit_test(test_workspace),         cmocka_unit_test(test_check_ops),
        cmocka_unit_test(test_check_some_ops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
