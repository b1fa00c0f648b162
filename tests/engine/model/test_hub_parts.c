/* test_hub_parts.c - what a run leaves for the next one, and records that must not be believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/limits.h"
#include "engine/model/hub_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PART = LIMIT_HUB_PART_BYTES, SIZE = PART + 100 };

static char dir[32];

static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/inferd-test-XXXXXX");
    return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", dir);
    return chdir("/") == 0 ? system(command) : -1;
}

static void open_parts(struct hub_parts *p, uint64_t size)
{
    struct status st;
    if (!hub_parts_open(p, dir, "hash", size, &st))
        fail_msg("%s", st.message);
}

static void test_resumed(void **state)
{
    struct hub_parts p;
    struct status st;
    char text[8] = "";
    (void)state;
    open_parts(&p, SIZE);
    assert_int_equal(p.num_parts, 2);
    assert_int_equal(hub_parts_length(&p, 0), PART);
    assert_int_equal(hub_parts_length(&p, 1), 100);
    assert_true(hub_parts_write(&p, 1, "hello", 5, &st));
    assert_true(hub_parts_write(&p, 1, "world", 5, &st));
    assert_true(hub_parts_write(&p, 0, "first", 5, &st));
    hub_parts_close(&p); /* no different from a kill: nothing is written at the end */
    assert_int_equal(hub_parts_left(dir, "hash", SIZE), 15);
    assert_int_equal(hub_parts_left(dir, "hash", SIZE + 1), 0);
    open_parts(&p, SIZE);
    assert_int_equal(p.received[0], 5);
    assert_int_equal(p.received[1], 10);
    assert_false(hub_parts_is_whole(&p, 1));
    assert_true(hub_parts_read(&p, PART + 5, text, 5, &st));
    assert_string_equal(text, "world");
    char rest[90] = { 0 };
    assert_true(hub_parts_write(&p, 1, rest, 90, &st));
    assert_true(hub_parts_is_whole(&p, 1));
    assert_true(hub_parts_reset(&p, &st));
    hub_parts_close(&p);
    assert_int_equal(hub_parts_left(dir, "hash", SIZE), 0);
}

static void corrupt(const char *path, long offset, const char *bytes, size_t len)
{
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    fseek(f, offset, SEEK_SET);
    fwrite(bytes, 1, len, f);
    fclose(f);
}

static void test_records_not_believed(void **state)
{
    struct hub_parts p;
    struct status st;
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        open_parts(&p, SIZE);
        assert_true(hub_parts_write(&p, 0, "first", 5, &st));
        hub_parts_close(&p);
        if (kind == 0) /* another magic */
            corrupt("hash.inferd.parts", 0, "X", 1);
        else if (kind == 1) /* more than a part holds */
            corrupt("hash.inferd.parts", 24 + 4, "\xff\xff\xff\xff", 4);
        else if (kind == 2)
            assert_int_equal(truncate("hash.inferd.parts", 20), 0);
        else if (kind == 3)
            assert_int_equal(truncate("hash.inferd.parts", 27), 0);
        else if (kind == 4) /* the contents are gone */
            assert_int_equal(unlink("hash.inferd.incomplete"), 0);
        else
            assert_int_equal(truncate("hash.inferd.incomplete", 3), 0);
        open_parts(&p, SIZE);
        assert_int_equal(p.received[0], 0);
        assert_int_equal(p.received[1], 0);
        hub_parts_close(&p);
    }
}

static void test_published(void **state)
{
    struct hub_parts p;
    struct status st;
    struct stat info;
    (void)state;
    open_parts(&p, 3);
    assert_true(hub_parts_write(&p, 0, "abc", 3, &st));
    assert_true(hub_parts_publish(&p, "blob", &st));
    hub_parts_close(&p);
    assert_int_equal(stat("blob", &info), 0);
    assert_int_equal(info.st_size, 3);
    assert_int_equal(access("hash.inferd.parts", F_OK), -1);
    assert_int_equal(access("hash.inferd.incomplete", F_OK), -1);
    /* Another process was faster: its blob counts. */
    open_parts(&p, 3);
    unlink("hash.inferd.incomplete");
    assert_true(hub_parts_publish(&p, "blob", &st));
    hub_parts_close(&p);
    open_parts(&p, 0);
    assert_int_equal(p.num_parts, 0);
    assert_true(hub_parts_publish(&p, "empty", &st));
    hub_parts_close(&p);
    assert_int_equal(stat("empty", &info), 0);
    assert_int_equal(info.st_size, 0);
}

static void test_links_are_not_followed(void **state)
{
    struct hub_parts p;
    struct status st;
    (void)state;
    assert_int_equal(symlink("/tmp/inferd-test-target", "hash.inferd.incomplete"), 0);
    assert_false(hub_parts_open(&p, dir, "hash", SIZE, &st));
    assert_int_equal(st.code, STATUS_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_resumed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_records_not_believed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_published, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_links_are_not_followed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
