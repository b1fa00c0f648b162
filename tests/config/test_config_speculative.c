/* test_config_speculative.c - what --speculative-config takes, what it leaves out, and what it
 * refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool load(struct config *c, const char *json, const char *option, const char *value,
                 struct status *st)
{
    char *argv[] = { "inferd",     "serve",        "m",           "--speculative-config",
                     (char *)json, (char *)option, (char *)value, NULL };
    return config_load(option ? 7 : 5, argv, c, st);
}

static void assert_speculative(const char *json, int32_t num_tokens, int32_t max, int32_t min)
{
    struct config c;
    struct status st;
    if (!load(&c, json, NULL, NULL, &st))
        fail_msg("%s", st.message);
    assert_int_equal(c.speculative.num_tokens, num_tokens);
    assert_int_equal(c.speculative.prompt_lookup_max, max);
    assert_int_equal(c.speculative.prompt_lookup_min, min);
    config_free(&c);
}

static void test_values(void **state)
{
    (void)state;
    struct config c;
    config_defaults(&c);
    assert_int_equal(c.speculative.num_tokens, 0);
    /* vLLM's defaults: five, or one as the other. */
    assert_speculative("{\"method\": \"ngram\", \"num_speculative_tokens\": 3}", 3, 5, 5);
    assert_speculative("{\"method\":\"ngram\",\"num_speculative_tokens\":31,"
                       "\"prompt_lookup_max\":4}",
                       31, 4, 4);
    assert_speculative("{\"method\":\"ngram\",\"num_speculative_tokens\":1,"
                       "\"prompt_lookup_min\":2}",
                       1, 2, 2);
    assert_speculative("{\"method\":\"ngram\",\"num_speculative_tokens\":5,"
                       "\"prompt_lookup_max\":4,\"prompt_lookup_min\":1}",
                       5, 4, 1);
}

static void assert_refused(const char *json, const char *option, const char *value,
                           const char *message)
{
    struct config c;
    struct status st;
    assert_false(load(&c, json, option, value, &st));
    if (!strstr(st.message, message))
        fail_msg("%s\nis refused with: %s", json, st.message);
}

static void test_refusals(void **state)
{
    (void)state;
    static const char good[] = "{\"method\":\"ngram\",\"num_speculative_tokens\":5}";
    static const char *const rows[][2] = {
        { "{", "--speculative-config: it is no JSON: column " },
        { "5", "it must be one JSON object" },
        { "[]", "it must be one JSON object" },
        { "{}", "it names no method: give \"method\": \"ngram\"" },
        { "{\"method\": 3}", "method must be a text" },
        { "{\"method\": \"eagle3\"}", "method 'eagle3' is not offered: ngram is" },
        { "{\"model\": \"org/draft\", \"num_speculative_tokens\": 5}", "'model' is no key of it" },
        { "{\"method\": \"ngram\"}", "num_speculative_tokens must be given" },
        { "{\"method\": \"ngram\", \"num_speculative_tokens\": 0}",
          "num_speculative_tokens is 0: it must be a number from 1 to 31" },
        { "{\"method\": \"ngram\", \"num_speculative_tokens\": 32}", "from 1 to 31" },
        { "{\"method\": \"ngram\", \"num_speculative_tokens\": 4294967297}", "from 1 to 31" },
        { "{\"method\": \"ngram\", \"num_speculative_tokens\": 2.5}", "is 2.5: it must be" },
        { "{\"method\": \"ngram\", \"num_speculative_tokens\": \"5\"}", "is \"5\": it must be" },
        { "{\"method\": \"ngram\", \"num_speculative_tokens\": 5, \"prompt_lookup_max\": 65}",
          "prompt_lookup_max is 65: it must be a number from 1 to 64" },
        { "{\"method\": \"ngram\", \"num_speculative_tokens\": 5, \"prompt_lookup_max\": 2, "
          "\"prompt_lookup_min\": 3}",
          "prompt_lookup_min 3 is more than prompt_lookup_max 2" },
        { "{\"method\": \"ngram\", \"method\": \"ngram\", \"num_speculative_tokens\": 5}",
          "it is no JSON" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_refused(rows[i][0], NULL, NULL, rows[i][1]);
    assert_refused(good, "--async-scheduling", "true", "does not go with --async-scheduling true");
    assert_refused(good, "--max-num-batched-tokens", "5",
                   "--max-num-batched-tokens: 5 leaves no room for a token and the 5 drafts");
    struct config c;
    struct status st;
    assert_true(load(&c, good, "--max-num-batched-tokens", "6", &st));
    config_free(&c);
}

/* A file may hold the object itself, or its text. */
static void test_file(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"speculative_config\": {\"method\": \"ngram\", \"num_speculative_tokens\": 7}}",
        "{\"speculative-config\": \"{\\\"method\\\": \\\"ngram\\\", "
        "\\\"num_speculative_tokens\\\": 7}\"}",
    };
    for (size_t i = 0; i < 2; i++) {
        char path[] = "/tmp/inferd-config-XXXXXX";
        struct config c;
        struct status st;
        FILE *f = fdopen(mkstemp(path), "w");
        fputs(texts[i], f);
        fclose(f);
        char *argv[] = { "inferd", "serve", "m", "--config", path, NULL };
        if (!config_load(5, argv, &c, &st))
            fail_msg("%s", st.message);
        assert_int_equal(c.speculative.num_tokens, 7);
        config_free(&c);
        remove(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
