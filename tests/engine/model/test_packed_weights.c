/* test_packed_weights.c - a second load maps what the first one packed, bit for bit, unless
 * anything that it was made from has changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/packed_cache.h"
#include "tests/engine/model/model_helper.h"

#include <dirent.h>
#include <fcntl.h>

struct loaded {
    struct model *model;
    struct device *device;
    struct comm *comm;
    struct weights *weights;
};

static char dir[64], cache[80];

static void load(struct loaded *l, const char *dtype, const char *isa)
{
    struct status st;
    struct model_options mo = {
        .path = dir, .load_format = "auto", .dtype = dtype, .packed_weights_cache = cache
    };
    struct device_options dev = { .num_threads = 1, .isa = isa };
    l->comm = comm_self_open();
    if (!model_open(&mo, &l->model, &st) || !backend_cpu.open(&l->device, &dev, &st) ||
        !weights_load(l->model, l->device, l->comm, NULL, NULL, &l->weights, &st))
        rig_fail(dir, &st);
    packed_cache_write_wait(l->weights->cache_writer);
}

static void unload(struct loaded *l)
{
    weights_free(l->weights, l->device);
    backend_cpu.close(l->device);
    l->comm->close(l->comm);
    model_close(l->model);
}

/* Whether a load finds the image. */
static bool load_is_mapped(const char *dtype, const char *isa)
{
    struct loaded l;
    load(&l, dtype, isa);
    bool mapped = l.weights->arena_is_mapped;
    assert_int_equal(l.weights->arena.size_bytes, l.weights->size.bytes);
    unload(&l);
    return mapped;
}

static void test_second_load_is_the_first(void **state)
{
    struct loaded a, b;
    (void)state;
    load(&a, "bfloat16", "auto");
    assert_false(a.weights->arena_is_mapped);
    load(&b, "bfloat16", "auto");
    assert_true(b.weights->arena_is_mapped);
    assert_null(b.weights->cache_writer);
    assert_int_equal(a.weights->size.bytes, b.weights->size.bytes);
    assert_memory_equal(a.weights->arena.data, b.weights->arena.data, a.weights->size.bytes);
    /* The structs point into the mapping as they did into the arena. */
    assert_int_equal((char *)a.weights->head->packed - (char *)a.weights->arena.data,
                     (char *)b.weights->head->packed - (char *)b.weights->arena.data);
    unload(&a);
    unload(&b);
}

static void test_other_layouts_are_stale(void **state)
{
    (void)state;
    load_is_mapped("bfloat16", "auto");
    assert_true(load_is_mapped("bfloat16", "auto"));
    assert_false(load_is_mapped("float32", "auto"));
    assert_true(load_is_mapped("float32", "auto"));
    assert_false(load_is_mapped("bfloat16", "scalar"));
    assert_true(load_is_mapped("bfloat16", "scalar"));
}

/* One byte within the file, its times as before: only the content tells. */
static void change_a_byte(const char *path, long at)
{
    struct stat info;
    unsigned char byte;
    assert_int_equal(stat(path, &info), 0);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fread(&byte, 1, 1, f), 1);
    byte ^= 1;
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(&byte, 1, 1, f), 1);
    fclose(f);
    struct timespec times[2] = { info.st_atim, info.st_mtim };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void test_changed_files_are_noticed(void **state)
{
    char path[96];
    struct stat info;
    (void)state;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    load_is_mapped("bfloat16", "auto");
    assert_true(load_is_mapped("bfloat16", "auto"));
    assert_int_equal(stat(path, &info), 0);
    change_a_byte(path, info.st_size - 1);
    assert_false(load_is_mapped("bfloat16", "auto"));
    assert_true(load_is_mapped("bfloat16", "auto"));
    /* The same bytes, written later. */
    struct timespec times[2] = { { 0, UTIME_NOW }, { 1700000000, 1 } };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_false(load_is_mapped("bfloat16", "auto"));
    assert_true(load_is_mapped("bfloat16", "auto"));
}

static void test_damage_is_repaired(void **state)
{
    char path[400] = "";
    (void)state;
    load_is_mapped("bfloat16", "auto");
    DIR *d = opendir(cache);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            snprintf(path, sizeof path, "%s/%s", cache, e->d_name);
    closedir(d);
    change_a_byte(path, 20000);
    assert_false(load_is_mapped("bfloat16", "auto"));
    assert_true(load_is_mapped("bfloat16", "auto"));
}

static int teardown(void **state)
{
    (void)state;
    remove_dir(cache);
    remove_dir(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_load_is_the_first),
        cmocka_unit_test(test_other_layouts_are_stale),
        cmocka_unit_test(test_changed_files_are_noticed),
        cmocka_unit_test(test_damage_is_repaired),
    };
    if (!make_tiny(dir, "")) {
        print_message("skip: there is no python3\n");
        return 0;
    }
    snprintf(cache, sizeof cache, "%s/cache", dir);
    return cmocka_run_group_tests(tests, NULL, teardown);
}
