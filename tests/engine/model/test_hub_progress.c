/* test_hub_progress.c - sizes as people read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/hub_progress.h"

static void test_sizes(void **state)
{
    (void)state;
    assert_string_equal(hub_size_show(0).text, "0 B");
    assert_string_equal(hub_size_show(999).text, "999 B");
    assert_string_equal(hub_size_show(1000).text, "1.0 kB");
    assert_string_equal(hub_size_show(99940).text, "99.9 kB");
    assert_string_equal(hub_size_show(123456).text, "123 kB");
    assert_string_equal(hub_size_show(999600).text, "1.0 MB");
    assert_string_equal(hub_size_show(4.98e9).text, "5.0 GB");
    assert_string_equal(hub_size_show(1e18).text, "1000000 TB");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sizes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
