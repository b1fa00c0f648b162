/* test_packed_cache.c - what was written is mapped again, and nothing else ever is. */
#include "engine/model/packed_cache.h"
#include "base/alloc.h"
#include "base/rng.h"
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { ARENA_BYTES = (9 << 20) + 4160 }; /* two whole chunks and a part of one */

static char root[] = "/tmp/inferd-packed-XXXXXX";
static unsigned char *arena;

static struct packed_cache_id make_id(uint64_t place, uint64_t content)
{
    return (struct packed_cache_id){ { place, 7 }, { content, 9 }, ARENA_BYTES };
}

static void keep(const char *dir, const struct packed_cache_id *id)
{
    struct packed_cache_writer *w = packed_cache_write_begin(dir, id, arena);
    assert_non_null(w);
    packed_cache_write_wait(w);
    packed_cache_write_end(w);
}

/* The path of the one file in `dir`. */
static void only_file(const char *dir, char path[512])
{
    int count = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, 512, "%s/%s", dir, e->d_name);
        count++;
    }
    closedir(d);
    assert_int_equal(count, 1);
}

static void test_round_trip(void **state)
{
    (void)state;
    char dir[256];
    struct packed_cache_id id = make_id(1, 2);
    struct buffer mapped;
    struct status st;
    snprintf(dir, sizeof dir, "%s/a/b", root);
    assert_false(packed_cache_map(dir, &id, &mapped, &st));
    assert_int_equal(st.code, STATUS_NOT_FOUND);
    keep(dir, &id);
    assert_true(packed_cache_map(dir, &id, &mapped, &st));
    assert_int_equal(mapped.size_bytes, ARENA_BYTES);
    assert_memory_equal(mapped.data, arena, ARENA_BYTES);
    /* Private: what is written there stays there. */
    memset(mapped.data, 0xff, 64);
    packed_cache_unmap(&mapped);
    assert_null(mapped.data);
    assert_true(packed_cache_map(dir, &id, &mapped, &st));
    assert_memory_equal(mapped.data, arena, ARENA_BYTES);
    packed_cache_unmap(&mapped);
}

static void test_stale_is_replaced(void **state)
{
    (void)state;
    char dir[256], path[512];
    struct packed_cache_id old = make_id(3, 1), new = make_id(3, 2), other = make_id(4, 1);
    struct buffer mapped;
    struct status st;
    snprintf(dir, sizeof dir, "%s/stale", root);
    keep(dir, &old);
    assert_false(packed_cache_map(dir, &new, &mapped, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_non_null(strstr(st.message, "stale"));
    assert_false(packed_cache_map(dir, &other, &mapped, &st));
    assert_int_equal(st.code, STATUS_NOT_FOUND);
    old.arena_bytes--;
    assert_false(packed_cache_map(dir, &old, &mapped, &st));
    keep(dir, &new);
    only_file(dir, path);
    assert_true(packed_cache_map(dir, &new, &mapped, &st));
    packed_cache_unmap(&mapped);
}

static void flip_byte(const char *path, off_t at)
{
    unsigned char byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x20;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_damage_is_found(void **state)
{
    (void)state;
    char dir[256], path[512];
    struct packed_cache_id id = make_id(5, 5);
    struct buffer mapped;
    struct status st;
    struct stat info;
    snprintf(dir, sizeof dir, "%s/damage", root);
    keep(dir, &id);
    only_file(dir, path);
    assert_int_equal(stat(path, &info), 0);
    /* The header, the table, the first and the last byte of the image, and one in each chunk. */
    const off_t places[] = { 0, 12, 20, 40, 4096, 4096 + 16, 8192, 9 << 20, info.st_size - 1 };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        flip_byte(path, places[i]);
        assert_false(packed_cache_map(dir, &id, &mapped, &st));
        assert_int_equal(st.code, STATUS_INVALID);
        flip_byte(path, places[i]);
    }
    assert_true(packed_cache_map(dir, &id, &mapped, &st));
    packed_cache_unmap(&mapped);
    const off_t lengths[] = { 0, 30, 4096, info.st_size - 1, info.st_size + 1 };
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        keep(dir, &id);
        assert_int_equal(truncate(path, lengths[i]), 0);
        assert_false(packed_cache_map(dir, &id, &mapped, &st));
        assert_int_equal(st.code, STATUS_INVALID);
    }
}

static void test_what_a_killed_writer_left_is_taken_over(void **state)
{
    (void)state;
    char dir[256], path[512], part[512];
    struct packed_cache_id id = make_id(6, 6);
    struct buffer mapped;
    struct status st;
    snprintf(dir, sizeof dir, "%s/left", root);
    keep(dir, &id);
    only_file(dir, path);
    snprintf(part, sizeof part, "%.*s.part", (int)(strlen(path) - strlen(".packed")), path);
    assert_int_equal(rename(path, part), 0);
    assert_false(packed_cache_map(dir, &id, &mapped, &st));
    keep(dir, &id);
    only_file(dir, path);
    assert_true(packed_cache_map(dir, &id, &mapped, &st));
    packed_cache_unmap(&mapped);
}

static void test_a_directory_that_cannot_be_costs_nothing(void **state)
{
    (void)state;
    struct packed_cache_id id = make_id(7, 7);
    struct buffer mapped;
    struct status st;
    keep("/proc/nowhere", &id);
    assert_false(packed_cache_map("/proc/nowhere", &id, &mapped, &st));
}

static void test_a_stopped_writer_leaves_nothing(void **state)
{
    (void)state;
    char dir[256], path[512];
    struct packed_cache_id id = make_id(8, 8);
    struct buffer mapped;
    struct status st;
    snprintf(dir, sizeof dir, "%s/stopped", root);
    packed_cache_write_end(packed_cache_write_begin(dir, &id, arena));
    /* It was stopped, or had been quicker: no part stays behind either way. */
    if (packed_cache_map(dir, &id, &mapped, &st)) {
        packed_cache_unmap(&mapped);
        only_file(dir, path);
    } else {
        assert_int_equal(st.code, STATUS_NOT_FOUND);
        assert_true(rmdir(dir) == 0 || access(dir, F_OK) != 0);
    }
}

static int setup(void **state)
{
    (void)state;
    arena = xmalloc(ARENA_BYTES);
    rng_system(arena, 1 << 20);
    for (size_t i = 1 << 20; i < ARENA_BYTES; i++)
        arena[i] = (unsigned char)(arena[i - (1 << 20)] + 31);
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[300];
    (void)state;
    free(arena);
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_stale_is_replaced),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_what_a_killed_writer_left_is_taken_over),
        cmocka_unit_test(test_a_directory_that_cannot_be_costs_nothing),
        cmocka_unit_test(test_a_stopped_writer_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
