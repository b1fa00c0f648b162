/* test_sampling_params.c - the defaults are those of the rows, and lie within their ranges. */
#include "engine/sampling/sampling_params.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void test_defaults(void **state)
{
    (void)state;
    struct sampling_params p;
    memset(&p, 0x55, sizeof p);
    sampling_params_defaults(&p);
#define SAMPLING_FLOAT(field, def, min, max, min_open)                                             \
    assert_true(p.field == (float)(def));                                                          \
    assert_true((min_open) ? p.field > (float)(min) : p.field >= (float)(min));                    \
    assert_true(p.field <= (float)(max));
#define SAMPLING_INT(field, def, min, max)                                                         \
    assert_true(p.field == (def) && p.field >= (min) && p.field <= (max));
#define SAMPLING_BOOL(field, def) assert_true(p.field == (def));
#include "engine/sampling/sampling_params.def"
    assert_int_equal(p.num_logprobs, -1);
    assert_int_equal(p.num_prompt_logprobs, -1);
    assert_int_equal(p.num_stop_token_ids, 0);
    assert_int_equal(p.num_eos_token_ids, 0);
    assert_int_equal(p.num_logit_bias, 0);
    assert_null(p.allowed_mask);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_defaults) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
