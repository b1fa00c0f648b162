/* test_status.c - messages are formatted, prefixed and cut, never overrun. */
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_set_and_prefix(void **state)
{
    (void)state;
    struct status st;
    assert_false(status_set(&st, STATUS_INVALID, "value %d", 7));
    assert_false(status_detail(&st, "max_tokens", "too_big"));
    assert_false(status_prefix(&st, "%s: ", "file"));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_string_equal(st.message, "file: value 7");
    assert_string_equal(st.param, "max_tokens");
    assert_string_equal(st.reason, "too_big");
    status_set(&st, STATUS_IO, "again");
    assert_string_equal(st.param, "");
    status_clear(&st);
    assert_int_equal(st.code, STATUS_OK);
}

static void test_long_messages_are_cut(void **state)
{
    (void)state;
    struct status st;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    status_set(&st, STATUS_INTERNAL, "%s", text);
    assert_int_equal(strlen(st.message), sizeof st.message - 1);
    status_prefix(&st, "%s", text);
    assert_int_equal(strlen(st.message), sizeof st.message - 1);
    status_prefix(&st, "head: ");
    assert_memory_equal(st.message, "head: x", 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_prefix),
        cmocka_unit_test(test_long_messages_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
