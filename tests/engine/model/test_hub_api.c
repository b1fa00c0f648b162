/* test_hub_api.c - URLs, ranges that are not what was asked for, and what refusals are turned into.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/hub_api.h"

#include <stdlib.h>
#include <string.h>

static struct hub_http_options http = { .endpoint = "https://hub.example", .timeout_s = 1 };
static const struct hub_site site = { .http = &http, .repo = "org/name" };

static void test_url(void **state)
{
    (void)state;
    char *url = hub_api_file_url(&site, "refs/pr/1", "a b/c#?%.gguf");
    assert_string_equal(url, "https://hub.example/org/name/resolve/refs%2Fpr%2F1/"
                             "a%20b/c%23%3F%25.gguf");
    free(url);
}

static void expect_range(struct hub_http_head head, bool ok, bool ignored)
{
    struct status st;
    bool was_ignored;
    assert_int_equal(hub_api_check_range(&head, 100, 200, 1000, &was_ignored, &st), ok);
    assert_int_equal(was_ignored, ignored);
}

static struct hub_http_head partial(uint64_t begin, uint64_t end, uint64_t size)
{
    return (struct hub_http_head){
        .code = 206, .has_range = true, .range_begin = begin, .range_end = end, .range_size = size
    };
}

static void test_ranges(void **state)
{
    struct hub_http_head head = partial(100, 200, 1000);
    (void)state;
    expect_range(head, true, false);
    expect_range(partial(100, 200, 0), true, false);
    expect_range(partial(101, 200, 1000), false, false);
    expect_range(partial(100, 199, 1000), false, false);
    expect_range(partial(100, 200, 1001), false, false);
    expect_range((struct hub_http_head){ .code = 206 }, false, false);
    expect_range((struct hub_http_head){ .code = 200 }, false, true);
    head.has_length = true;
    head.length = 100;
    expect_range(head, true, false);
    head.length = 99;
    expect_range(head, false, false);
}

static void test_whole_file(void **state)
{
    struct hub_http_head head = { .code = 200, .has_length = true, .length = 1000 };
    struct status st;
    bool ignored;
    (void)state;
    assert_true(hub_api_check_range(&head, 0, 1000, 1000, &ignored, &st));
    head.length = 999;
    assert_false(hub_api_check_range(&head, 0, 1000, 1000, &ignored, &st));
    assert_false(ignored);
    assert_non_null(strstr(st.message, "announces 999 bytes"));
}

static void expect_message(int32_t code, const char *error_code, const char *token,
                           const char *path, const char *text, enum status_code status)
{
    struct hub_http_head head = { .code = code };
    struct status st;
    strcpy(head.error_code, error_code);
    http.token = token;
    assert_false(hub_api_explain(&site, "main", path, &head, &st));
    if (!strstr(st.message, text))
        fail_msg("'%s' is not in: %s", text, st.message);
    assert_int_equal(st.code, status);
    http.token = NULL;
}

static void test_refusals(void **state)
{
    (void)state;
    expect_message(401, "GatedRepo", NULL, NULL, "conditions at https://hub.example/org/name",
                   STATUS_UNAUTHORIZED);
    expect_message(401, "GatedRepo", NULL, NULL, "HF_TOKEN", STATUS_UNAUTHORIZED);
    expect_message(403, "GatedRepo", "t", NULL, "account that the token", STATUS_FORBIDDEN);
    expect_message(403, "", "t", NULL, "right to read", STATUS_FORBIDDEN);
    expect_message(401, "RepoNotFound", NULL, NULL, "without a token", STATUS_UNAUTHORIZED);
    expect_message(401, "", "t", NULL, "token valid", STATUS_UNAUTHORIZED);
    expect_message(404, "RepoNotFound", NULL, NULL, "no model org/name", STATUS_NOT_FOUND);
    expect_message(404, "RevisionNotFound", NULL, NULL, "'main'", STATUS_NOT_FOUND);
    expect_message(404, "EntryNotFound", NULL, "x.json", "'x.json'", STATUS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_url),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_whole_file),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
