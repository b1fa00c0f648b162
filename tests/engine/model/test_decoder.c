/* test_decoder.c - the forward pass against values computed elsewhere, and against itself: a prompt
 * in one piece, in chunks, and in company must give the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model_helper.h"

#include <math.h>

#define SHARED "../shared/models/"

/* --- stories260K: float64 references --------------------------------------------------------- */

static double max_difference(const float *logits, const json_t *expected, int32_t n)
{
    double worst = 0;
    assert_int_equal((int32_t)json_array_size(expected), n);
    for (int32_t i = 0; i < n; i++)
        worst = fmax(worst, fabs(logits[i] -
                                 json_number_value(json_array_get(expected, (size_t)i))));
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
    if (!file_exists(SHARED "goldens.json"))
        skip();
    check_stories(SHARED "stories260K", SHARED "goldens.json", "float32", "scalar", 1e-4, true);
    check_stories(SHARED "stories260K", SHARED "goldens.json", "float32", "auto", 1e-4, true);
    check_stories(SHARED "stories260K-sharded", SHARED "goldens.json", "auto", "auto", 1e-4, true);
    check_stories(SHARED "stories260K-bf16", SHARED "goldens-bf16.json", "float32", "auto", 1e-4,
                  true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories_float32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
