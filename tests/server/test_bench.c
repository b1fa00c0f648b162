/* test_bench.c - the bench on a small shape: every measurement asked for is there, adds up, and
 * what cannot be measured is refused. */
#include "server/bench.h"
#include "tests/server/support_tiny_shape.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SHAPE "bench", tiny_shape_path(), "--load-format", "dummy", "--num-threads", "1"

/* The parsed output of a run that must succeed. */
static json_t *bench_json(const char *const *words)
{
    char *text;
    assert_int_equal(tiny_shape_run(bench_run, words, &text), 0);
    json_error_t error;
    json_t *root = json_loads(text, 0, &error);
    if (!root)
        fail_msg("%s in: %s", error.text, text);
    free(text);
    return root;
}

static void test_all_that_was_asked_for(void **state)
{
    (void)state;
    const char *words[] = { SHAPE,   "--bench-input-len",
                            "5,40",  "--bench-batch-size",
                            "1,3,7", "--bench-output-len",
                            "6",     "--bench-repeat",
                            "2",     "--json",
                            NULL };
    json_t *root = bench_json(words), *prefill = json_object_get(root, "prefill"),
           *decode = json_object_get(root, "decode");
    /* Two layers of q 32x32, k and v 16x32, o 32x32, gate, up and down 64x32, two norms; the last
     * norm; the embedding and the head, of which a decode step reads the head only. */
    int64_t layers = 2 * (2 * 1024 + 2 * 512 + 3 * 2048 + 2 * 32) + 32;
    assert_int_equal(json_integer_value(json_object_get(root, "num_parameters")),
                     layers + 2 * 96 * 32);
    double bytes = (double)json_integer_value(json_object_get(root, "decode_weight_bytes"));
    assert_int_equal((int64_t)bytes, 4 * (layers + 96 * 32));
    assert_string_equal(json_string_value(json_object_get(root, "dtype")), "float32");
    assert_int_equal(json_array_size(prefill), 2);
    assert_int_equal(json_array_size(decode), 3);
    const int lens[] = { 5, 40 }, batches[] = { 1, 3, 7 };
    for (size_t i = 0; i < 2; i++) {
        json_t *row = json_array_get(prefill, i);
        double seconds = json_real_value(json_object_get(row, "seconds"));
        double speed = json_real_value(json_object_get(row, "tokens_per_second"));
        assert_int_equal(json_integer_value(json_object_get(row, "input_len")), lens[i]);
        assert_true(seconds > 0 && fabs(speed * seconds - lens[i]) < 1e-6);
    }
    for (size_t i = 0; i < 3; i++) {
        json_t *row = json_array_get(decode, i);
        double step = json_real_value(json_object_get(row, "seconds_per_step"));
        double speed = json_real_value(json_object_get(row, "tokens_per_second"));
        double gb = json_real_value(json_object_get(row, "weight_gb_per_second"));
        assert_int_equal(json_integer_value(json_object_get(row, "batch_size")), batches[i]);
        assert_true(step > 0 && fabs(speed * step - batches[i]) < 1e-6);
        assert_true(fabs(gb * 1e9 * step - bytes) < 1);
    }
    json_decref(root);
}

/* A token budget so small that the sequences start one after the other, over many steps. */
static void test_staggered_start(void **state)
{
    (void)state;
    const char *words[] = { SHAPE, "--bench-batch-size", "4", "--bench-context-len",
                            "20",  "--bench-output-len", "3", "--max-num-batched-tokens",
                            "4",   "--bench-input-len",  "9", "--json",
                            NULL };
    json_decref(bench_json(words));
}

static void test_table(void **state)
{
    (void)state;
    const char *words[] = { SHAPE, "--bench-batch-size", "2", "--bench-repeat", "1", NULL };
    const char *expected[] = { "LlamaForCausalLM",
                               "parameters, float32",
                               "     512 tokens",
                               "batch        2",
                               "tok/s",
                               "GB/s" };
    const char *too_long[] = { SHAPE, "--bench-input-len", "16", "--bench-batch-size", "2", NULL };
    char *text;
    /* 512 tokens are more than this shape's 256. */
    assert_int_equal(tiny_shape_run(bench_run, words, &text), 1);
    assert_string_equal(text, "");
    free(text);
    expected[2] = "      16 tokens";
    assert_int_equal(tiny_shape_run(bench_run, too_long, &text), 0);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        if (!strstr(text, expected[i]))
            fail_msg("'%s' is not in: %s", expected[i], text);
    free(text);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        { "--bench-input-len", "0" },     { "--bench-input-len", "5x" },
        { "--bench-input-len", "-1" },    { "--bench-input-len", "99999999999999999999" },
        { "--bench-batch-size", "1,,2" }, { "--bench-batch-size", "200" },
        { "--bench-batch-size", "5000" }, { "--num-gpu-blocks-override", "1" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *words[] = { SHAPE, "--bench-repeat", "1", bad[i][0], bad[i][1], NULL };
        char *text;
        if (tiny_shape_run(bench_run, words, &text) == 0)
            fail_msg("%s %s was accepted", bad[i][0], bad[i][1]);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_was_asked_for),
        cmocka_unit_test(test_staggered_start),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, tiny_shape_setup, tiny_shape_teardown);
}
