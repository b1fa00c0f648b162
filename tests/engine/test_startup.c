/* test_startup.c - stages come up in order and are undone in reverse, also after a failure. */
#include "base/log.h"
#include "engine/startup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

static char trace[128];

static bool up_a(void *context, struct status *st)
{
    (void)st;
    strcat(trace, *(const char *)context == 'x' ? "+a" : "?");
    return true;
}
static void down_a(void *context)
{
    (void)context;
    strcat(trace, "-a");
}
static bool up_b(void *context, struct status *st)
{
    (void)context;
    (void)st;
    strcat(trace, "+b");
    return true;
}
static bool up_fails(void *context, struct status *st)
{
    (void)context;
    strcat(trace, "+f");
    return status_set(st, STATUS_IO, "no such file");
}
static void down_fails(void *context)
{
    (void)context;
    strcat(trace, "-f");
}
static const struct startup_stage good[] = { { "first", up_a, down_a }, { "second", up_b, NULL } };
static const struct startup_stage bad[] = { { "third", up_fails, down_fails } };

static void note_stage(void *arg, const char *name)
{
    strcat(arg, name);
    strcat(arg, " ");
}

static void test_up_and_down(void **state)
{
    (void)state;
    struct startup s;
    struct status st;
    char names[64] = "";
    trace[0] = '\0';
    startup_init(&s);
    startup_add(&s, good, 2, (void *)"x");
    s.on_stage = note_stage;
    s.on_stage_arg = names;
    assert_true(startup_up(&s, &st));
    assert_string_equal(startup_current(&s), "ready");
    assert_string_equal(names, "first second ");
    startup_down(&s);
    startup_down(&s); /* twice is once */
    assert_string_equal(trace, "+a+b-a");
}

static void test_failure_undoes_what_was_up(void **state)
{
    (void)state;
    struct startup s;
    struct status st;
    trace[0] = '\0';
    startup_init(&s);
    startup_add(&s, good, 2, (void *)"x");
    startup_add(&s, bad, 1, NULL);
    assert_false(startup_up(&s, &st));
    assert_string_equal(trace, "+a+b+f-a");
    assert_string_equal(st.message, "third: no such file");
}

int main(void)
{
    log_init(LOG_LEVEL_OFF, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up_and_down),
        cmocka_unit_test(test_failure_undoes_what_was_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
