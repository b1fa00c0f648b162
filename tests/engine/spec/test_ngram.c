/* test_ngram.c - the place that is found, against a search that tries all; what is drafted from it;
 * and the bounds. */
#include "engine/spec/ngram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_TOKENS = 200, MAX_DRAFTS = 12, GUARD = -77 };

static int32_t propose(int32_t min, int32_t max, const int32_t *ids, int32_t num_tokens,
                       int32_t max_drafts, int32_t *drafts)
{
    const struct proposer_config config = { MAX_DRAFTS, min, max };
    return proposer_ngram.propose(&config, ids, num_tokens, max_drafts, drafts);
}

static void assert_drafts(int32_t min, int32_t max, const int32_t *ids, int32_t num_tokens,
                          const int32_t *expected, int32_t count)
{
    int32_t drafts[MAX_DRAFTS];
    assert_int_equal(propose(min, max, ids, num_tokens, count ? count : MAX_DRAFTS, drafts), count);
    assert_memory_equal(drafts, expected, (size_t)count * sizeof *drafts);
}
#define TOKENS(...)                                                                                \
    (const int32_t[]){ __VA_ARGS__ }, (int32_t)(sizeof((const int32_t[]){ __VA_ARGS__ }) / 4)

static void test_places(void **state)
{
    (void)state;
    /* The longest that stands there, of equal ones the latest. */
    assert_drafts(1, 3, TOKENS(1, 2, 3, 9, 5, 2, 3, 8, 7, 2, 3), TOKENS(8, 7));
    assert_drafts(1, 3, TOKENS(1, 2, 3, 9, 5, 2, 3, 8, 1, 2, 3), TOKENS(9, 5, 2));
    /* No more than prompt_lookup_max are looked at: then the later place is as good. */
    assert_drafts(1, 2, TOKENS(1, 2, 3, 9, 5, 2, 3, 8, 1, 2, 3), TOKENS(8, 1, 2));
    /* Fewer than prompt_lookup_min are too few, and so is nothing. */
    assert_drafts(3, 3, TOKENS(1, 2, 3, 9, 5, 2, 3), NULL, 0);
    assert_drafts(1, 3, TOKENS(1, 2, 3, 4), NULL, 0);
    assert_drafts(1, 3, TOKENS(4), NULL, 0);
    assert_drafts(2, 2, TOKENS(4, 4), NULL, 0);
    /* From the first token on. */
    assert_drafts(2, 2, TOKENS(1, 2, 7, 1, 2), TOKENS(7, 1, 2));
    /* What reaches the end goes on with itself. */
    assert_drafts(1, 4, TOKENS(6, 6), TOKENS(6, 6, 6, 6));
    assert_drafts(2, 4, TOKENS(9, 1, 2, 3, 1, 2, 3, 1, 2), TOKENS(3, 1, 2, 3, 1, 2, 3));
}

/* All places and all lengths, in the order of preference. */
static int32_t find_slowly(int32_t min, int32_t max, const int32_t *ids, int32_t num_tokens)
{
    for (int32_t n = max; n >= min; n--)
        for (int32_t at = num_tokens - 1; at >= n; at--)
            if (n <= num_tokens &&
                memcmp(ids + at - n, ids + num_tokens - n, (size_t)n * sizeof *ids) == 0)
                return at;
    return 0;
}

static void test_like_the_slow_search(void **state)
{
    (void)state;
    int32_t found = 0;
    for (int32_t round = 0; round < 20000; round++) {
        int32_t ids[MAX_TOKENS + MAX_DRAFTS + 1], expected[MAX_TOKENS + MAX_DRAFTS];
        const int32_t num_tokens = 1 + rand() % (rand() % 3 ? 20 : MAX_TOKENS);
        const int32_t vocab = 1 + rand() % 5, min = 1 + rand() % 4, max = min + rand() % 5;
        const int32_t max_drafts = rand() % (MAX_DRAFTS + 1);
        for (int32_t i = 0; i < num_tokens; i++)
            ids[i] = rand() % vocab;
        memcpy(expected, ids, (size_t)num_tokens * sizeof *ids);
        const int32_t at = find_slowly(min, max, ids, num_tokens);
        const int32_t count = at > 0 ? max_drafts : 0;
        for (int32_t i = 0; i < count; i++)
            expected[num_tokens + i] = expected[at + i];
        ids[num_tokens + count] = GUARD;
        /* The drafts lie right behind the tokens, as the scheduler has them. */
        assert_int_equal(propose(min, max, ids, num_tokens, max_drafts, ids + num_tokens), count);
        assert_memory_equal(ids, expected, (size_t)(num_tokens + count) * sizeof *ids);
        assert_int_equal(ids[num_tokens + count], GUARD);
        found += at > 0;
    }
    assert_in_range(found, 5000, 19000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_like_the_slow_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
