/* test_hub_digest.c - both hashes against values of coreutils and git. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/hub_digest.h"

#include <string.h>

static void expect_digest(const char *expected, const char *text, bool matches, const char *found)
{
    struct status st;
    char got[65];
    struct hub_digest *d = hub_digest_new(expected, strlen(text), &st);
    assert_non_null(d);
    hub_digest_update(d, text, strlen(text) / 2);
    hub_digest_update(d, text + strlen(text) / 2, strlen(text) - strlen(text) / 2);
    assert_int_equal(hub_digest_matches(d, got), matches);
    assert_string_equal(got, found);
    hub_digest_free(d);
}

/* printf abc | sha256sum;  printf abc | git hash-object --stdin */
static void test_digests(void **state)
{
    static const char sha256[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    static const char blob_id[] = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";
    static const char empty[] = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
    struct status st;
    (void)state;
    expect_digest(sha256, "abc", true, sha256);
    expect_digest(blob_id, "abc", true, blob_id);
    expect_digest(empty, "", true, empty);
    expect_digest(empty, "abc", false, blob_id);
    assert_null(hub_digest_new("abc", 3, &st));
    assert_int_equal(st.code, STATUS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_digests) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
