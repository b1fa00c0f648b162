/* test_plan.c - the plan printed beforehand is the plan the engine makes when it starts. */
#include "server/plan.h"
#include "engine/engine.h"
#include "tests/server/support_tiny_shape.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SHAPE tiny_shape_path(), "--load-format", "dummy", "--num-threads", "1"

/* As a server would: every stage up, and the plan it runs by. */
static int serve_and_describe(const struct config *config)
{
    struct engine *e = engine_new(config);
    struct startup stages;
    struct status st = { 0 };
    struct buf text;
    startup_init(&stages);
    startup_add(&stages, engine_stages, num_engine_stages, e);
    bool up = startup_up(&stages, &st);
    if (!up)
        print_message("%s\n", st.message);
    buf_init(&text, 0);
    if (up) {
        engine_describe_plan(e, true, &text);
        fputs(buf_str(&text), stdout);
        startup_down(&stages);
    }
    buf_free(&text);
    engine_free(e);
    return up ? 0 : 1;
}

static json_t *run_json(int (*run)(const struct config *), const char *const *words)
{
    char *text;
    assert_int_equal(tiny_shape_run(run, words, &text), 0);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    /* What is free on the machine changes from one moment to the next. */
    json_object_del(root, "memory_available_bytes");
    return root;
}

static void test_plan_is_what_serve_does(void **state)
{
    (void)state;
    static const char *const sizes[][2] = {
        { "--kv-cache-memory-bytes", "1M" },
        { "--num-gpu-blocks-override", "77" },
    };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const char *plan[] = { "plan", SHAPE, "--json", sizes[i][0], sizes[i][1], NULL };
        const char *serve[] = { "serve", SHAPE, "--json", sizes[i][0], sizes[i][1], NULL };
        json_t *planned = run_json(plan_run, plan), *real = run_json(serve_and_describe, serve);
        if (!json_equal(planned, real))
            fail_msg("%s: %s is not %s", sizes[i][0], json_dumps(planned, 0), json_dumps(real, 0));
        assert_true(json_object_size(planned) > 5);
        json_decref(planned);
        json_decref(real);
    }
}

static void test_table(void **state)
{
    (void)state;
    const char *words[] = { "plan", SHAPE, "--num-gpu-blocks-override", "77", NULL };
    char *text;
    assert_int_equal(tiny_shape_run(plan_run, words, &text), 0);
    const char *expected[] = { "weights", "activations", "KV cache", "77", "bytes" };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        if (!strstr(text, expected[i]))
            fail_msg("'%s' is not in: %s", expected[i], text);
    free(text);
}

static void test_refused(void **state)
{
    (void)state;
    const char *too_small[] = { "plan", SHAPE, "--kv-cache-memory-bytes", "4096", NULL };
    const char *no_model[] = { "plan", "/nonexistent/model", NULL };
    char *text;
    assert_int_equal(tiny_shape_run(plan_run, too_small, &text), 1);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(tiny_shape_run(plan_run, no_model, &text), 1);
    assert_string_equal(text, "");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_is_what_serve_does),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, tiny_shape_setup, tiny_shape_teardown);
}
