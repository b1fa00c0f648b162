/* test_string_map.c - the map against a plain list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/string_map.h"

#include <stdio.h>
#include <stdlib.h>

static void test_against_list(void **state)
{
    (void)state;
    static char keys[4000][12];
    int32_t values[4000];
    struct string_map m = { 0 };
    srand(1);
    assert_int_equal(string_map_get(&m, "a", 1, -7), -7);
    for (int i = 0; i < 4000; i++) {
        snprintf(keys[i], sizeof keys[i], "%d", rand() % 3000);
        values[i] = rand();
        string_map_put(&m, keys[i], strlen(keys[i]), values[i]);
    }
    for (int i = 0; i < 4000; i++) {
        int32_t latest = -1;
        for (int k = 0; k < 4000; k++) {
            if (strcmp(keys[k], keys[i]) == 0)
                latest = values[k];
        }
        assert_int_equal(string_map_get(&m, keys[i], strlen(keys[i]), -1), latest);
    }
    assert_int_equal(string_map_get(&m, "3001", 4, -1), -1);
    string_map_free(&m);
}

/* Keys are bytes: NUL is one of them, and so is the empty key. */
static void test_odd_keys(void **state)
{
    (void)state;
    struct string_map m = { 0 };
    string_map_put(&m, "a\0b", 3, 1);
    string_map_put(&m, "a", 1, 2);
    string_map_put(&m, "", 0, 3);
    assert_int_equal(string_map_get(&m, "a\0b", 3, -1), 1);
    assert_int_equal(string_map_get(&m, "a", 1, -1), 2);
    assert_int_equal(string_map_get(&m, "", 0, -1), 3);
    assert_int_equal(string_map_get(&m, "a\0", 2, -1), -1);
    string_map_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_list),
        cmocka_unit_test(test_odd_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
