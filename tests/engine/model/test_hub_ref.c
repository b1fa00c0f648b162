/* test_hub_ref.c - names of models, revisions and files: what is taken, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/hub_ref.h"

#include <string.h>

static void expect(const char *model, const char *repo, const char *revision, const char *file)
{
    struct hub_ref ref;
    struct status st;
    if (!hub_ref_parse(model, &ref, &st))
        fail_msg("%s: %s", model, st.message);
    assert_string_equal(ref.repo, repo);
    assert_string_equal(ref.revision, revision);
    assert_string_equal(ref.file, file);
}

static void test_parts_of_a_name(void **state)
{
    (void)state;
    expect("org/name", "org/name", "", "");
    expect("Org-1/na.me_2@main", "Org-1/na.me_2", "main", "");
    expect("org/name@refs/pr/1", "org/name", "refs/pr/1", "");
    expect("org/name:Q4_K_M", "org/name", "", "Q4_K_M");
    expect("org/name@v1.0:dir/x-Q8_0.gguf", "org/name", "v1.0", "dir/x-Q8_0.gguf");
    expect("org/name:a@b.gguf", "org/name", "", "a@b.gguf");
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "org/name@",     "org/name:",      "org/name@main:", "org/-name",     "org/name.",
        "org/na--me",    "org/na..me",     "org/name.git",   "org/na me",     "org/",
        "org/n\xc3\xa9", "org/name@../x",  "org/name@/x",    "org/name@a b",  "org/name@-x",
        "org/name@a..b", "org/name:../x",  "org/name:/x",    "org/name:a//b", "org/name:a\nb",
        "org/name:a\\b", "org/name@a\x01", "org/name@x/",
    };
    char longest[300];
    struct hub_ref ref;
    struct status st;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (hub_ref_parse(bad[i], &ref, &st))
            fail_msg("%s was taken", bad[i]);
        assert_int_equal(st.code, STATUS_INVALID);
    }
    memset(longest, 'a', sizeof longest);
    memcpy(longest, "org/", 4);
    longest[4 + LIMIT_HUB_REPO_NAME_BYTES] = '\0';
    assert_true(hub_ref_parse(longest, &ref, &st));
    longest[4 + LIMIT_HUB_REPO_NAME_BYTES] = 'a';
    longest[5 + LIMIT_HUB_REPO_NAME_BYTES] = '\0';
    assert_false(hub_ref_parse(longest, &ref, &st));
}

static void test_local(void **state)
{
    (void)state;
    assert_true(hub_ref_is_local("/nowhere/at-all"));
    assert_true(hub_ref_is_local("./org/name"));
    assert_true(hub_ref_is_local("~/name"));
    assert_true(hub_ref_is_local("name"));
    assert_true(hub_ref_is_local("a/b/c"));
    assert_true(hub_ref_is_local("models/x.gguf"));
    assert_true(hub_ref_is_local("engine/model")); /* the tests run at the root of the source */
    assert_false(hub_ref_is_local("org/name-of-nothing"));
    assert_false(hub_ref_is_local("org/name-of-nothing@refs/pr/1"));
    assert_false(hub_ref_is_local("org/name-of-nothing:dir/x.gguf"));
}

static void test_paths(void **state)
{
    static const char *const good[] = { "config.json", "a/b/c.gguf", ".gitattributes",
                                        "a..b",        "...",        "a b" };
    static const char *const bad[] = { "",   ".",    "..",    "a/..", "../a", "a/../b", "/a",
                                       "a/", "a//b", "a/./b", "a\\b", "a\tb", "a\x7f" };
    char name[LIMIT_HUB_NAME_BYTES + 2];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(hub_path_is_safe(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(hub_path_is_safe(bad[i]));
    memset(name, 'a', sizeof name);
    name[LIMIT_HUB_NAME_BYTES + 1] = '\0';
    assert_false(hub_path_is_safe(name));
    name[LIMIT_HUB_NAME_BYTES] = '\0';
    assert_true(hub_path_is_safe(name));
}

static void test_hashes(void **state)
{
    (void)state;
    assert_true(hub_is_commit("0123456789abcdef0123456789abcdef01234567"));
    assert_false(hub_is_commit("0123456789ABCDEF0123456789abcdef01234567"));
    assert_false(hub_is_commit("0123456789abcdef0123456789abcdef0123456"));
    assert_false(hub_is_commit("main"));
    assert_true(hub_is_sha256("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    assert_false(hub_is_sha256("0123456789abcdef0123456789abcdef01234567"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_of_a_name), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_local),           cmocka_unit_test(test_paths),
        cmocka_unit_test(test_hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
