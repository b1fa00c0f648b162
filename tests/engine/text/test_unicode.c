/* test_unicode.c - classes at their borders, and normalisation forms, hostile lengths included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>

static void check(enum unicode_form form, const char *text, const char *expected)
{
    struct buf out;
    buf_init(&out, 0);
    unicode_normalize(form, text, strlen(text), &out);
    assert_string_equal(buf_str(&out), expected);
    buf_free(&out);
}

static void test_forms(void **state)
{
    (void)state;
    check(UNICODE_NFC, "plain", "plain");
    check(UNICODE_NFC, "e\xCC\x81", "\xC3\xA9");
    check(UNICODE_NFD, "\xC3\xA9", "e\xCC\x81");
    check(UNICODE_NFC, "\xE2\x84\xAB", "\xC3\x85");                  /* Angstrom sign */
    check(UNICODE_NFKC, "\xEF\xAC\x81", "fi");                       /* ligature */
    check(UNICODE_NFKD, "\xE2\x91\xA0", "1");                        /* circled one */
    check(UNICODE_NFC, "a\xCC\x81\xCC\xA3", "\xE1\xBA\xA1\xCC\x81"); /* marks reorder */
    check(UNICODE_NFC, "a\xCC\x85\xCC\x81", "a\xCC\x85\xCC\x81");    /* blocked by its like */
    check(UNICODE_NFC, "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"); /* Hangul */
    check(UNICODE_NFD, "\xEA\xB0\x81", "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8");
    /* U+11938 is newer than the library's tables: neither taken apart nor put together. */
    check(UNICODE_NFD, "\xF0\x91\xA4\xB8", "\xF0\x91\xA4\xB8");
    check(UNICODE_NFC, "\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0", "\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0");
}

/* A million marks in the worst order: sorting them must not be quadratic. */
static void test_many_marks(void **state)
{
    (void)state;
    size_t num = 1000000;
    char *text = malloc(1 + 4 * num);
    text[0] = 'x';
    for (size_t i = 0; i < num; i++)
        memcpy(text + 1 + 4 * i, "\xCC\x81\xCC\xA3", 4);
    struct buf out;
    buf_init(&out, 0);
    unicode_normalize(UNICODE_NFD, text, 1 + 4 * num, &out);
    assert_int_equal(out.len, 1 + 4 * num);
    assert_memory_equal(out.data + 1, "\xCC\xA3\xCC\xA3", 4);
    assert_memory_equal(out.data + out.len - 4, "\xCC\x81\xCC\x81", 4);
    buf_free(&out);
    free(text);
}

static void test_classes(void **state)
{
    (void)state;
    assert_true(unicode_is_white_space(0x3000) && !unicode_is_white_space(0x200B));
    assert_true(unicode_is_python_space(0x1C) && !unicode_is_white_space(0x1C));
    assert_true(unicode_is_punctuation('$') && unicode_is_punctuation(0x3002));
    assert_false(unicode_is_punctuation(0x20AC));
    assert_true(unicode_is_numeric(0xBD) && unicode_is_numeric('7') && !unicode_is_numeric('x'));
    assert_true(unicode_is_word('_') && unicode_is_word(0x4E2D) && !unicode_is_word('-'));
    assert_true(unicode_is_combining_mark(0x0903) && !unicode_is_nonspacing_mark(0x0903));
    assert_true(unicode_is_nonspacing_mark(0x0301));
    assert_true(unicode_is_bert_control(0x200B) && !unicode_is_bert_control('a'));
    uint32_t low[2];
    assert_int_equal(unicode_lower(0x130, low), 2);
    assert_int_equal(low[1], 0x307);
    assert_int_equal(unicode_lower(0x1E9E, low), 1);
    assert_int_equal(low[0], 0xDF);
    assert_int_equal(unicode_stand_in('a'), 0);
    assert_int_not_equal(unicode_stand_in(0x2EBF0), 0);
}

static void test_span_and_trim(void **state)
{
    (void)state;
    const char *text = " \xE3\x80\x80x y\xC2\xA0";
    assert_int_equal(unicode_span(text, strlen(text), unicode_is_white_space), 4);
    assert_int_equal(unicode_trim(text, strlen(text), unicode_is_white_space), 7);
    assert_int_equal(unicode_trim("  ", 2, unicode_is_white_space), 0);
    assert_int_equal(unicode_span("", 0, unicode_is_white_space), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_many_marks),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_span_and_trim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
