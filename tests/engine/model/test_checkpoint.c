/* test_checkpoint.c - mapping, lookup, and names that occur twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/limits.h"
#include "engine/model/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void add(struct checkpoint *c, const char *name, const char *file)
{
    struct checkpoint_tensor *t = checkpoint_add(c);
    t->name = name;
    t->file = file;
}

static void test_lookup(void **state)
{
    struct checkpoint *c = checkpoint_new();
    struct status st;
    char names[1000][16];
    (void)state;
    assert_null(checkpoint_find(c, "a"));
    for (int i = 0; i < 1000; i++) { /* 7919 is prime to 1000: every number once, unordered */
        snprintf(names[i], sizeof names[i], "t%d", i * 7919 % 1000);
        add(c, names[i], "f");
    }
    assert_true(checkpoint_seal(c, &st));
    for (int i = 0; i < 1000; i++)
        assert_string_equal(checkpoint_find(c, names[i])->name, names[i]);
    assert_null(checkpoint_find(c, "t1000"));
    assert_null(checkpoint_find(c, ""));
    checkpoint_close(c);
    checkpoint_close(NULL);
}

static void test_name_twice(void **state)
{
    struct checkpoint *c = checkpoint_new();
    struct status st;
    (void)state;
    add(c, "b", "1.st");
    add(c, "a", "1.st");
    add(c, "b", "2.st");
    assert_false(checkpoint_seal(c, &st));
    assert_non_null(strstr(st.message, "tensor 'b' is in"));
    assert_non_null(strstr(st.message, "1.st"));
    assert_non_null(strstr(st.message, "2.st"));
    checkpoint_close(c);
}

static void test_map(void **state)
{
    char dir[] = "/tmp/inferd-test-XXXXXX", path[64];
    struct checkpoint *c = checkpoint_new();
    const struct checkpoint_file *file = NULL;
    struct status st;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/data", dir);
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < 100000; i++)
        fputc(i % 251, f);
    fclose(f);

    assert_false(checkpoint_map(c, dir, "absent", &file, &st));
    assert_int_equal(st.code, STATUS_NOT_FOUND);
    assert_false(checkpoint_map(c, dir, ".", &file, &st));
    assert_non_null(strstr(st.message, "not a regular file"));
    assert_true(checkpoint_map(c, dir, "data", &file, &st));
    assert_string_equal(file->name, "data");
    assert_int_equal(file->size_bytes, 100000);

    /* Hints may begin and end anywhere, and change nothing that is read. */
    for (size_t begin = 0; begin < 9000; begin += 4095) {
        checkpoint_will_need(file->data + begin, 100000 - begin);
        checkpoint_done_with(file->data + begin, 4097);
        checkpoint_done_with(file->data + begin, 0);
        checkpoint_will_need(file->data + begin, 0);
        checkpoint_release_pages(c);
    }
    for (int i = 0; i < 100000; i++)
        assert_int_equal(file->data[i], i % 251);
    checkpoint_close(c);
    unlink(path);
    rmdir(dir);
}

static void test_long_path(void **state)
{
    struct checkpoint *c = checkpoint_new();
    const struct checkpoint_file *file;
    struct status st;
    char *dir = malloc(10000);
    (void)state;
    memset(dir, 'x', 9999);
    dir[9999] = '\0';
    assert_false(checkpoint_map(c, dir, "data", &file, &st));
    assert_non_null(strstr(st.message, "too long"));
    free(dir);
    checkpoint_close(c);
}

static void test_shapes(void **state)
{
    static const int64_t dims[8] = { 1, INT64_MAX, 3, INT64_MAX, INT64_MAX, INT64_MAX, 7, 8 };
    (void)state;
    assert_string_equal(shape_show(dims, 0).text, "[]");
    assert_string_equal(shape_show(dims, 1).text, "[1]");
    assert_string_equal(shape_show(dims, 3).text, "[1, 9223372036854775807, 3]");
    assert_true(strlen(shape_show(dims, 8).text) < sizeof(struct shape_shown)); /* cut */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup), cmocka_unit_test(test_name_twice),
        cmocka_unit_test(test_map),    cmocka_unit_test(test_long_path),
        cmocka_unit_test(test_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
