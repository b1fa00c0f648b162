/* test_charsmap.c - a hand-made double array, and broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/charsmap.h"

#include <stdlib.h>
#include <string.h>

enum { NUM_UNITS = 256 };

/* Keys "a" -> "x" and "ab" -> "yz". Children of a node stand at its offset ^ byte. */
static size_t build(char *blob)
{
    uint32_t units[NUM_UNITS] = { 0 };
    units[0] = 1u << 10;                       /* root: offset 1 */
    units[1 ^ 'a'] = 'a' | 1u << 8 | 8u << 10; /* offset 8 ^ its own place, has a leaf */
    size_t a = (1 ^ 'a') ^ 8;
    units[a] = 1u << 31 | 0; /* value 0 */
    units[a ^ 'b'] = 'b' | 1u << 8 | 4u << 10;
    size_t ab = (a ^ 'b') ^ 4;
    units[ab] = 1u << 31 | 2; /* value 2 */
    uint32_t bytes = sizeof units;
    memcpy(blob, &bytes, 4);
    memcpy(blob + 4, units, sizeof units);
    memcpy(blob + 4 + sizeof units, "x\0yz", 5);
    return 4 + sizeof units + 5;
}

static void test_walk(void **state)
{
    (void)state;
    char blob[2048];
    struct charsmap m;
    struct status st = { 0 };
    const char *replacement;
    size_t len = build(blob);
    if (!charsmap_load(&m, blob, len, &st))
        fail_msg("%s", st.message);
    assert_int_equal(charsmap_longest(&m, "abc", 3, &replacement), 2);
    assert_string_equal(replacement, "yz");
    assert_int_equal(charsmap_shortest(&m, "abc", 3, &replacement), 1);
    assert_string_equal(replacement, "x");
    assert_int_equal(charsmap_longest(&m, "b", 1, &replacement), 0);
    assert_int_equal(charsmap_longest(&m, "\0a", 2, &replacement), 0);
    assert_int_equal(charsmap_longest(&m, "", 0, &replacement), 0);
    charsmap_free(&m);
}

/* Whatever a blob holds: it is refused, or every walk over it stays inside (the sanitizer sees). */
static void test_hostile(void **state)
{
    (void)state;
    char good[2048], blob[2048];
    size_t len = build(good);
    srand(9);
    for (int round = 0; round < 3000; round++) {
        memcpy(blob, good, len);
        for (int i = 1 + rand() % 40; i > 0; i--)
            blob[(size_t)rand() % len] = (char)rand();
        size_t cut = rand() % 4 ? len : (size_t)rand() % len;
        char *exact = malloc(cut + 1);
        memcpy(exact, blob, cut);
        struct charsmap m;
        struct status st = { 0 };
        if (charsmap_load(&m, exact, cut, &st)) {
            for (int i = 0; i < 200; i++) {
                char text[6];
                const char *replacement = "";
                for (size_t k = 0; k < sizeof text; k++)
                    text[k] = (char)(rand() % 3 ? "ab"[rand() % 2] : rand());
                charsmap_longest(&m, text, sizeof text, &replacement);
                assert_true(strlen(replacement) < cut);
            }
            charsmap_free(&m);
        } else {
            assert_int_equal(st.code, STATUS_INVALID);
        }
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
