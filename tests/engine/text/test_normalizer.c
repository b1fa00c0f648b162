/* test_normalizer.c - each normalizer on a telling text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/normalizer.h"

#include <string.h>

static void check(const char *spec, const char *text, const char *expected)
{
    struct normalizer *n;
    struct status st = { 0 };
    json_t *json = json_loads(spec, JSON_DECODE_ANY, NULL);
    struct buf out;
    buf_init(&out, 0);
    if (!normalizer_load(json, &n, &st))
        fail_msg("%s", st.message);
    assert_true(normalizer_run(n, text, strlen(text), &out, &st));
    assert_string_equal(buf_str(&out), expected);
    buf_free(&out);
    normalizer_free(n);
    json_decref(json);
}

static void test_each(void **state)
{
    (void)state;
    check("null", " a ", " a ");
    check("{\"type\":\"Lowercase\"}",
          "\xC4\xB0"
          "AB",
          "i\xCC\x87"
          "ab");
    check("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}", "\n a ", "a ");
    check("{\"type\":\"Strip\"}", "   ", "");
    check("{\"type\":\"StripAccents\"}", "e\xCC\x81", "e");
    check("{\"type\":\"Replace\",\"pattern\":{\"String\":\"aa\"},\"content\":\"b\"}", "aaa", "ba");
    check("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" +\"},\"content\":\"_\"}", "a  b c",
          "a_b_c");
    check("{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"-\"}", "ab", "-a-b-");
    check("{\"type\":\"Prepend\",\"prepend\":\"_\"}", "a", "_a");
    check("{\"type\":\"Prepend\",\"prepend\":\"_\"}", "", "");
    check("{\"type\":\"Nmt\"}", "a\x01\tb\xE2\x80\x8B", "a b ");
    check("{\"type\":\"ByteLevel\"}", " \xC3\xA9", "\xC4\xA0\xC3\x83\xC2\xA9");
    check("{\"type\":\"BertNormalizer\"}", "\xC3\x89\tA\x01\xE4\xB8\xAD", "e a \xE4\xB8\xAD ");
    check("{\"type\":\"BertNormalizer\",\"lowercase\":false}", "\xC3\x89", "\xC3\x89");
    check("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"},{\"type\":\"StripAccents\"},"
          "{\"type\":\"Lowercase\"},{\"type\":\"Prepend\",\"prepend\":\">\"}]}",
          "\xC3\x89"
          "A",
          ">ea");
    check("{\"type\":\"Sequence\",\"normalizers\":[]}", "a", "a");
}

static void test_broken(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "{\"type\":\"Replace\",\"content\":\"x\"}",
        "{\"type\":\"Prepend\"}",
        "{\"type\":\"Sequence\"}",
        "7",
        "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"?\"}",
        "{\"type\":\"Strip\",\"strip_left\":\"yes\"}"
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct normalizer *n;
        struct status st = { 0 };
        json_t *json = json_loads(specs[i], JSON_DECODE_ANY, NULL);
        if (normalizer_load(json, &n, &st))
            fail_msg("%s was not refused", specs[i]);
        assert_null(n);
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
