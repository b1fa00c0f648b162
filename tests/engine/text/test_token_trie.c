/* test_token_trie.c - leftmost longest matches against a search that tries everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/token_trie.h"

#include <stdlib.h>
#include <string.h>

static void test_random(void **state)
{
    (void)state;
    srand(4);
    for (int round = 0; round < 400; round++) {
        struct token_trie t = { 0 };
        char words[8][6] = { { 0 } }, text[60];
        int num_words = rand() % 8;
        for (int w = 0; w < num_words; w++) {
            for (int i = rand() % 5; i >= 0; i--)
                words[w][i] = (char)('a' + rand() % 2);
            token_trie_add(&t, words[w], strlen(words[w]), w);
        }
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (char)('a' + rand() % 3);
        for (size_t from = 0; from <= sizeof text;) {
            size_t best_start = sizeof text, best_len = 0;
            for (size_t i = from; i < sizeof text && best_len == 0; i++) {
                for (int w = 0; w < num_words; w++) {
                    size_t n = strlen(words[w]);
                    if (n > best_len && n <= sizeof text - i &&
                        memcmp(text + i, words[w], n) == 0) {
                        best_start = i;
                        best_len = n;
                    }
                }
            }
            struct token_match m;
            bool found = token_trie_next(&t, text, sizeof text, from, &m);
            assert_int_equal(found, best_len > 0);
            if (!found)
                break;
            assert_int_equal(m.start, best_start);
            assert_int_equal(m.end, best_start + best_len);
            assert_memory_equal(words[m.value], text + m.start, best_len);
            from = m.end;
        }
        token_trie_free(&t);
    }
}

static void test_empty_and_equal(void **state)
{
    (void)state;
    struct token_trie t = { 0 };
    struct token_match m;
    int32_t value = -1;
    assert_false(token_trie_next(&t, "ab", 2, 0, &m));
    token_trie_add(&t, "", 0, 0);
    assert_false(token_trie_next(&t, "ab", 2, 0, &m));
    token_trie_add(&t, "ab", 2, 5);
    token_trie_add(&t, "ab", 2, 6);
    assert_int_equal(token_trie_longest(&t, "abc", 3, &value), 2);
    assert_int_equal(value, 5);
    assert_int_equal(token_trie_longest(&t, "a", 1, &value), 0);
    token_trie_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_empty_and_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
