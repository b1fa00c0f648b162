/* test_rejection_sample.c - which drafts count, on cases and against the rule's words. */
#include "tests/kernels/cpu_fixture.h"

#include "kernels/cpu/cpu_ops.h"

enum { MAX_SEQS = 40, MAX_ROWS = MAX_SEQS * 40, GUARD = -77 };

static void test_cases(void **state)
{
    (void)state;
    /* All right; the first wrong; a wrong one before a right one; no draft; no row; a failed row,
     * which is no draft whatever stands there. */
    const int32_t sampled[] = { 5, 6, 7, 1, 2, 3, 4, 4, 4, 9, 8, -1, 3 };
    const int32_t drafts[] = { 5, 6, -1, 2, 2, -1, 4, 5, -1, -1, 8, 3, -1 };
    const int32_t starts[] = { 0, 3, 6, 9, 10, 10, 13 }, expected[] = { 2, 0, 1, 0, 0, 1, GUARD };
    int32_t got[7] = { 9, 9, 9, 9, 9, 9, GUARD };
    const struct rejection_request request = { 6, starts, sampled, drafts };
    cpu_rejection_sample(NULL, got, &request);
    assert_memory_equal(got, expected, sizeof got);
}

static void test_random(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        int32_t sampled[MAX_ROWS], drafts[MAX_ROWS], starts[MAX_SEQS + 1] = { 0 }, got[MAX_SEQS];
        const int32_t num_seqs = random_int(1, MAX_SEQS);
        for (int32_t s = 0; s < num_seqs; s++)
            starts[s + 1] = starts[s] + random_int(0, 39);
        for (int32_t i = 0; i < starts[num_seqs]; i++) {
            sampled[i] = random_int(0, 3);
            drafts[i] = random_int(0, 9) ? sampled[i] : random_int(0, 3);
        }
        const struct rejection_request request = { num_seqs, starts, sampled, drafts };
        cpu_rejection_sample(NULL, got, &request);
        for (int32_t s = 0; s < num_seqs; s++) {
            const int32_t begin = starts[s], num_drafts = starts[s + 1] - begin - 1;
            assert_in_range(got[s], 0, num_drafts > 0 ? num_drafts : 0);
            for (int32_t k = 0; k < got[s]; k++)
                assert_int_equal(sampled[begin + k], drafts[begin + k]);
            if (got[s] < num_drafts)
                assert_int_not_equal(sampled[begin + got[s]], drafts[begin + got[s]]);
        }
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
