/* test_hub_cache.c - the layout on disk, byte for byte, and locks between descriptors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/hub_cache.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define OTHER  "89abcdef0123456789abcdef0123456789abcdef"

struct place {
    char dir[32];
    struct hub_cache cache;
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    struct status st;
    strcpy(p->dir, "/tmp/inferd-test-XXXXXX");
    if (!mkdtemp(p->dir) || chdir(p->dir) != 0)
        return -1;
    hub_cache_init(&p->cache, p->dir, "org/name");
    *state = p;
    return hub_cache_create(&p->cache, &st) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", p->dir);
    int code = chdir("/") == 0 ? system(command) : -1;
    hub_cache_free(&p->cache);
    free(p);
    return code;
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_refs(void **state)
{
    struct place *p = *state;
    struct status st;
    char commit[41], text[64] = "";
    assert_false(hub_cache_read_ref(&p->cache, "main", commit));
    assert_true(hub_cache_write_ref(&p->cache, "main", COMMIT, &st));
    assert_true(hub_cache_read_ref(&p->cache, "main", commit));
    assert_string_equal(commit, COMMIT);
    assert_true(hub_cache_write_ref(&p->cache, "main", OTHER, &st));
    FILE *f = fopen("models--org--name/refs/main", "r");
    assert_non_null(f);
    assert_int_equal(fread(text, 1, sizeof text, f), 40);
    assert_memory_equal(text, OTHER, 40);
    fclose(f);
    assert_true(hub_cache_write_ref(&p->cache, "refs/pr/1", COMMIT, &st));
    assert_int_equal(access("models--org--name/refs/refs/pr/1", F_OK), 0);
    put("models--org--name/refs/main", "not a commit");
    assert_false(hub_cache_read_ref(&p->cache, "main", commit));
    put("models--org--name/refs/main", COMMIT "0");
    assert_false(hub_cache_read_ref(&p->cache, "main", commit));
}

static void expect_link(const char *path, const char *target)
{
    char found[256] = "";
    assert_true(readlink(path, found, sizeof found - 1) > 0);
    assert_string_equal(found, target);
}

static void test_links(void **state)
{
    struct place *p = *state;
    struct status st;
    put("models--org--name/blobs/" OTHER, "text");
    assert_true(hub_cache_has_blob(&p->cache, OTHER, 4));
    assert_false(hub_cache_has_blob(&p->cache, OTHER, 5));
    assert_false(hub_cache_has_blob(&p->cache, COMMIT, 4));
    assert_true(hub_cache_link(&p->cache, COMMIT, "config.json", OTHER, 4, &st));
    expect_link("models--org--name/snapshots/" COMMIT "/config.json", "../../blobs/" OTHER);
    assert_true(hub_cache_link(&p->cache, COMMIT, "a/b/c.json", OTHER, 4, &st));
    expect_link("models--org--name/snapshots/" COMMIT "/a/b/c.json", "../../../../blobs/" OTHER);
    /* A link to another blob is replaced, a file of the right size stays. */
    assert_true(hub_cache_link(&p->cache, COMMIT, "config.json", COMMIT, 9, &st));
    expect_link("models--org--name/snapshots/" COMMIT "/config.json", "../../blobs/" COMMIT);
    put("models--org--name/snapshots/" COMMIT "/plain.json", "1234");
    assert_true(hub_cache_link(&p->cache, COMMIT, "plain.json", OTHER, 4, &st));
    struct stat info;
    assert_int_equal(lstat("models--org--name/snapshots/" COMMIT "/plain.json", &info), 0);
    assert_true(S_ISREG(info.st_mode));
    assert_true(hub_cache_link(&p->cache, COMMIT, "plain.json", OTHER, 7, &st));
    expect_link("models--org--name/snapshots/" COMMIT "/plain.json", "../../blobs/" OTHER);
}

static void test_absent(void **state)
{
    struct place *p = *state;
    assert_false(hub_cache_is_absent(&p->cache, COMMIT, "vocab.json"));
    hub_cache_note_absent(&p->cache, COMMIT, "vocab.json");
    assert_true(hub_cache_is_absent(&p->cache, COMMIT, "vocab.json"));
    assert_int_equal(access("models--org--name/.no_exist/" COMMIT "/vocab.json", F_OK), 0);
    assert_false(hub_cache_is_absent(&p->cache, OTHER, "vocab.json"));
}

static void test_locks(void **state)
{
    struct place *p = *state;
    struct status st;
    int fd = hub_cache_lock(&p->cache, OTHER, &st);
    assert_true(fd >= 0);
    assert_int_equal(hub_cache_lock(&p->cache, OTHER, &st), -1);
    int other = hub_cache_lock(&p->cache, COMMIT, &st);
    assert_true(other >= 0);
    close(other);
    close(fd);
    fd = open(".locks/models--org--name/" OTHER ".lock", O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(hub_cache_lock(&p->cache, OTHER, &st), -1);
    close(fd);
    fd = hub_cache_lock(&p->cache, OTHER, &st);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(symlink("/etc/passwd", ".locks/models--org--name/x.lock"), 0);
    assert_int_equal(hub_cache_lock(&p->cache, "x", &st), -2);
    assert_int_equal(st.code, STATUS_IO);
}

static void test_cannot_write(void **state)
{
    struct place *p = *state;
    struct hub_cache below;
    struct status st;
    put("file", "");
    char path[64];
    snprintf(path, sizeof path, "%s/file", p->dir);
    hub_cache_init(&below, path, "org/name");
    assert_false(hub_cache_create(&below, &st));
    assert_int_equal(st.code, STATUS_IO);
    assert_non_null(strstr(st.message, path));
    hub_cache_free(&below);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_links, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_absent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_locks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cannot_write, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
