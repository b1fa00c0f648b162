/* test_build_id.c - the id is the one that the file's notes hold. */
#include "base/build_id.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void test_is_in_the_file(void **state)
{
    (void)state;
    size_t len, size = 8 << 20;
    const unsigned char *id = build_id(&len);
    assert_non_null(id);
    assert_true(len >= 8);
    FILE *f = fopen("/proc/self/exe", "rb");
    assert_non_null(f);
    unsigned char *file = malloc(size);
    assert_non_null(file);
    size = fread(file, 1, size, f);
    fclose(f);
    assert_non_null(memmem(file, size, id, len));
    /* The same from one call to the next. */
    size_t again;
    assert_ptr_equal(build_id(&again), id);
    assert_int_equal(again, len);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_is_in_the_file) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
