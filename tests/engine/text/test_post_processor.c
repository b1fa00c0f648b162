/* test_post_processor.c - what stands before and behind a text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/post_processor.h"

#include <string.h>

static void check(const char *spec, size_t before, size_t behind, int32_t first, int32_t last)
{
    struct post_processor p = { .before = { .len = 0 } };
    struct status st = { 0 };
    json_t *json = json_loads(spec, JSON_DECODE_ANY, NULL);
    if (!post_processor_load(json, &p, &st))
        fail_msg("%s", st.message);
    assert_int_equal(p.before.len, before);
    assert_int_equal(p.behind.len, behind);
    if (before > 0)
        assert_int_equal(p.before.ids[0], first);
    if (behind > 0)
        assert_int_equal(p.behind.ids[behind - 1], last);
    post_processor_free(&p);
    json_decref(json);
}

#define TEMPLATE                                                                                   \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"b\"}},"              \
    "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"e\"}}],"                            \
    "\"special_tokens\":{\"b\":{\"ids\":[1]},\"e\":{\"ids\":[2,3]}}}"
#define BERT "{\"type\":\"BertProcessing\",\"cls\":[\"c\",8],\"sep\":[\"s\",9]}"

static void test_kinds(void **state)
{
    (void)state;
    check("null", 0, 0, 0, 0);
    check("{\"type\":\"ByteLevel\"}", 0, 0, 0, 0);
    check(TEMPLATE, 1, 2, 1, 3);
    check(BERT, 1, 1, 8, 9);
    check("{\"type\":\"Sequence\",\"processors\":[" TEMPLATE "," BERT "]}", 2, 3, 8, 9);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "{\"type\":\"TemplateProcessing\",\"single\":\"$A\"}",
        "{\"type\":\"TemplateProcessing\",\"single\":[]}",
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]}",
        "{\"type\":\"BertProcessing\",\"cls\":[\"c\",-1],\"sep\":[\"s\",9]}",
        "{\"type\":\"Sequence\"}",
        "3",
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct post_processor p = { .before = { .len = 0 } };
        struct status st = { 0 };
        json_t *json = json_loads(specs[i], JSON_DECODE_ANY, NULL);
        if (post_processor_load(json, &p, &st))
            fail_msg("%s was not refused", specs[i]);
        post_processor_free(&p);
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
