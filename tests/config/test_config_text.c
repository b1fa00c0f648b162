/* test_config_text.c - help, description and sample file agree with the table, and the sample file
 * in config/ is the one the table gives now (config/inferd.json is rewritten by `make sample`). */
#include "config/config.h"
#include "config/option.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void test_help_names_every_option(void **state)
{
    (void)state;
    struct buf help;
    buf_init(&help, 0);
    config_help(&help);
    for (int32_t i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        char flag[64];
        option_flag(o, flag);
        const char *word = o->kind == OPTION_KIND_GROUP ? o->name : flag + 2;
        if (!strstr(buf_str(&help), word))
            fail_msg("--help does not name %s", word);
    }
    assert_non_null(strstr(buf_str(&help), "--block-size N"));
    assert_non_null(strstr(buf_str(&help), "(default 16; 1 to 256)"));
    assert_non_null(strstr(buf_str(&help), "(default 0.92; 0.01 to 1)"));
    assert_non_null(strstr(buf_str(&help), "--[no-]enable-prefix-caching"));
    size_t column = 0;
    for (const char *p = buf_str(&help); *p != '\0'; p++) {
        column = *p == '\n' ? 0 : column + 1;
        assert_true(column <= 100);
    }
    buf_free(&help);
}

static void test_describe(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    struct buf text;
    const char *argv[] = { "inferd",    "serve",     "m",      "--port", "80", "--api-key",
                           "sk-secret", "--no-json", "--seed", "7",      NULL };
    buf_init(&text, 0);
    config_defaults(&c);
    config_describe(&c, &text);
    assert_string_equal(buf_str(&text), "");
    assert_true(config_load(10, (char **)argv, &c, &st));
    config_describe(&c, &text);
    assert_string_equal(buf_str(&text), "--seed=7 --port=80 --api-key=***");
    buf_free(&text);
    config_free(&c);
}

static void test_sample_is_the_file(void **state)
{
    (void)state;
    struct buf sample, file;
    char chunk[4096];
    size_t n;
    buf_init(&sample, 0);
    buf_init(&file, 0);
    config_sample_json(&sample);
    FILE *f = fopen("config/inferd.json", "r");
    assert_non_null(f);
    while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        buf_append(&file, chunk, n);
    fclose(f);
    if (strcmp(buf_str(&sample), buf_str(&file)) != 0)
        fail_msg("config/inferd.json is not what options.def gives now: run make sample");
    buf_free(&sample);
    buf_free(&file);
}

static void test_sample_reads_back_as_the_defaults(void **state)
{
    (void)state;
    struct config c;
    struct status st;
    const char *argv[] = { "inferd", "serve", "m", "--config", "config/inferd.json", NULL };
    if (!config_load(5, (char **)argv, &c, &st))
        fail_msg("%s", st.message);
    for (int32_t i = 0; i < option_count; i++)
        if (!option_is_default(&option_table[i], &c))
            fail_msg("%s is not at its default", option_table[i].name);
    config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_names_every_option),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_sample_is_the_file),
        cmocka_unit_test(test_sample_reads_back_as_the_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
