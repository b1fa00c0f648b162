/* Tests of auth.h. */
#include "server/auth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void test_keys(void **state)
{
    struct auth auth;
    struct arena arena;
    struct status st;
    (void)state;
    arena_init(&arena);
    assert_true(auth_init(&auth, NULL, &arena, &st));
    assert_true(auth_check(&auth, NULL, &st));
    assert_true(auth_init(&auth, "secret,,other", &arena, &st));
    assert_int_equal(auth.num_keys, 2);
    assert_true(auth_check(&auth, "Bearer secret", &st));
    assert_true(auth_check(&auth, "bearer   other", &st));
    static const char *const wrong[] = { NULL,
                                         "",
                                         "secret",
                                         "Bearer",
                                         "Bearer ",
                                         "Bearer secre",
                                         "Bearer secretsecret",
                                         "Bearer secret ",
                                         "Basic secret",
                                         "Bearer secret,other" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(auth_check(&auth, wrong[i], &st));
        assert_int_equal(st.code, STATUS_UNAUTHORIZED);
    }
    arena_free(&arena);
}

static void test_too_many_keys(void **state)
{
    struct auth auth;
    struct arena arena;
    struct status st;
    char keys[2 * (LIMIT_LIST_ENTRIES + 1) + 1];
    (void)state;
    for (size_t i = 0; i + 1 < sizeof keys; i += 2)
        memcpy(keys + i, "k,", 2);
    keys[sizeof keys - 1] = '\0';
    arena_init(&arena);
    assert_false(auth_init(&auth, keys, &arena, &st));
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_too_many_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
