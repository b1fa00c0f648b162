/* test_regex.c - patterns written for Oniguruma match what Oniguruma matches. Expected pieces were
 * taken from the tokenizers library (tests/golden/check_components.py compares many more). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/regex.h"

#include <stdlib.h>
#include <string.h>

static struct regex *compile(const char *pattern)
{
    struct regex *r;
    struct status st = { 0 };
    if (!regex_compile(pattern, strlen(pattern), &r, &st))
        fail_msg("%s: %s", pattern, st.message);
    return r;
}

/* Matches written as "start-end start-end". */
static void expect(const char *pattern, const char *text, const char *matches)
{
    struct regex *r = compile(pattern);
    struct regex_scan scan = { 0 };
    struct status st = { 0 };
    struct buf got;
    size_t start, end;
    buf_init(&got, 0);
    regex_scan_start(&scan, r, text, strlen(text));
    while (regex_scan_next(&scan, &start, &end, &st) > 0)
        buf_printf(&got, "%s%zu-%zu", got.len ? " " : "", start, end);
    if (strcmp(buf_str(&got), matches) != 0)
        fail_msg("%s on \"%s\": %s, expected %s", pattern, text, buf_str(&got), matches);
    buf_free(&got);
    regex_scan_free(&scan);
    regex_free(r);
}

static void test_oniguruma_meanings(void **state)
{
    (void)state;
    expect("[^(\\s|[.,!?])]+", "a(b.c d", "0-1 2-3 4-5 6-7"); /* classes nest */
    expect("[a-z&&[^aeiou]]+", "hello", "0-1 2-4");
    expect("[\\S&&\\D]", "a1 b", "0-1 3-4");
    expect("[^a[^b]]", "abc", "1-2");
    expect("\\h+", "beef xyz 12", "0-4 9-11");
    expect("\\s",
           "a\xE1\xA0\x8E"
           "b\xC2\x85",
           "5-7"); /* U+180E is no white space */
    expect("\\w", "\xC2\xBD\xC2\xD7", "0-2");
    expect("[\\w]", "\xC2\xBD", "");
    expect("a{,2}", "aaa", "0-2 2-3");
    expect("x{1,2}+", "xxxxx", "0-5");
    expect("(?m).", "\n", "0-1");
    expect(".", "\n", "");
    expect("\\s+$", "a  \nb  ", "1-3 5-7");
    expect("^b", "a\nb", "2-3");
    expect("a(?i)b|c", "aB aC ac", "0-2 3-5 6-8");
    expect("(?i:'s|'ll)", "x's y'LL", "1-3 5-8");
    expect("[]a]+", "a]b", "0-2");
    expect("\\p{^Lu}", "aB", "0-1");
    expect("[[:punct:]]", "a$", "1-2");
    expect("a{b", "a{b", "0-3");
    expect("(?<name>a)b", "ab", "0-2");
    expect("\\bthe\\b", "the then the", "0-3 9-12");
}

static void test_empty_matches(void **state)
{
    (void)state;
    expect("x*", "axb", "0-0 1-2 3-3");
    expect("", "\xC3\xA9z", "0-0 2-2 3-3");
}

/* Characters newer than PCRE2's tables are what Unicode says they are. */
static void test_new_characters(void **state)
{
    (void)state;
    expect("\\p{L}+", "a\xF0\xAE\xAF\xB0z", "0-6"); /* U+2EBF0 */
    expect("\\p{Lu}", "\xE1\xB2\x89", "0-3");       /* U+1C89 */
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "(",  ")",           "[a",    "a(?x)b", "\\y",         "\\p{Nonsense}", "(?~a)", "\\k<a>",
        "\\", "[[:graph:]]", "[b-a]", "\xFF",   "\\x{110000}", "(?<a",          "[a&&]", "a{70000}"
    };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct regex *r;
        struct status st = { 0 };
        if (regex_compile(patterns[i], strlen(patterns[i]), &r, &st))
            fail_msg("%s was not refused", patterns[i]);
        assert_int_not_equal(st.code, STATUS_OK);
        assert_true(strlen(st.message) > 10);
    }
}

/* A long run needs many steps, which must not end in a wrong answer. */
static void test_long_subject(void **state)
{
    (void)state;
    size_t len = 8 << 20, start, end;
    char *text = malloc(len + 1);
    struct status st = { 0 };
    struct regex_scan scan = { 0 };
    memset(text, ' ', len);
    text[len] = 'x';
    struct regex *r = compile("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
    regex_scan_start(&scan, r, text, len + 1);
    assert_int_equal(regex_scan_next(&scan, &start, &end, &st), 1);
    assert_int_equal(end, len - 1);
    regex_scan_free(&scan);
    regex_free(r);
    r = compile("(?: |y)*z"); /* keeps a frame per byte */
    regex_scan_start(&scan, r, text, len + 1);
    int found = regex_scan_next(&scan, &start, &end, &st);
    assert_true(found <= 0);
    if (found < 0)
        assert_non_null(strstr(st.message, "cannot be split"));
    regex_scan_free(&scan);
    regex_free(r);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oniguruma_meanings), cmocka_unit_test(test_empty_matches),
        cmocka_unit_test(test_new_characters),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_long_subject),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
