/* test_backend_cpu.c - opening, memory, workspace, the small ops, and how much memory cgroups
 * leave, read from a made-up /proc and /sys. */
#include "kernels/backend.h"
#include "kernels/comm.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_memory.h"

#include <errno.h>
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

static struct device *open_device(const struct device_options *options)
{
    struct device *d = NULL;
    struct status st = { 0 };
    if (!backend_cpu.open(&d, options, &st))
        fail_msg("%s", st.message);
    return d;
}

static void test_backend_find(void **state)
{
    (void)state;
    assert_ptr_equal(backend_find("cpu"), &backend_cpu);
    assert_null(backend_find("auto"));
    assert_null(backend_find("tpu"));
    assert_null(backend_find(NULL));
    assert_true(backend_cpu.caps & BACKEND_HOST_MEMORY);
}

static void test_open(void **state)
{
    (void)state;
    struct device *d = open_device(&(struct device_options){ .num_threads = 2 });
    assert_int_equal(cpu_device_of(d)->num_threads, 2);
    assert_int_equal(cpu_device_of(d)->isa, cpu_isa_detect());
    assert_non_null(strstr(d->description, "2 threads"));
    d->backend->close(d);
    for (int isa = 0; isa < NUM_CPU_ISAS; isa++) {
        struct status st = { 0 };
        struct device_options options = { .num_threads = 1,
                                          .isa = cpu_isa_name((enum cpu_isa)isa) };
        bool opened = backend_cpu.open(&d, &options, &st);
        assert_int_equal(opened, isa <= (int)cpu_isa_detect());
        if (opened)
            assert_int_equal(cpu_device_of(d)->isa, isa);
        else
            assert_int_equal(st.code, STATUS_UNSUPPORTED);
        backend_cpu.close(d); /* NULL after a failure */
    }
}

static void test_open_refuses(void **state)
{
    (void)state;
    struct device *d = (struct device *)1;
    struct status st = { 0 };
    assert_false(backend_cpu.open(&d, &(struct device_options){ .isa = "mmx" }, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_non_null(strstr(st.message, "mmx"));
    assert_null(d);
    assert_false(backend_cpu.open(&d, &(struct device_options){ .num_threads = -3 }, &st));
    assert_non_null(strstr(st.message, "-3"));
    assert_null(d);
}

static void test_alloc(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 64, 4097, 262143, 262144, 2097152, 70000000 };
    struct device *d = open_device(&(struct device_options){ .num_threads = 1 });
    struct buffer b;
    struct status st = { 0 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_true(d->backend->alloc(d, &b, sizes[i], MEMORY_DEVICE, &st));
        assert_int_equal(b.size_bytes, sizes[i]);
        assert_int_equal((uintptr_t)b.data % 64, 0);
        unsigned char *bytes = b.data;
        assert_int_equal(bytes[0] | bytes[sizes[i] / 2] | bytes[sizes[i] - 1], 0);
        bytes[0] = bytes[sizes[i] - 1] = 1;
        d->backend->free(d, &b);
        assert_null(b.data);
        d->backend->free(d, &b);
    }
    assert_true(d->backend->alloc(d, &b, 0, MEMORY_PINNED, &st));
    d->backend->free(d, &b);
    d->backend->close(d);
}

static void test_alloc_refuses(void **state)
{
    (void)state;
    static const size_t sizes[] = { SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX / 2, (size_t)1 << 46 };
    struct device *d = open_device(&(struct device_options){ .num_threads = 1 });
    struct buffer b;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct status st = { 0 };
        assert_false(d->backend->alloc(d, &b, sizes[i], MEMORY_DEVICE, &st));
        assert_int_equal(st.code, STATUS_UNAVAILABLE);
        assert_non_null(strstr(st.message, "allocate"));
        assert_null(b.data);
    }
    d->backend->close(d);
}

static void test_workspace(void **state)
{
    (void)state;
    struct device *d = open_device(&(struct device_options){ .num_threads = 2 });
    struct cpu_device *c = cpu_device_of(d);
    struct workspace_desc w = { .max_num_tokens = 100,
                                .max_num_seqs = 4,
                                .max_logits_rows = 4,
                                .max_model_len = 256,
                                .block_size = 16,
                                .max_in_features = 500,
                                .max_out_features = 500,
                                .num_heads = 4,
                                .num_kv_heads = 2,
                                .head_dim = 64,
                                .vocab_size = 1000 };
    struct status st = { 0 };
    for (int i = 0; i < 2; i++) { /* the second replaces the first */
        assert_true(d->backend->reserve_workspace(d, &w, &st));
        assert_int_equal(c->workspace.size_bytes, d->backend->workspace_bytes(d, &w));
        assert_true(c->linear_scratch_bytes >= 100 * 500 * sizeof(float));
        assert_true(c->linear_scratch_bytes + c->attention_scratch_bytes +
                        c->sampling_scratch_bytes <=
                    c->workspace.size_bytes);
        memset(c->workspace.data, 1, c->workspace.size_bytes);
        w.max_num_tokens = 200;
    }
    d->backend->close(d);
}

static void test_sync_reports_the_first_error_once(void **state)
{
    (void)state;
    struct device *d = open_device(&(struct device_options){ .num_threads = 1 });
    struct status st = { 0 };
    assert_true(d->backend->sync(d, &st));
    float data[6] = { 1, 2, 3, 4, 5, 6 }, out[4];
    int32_t indices[2] = { 7, -2 };
    struct tensor x = tensor_view(data, DTYPE_F32, 3, 2), o = tensor_view(out, DTYPE_F32, 2, 2);
    d->backend->gather_rows(d, &o, &x, indices);
    for (int i = 0; i < 4; i++)
        assert_true(out[i] == 0);
    assert_false(d->backend->sync(d, &st));
    assert_int_equal(st.code, STATUS_INTERNAL);
    assert_non_null(strstr(st.message, "index 7"));
    assert_true(d->backend->sync(d, &st));
    d->backend->close(d);
}

/* Small enough for one thread, and large enough for all. */
static void test_row_ops(void **state)
{
    (void)state;
    static const int32_t sizes[][2] = { { 3, 5 }, { 700, 130 } };
    struct device *d = open_device(&(struct device_options){ .num_threads = 3 });
    for (int s = 0; s < 2; s++) {
        int32_t rows = sizes[s][0], cols = sizes[s][1], stride = cols + 3;
        size_t count = (size_t)rows * (size_t)stride;
        float *x = malloc(count * sizeof *x), *y = malloc(count * sizeof *y);
        int32_t *indices = malloc((size_t)rows * sizeof *indices);
        for (size_t i = 0; i < count; i++) {
            x[i] = (float)i;
            y[i] = 0.25f;
        }
        for (int32_t r = 0; r < rows; r++)
            indices[r] = rows - 1 - r;
        struct tensor xt = { x, DTYPE_F32, rows, cols, stride };
        struct tensor yt = { y, DTYPE_F32, rows, cols, stride };
        d->backend->add(d, &xt, &yt);
        d->backend->scale(d, &xt, 2);
        d->backend->gather_rows(d, &yt, &xt, indices);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t c = 0; c < stride; c++) {
                float was = (float)(r * stride + c);
                float from = (float)((rows - 1 - r) * stride + c);
                bool inside = c < cols;
                assert_true(x[r * stride + c] == (inside ? (was + 0.25f) * 2 : was));
                assert_true(y[r * stride + c] == (inside ? (from + 0.25f) * 2 : 0.25f));
            }
        free(x);
        free(y);
        free(indices);
    }
    d->backend->close(d);
}

static void test_comm_self(void **state)
{
    (void)state;
    struct device *d = open_device(&(struct device_options){ .num_threads = 1 });
    struct comm *c = comm_self_open();
    struct status st = { 0 };
    float x[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, out[4] = { 0 };
    struct tensor xt = { x, DTYPE_F32, 2, 2, 4 }, ot = tensor_view(out, DTYPE_F32, 2, 2);
    assert_int_equal(c->rank, 0);
    assert_int_equal(c->world_size, 1);
    c->all_reduce(c, d, &xt);
    c->broadcast(c, d, x, sizeof x, 0);
    assert_true(x[0] == 1 && x[7] == 8);
    c->all_gather(c, d, &ot, &xt);
    assert_true(out[0] == 1 && out[1] == 2 && out[2] == 5 && out[3] == 6);
    assert_true(c->barrier(c, &st));
    c->close(c);
    d->backend->close(d);
}

/* --- memory limits ------------------------------------------------------------------------------
 */

static char root[] = P_tmpdir "/inferd-test-XXXXXX";

/* Writes a file below `root`, with the directories above it. */
static void put(const char *path, const char *text)
{
    char name[512];
    int n = snprintf(name, sizeof name, "%s%s", root, path);
    assert_true(n > 0 && (size_t)n < sizeof name);
    for (char *slash = name + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        assert_true(mkdir(name, 0755) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int set_up_root(void **state)
{
    (void)state;
    strcpy(strrchr(root, '-') + 1, "XXXXXX");
    if (!mkdtemp(root))
        return -1;
    put("/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    800 kB\n");
    return 0;
}

static int tear_down_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void check_memory(size_t total, size_t available)
{
    struct memory_info info;
    struct status st = { 0 };
    if (!cpu_memory_info(root, &info, &st))
        fail_msg("%s", st.message);
    assert_int_equal(info.total_bytes, total);
    assert_int_equal(info.available_bytes, available);
}

static void test_memory_without_cgroups(void **state)
{
    (void)state;
    check_memory(1000 * 1024, 800 * 1024);
    put("/proc/meminfo", "nothing here\n");
    struct memory_info info;
    struct status st = { 0 };
    assert_false(cpu_memory_info(root, &info, &st));
    assert_int_equal(st.code, STATUS_IO);
}

static const char v2_mount[] =
    "24 1 0:22 / /proc rw - proc proc rw\n"
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

static void test_memory_cgroup_v2(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/system.slice/inferd.service\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/system.slice/inferd.service/memory.max", "max\n");
    put("/sys/fs/cgroup/system.slice/inferd.service/memory.current", "5000\n");
    check_memory(1000 * 1024, 800 * 1024);
    /* A limit of the group itself; its inactive file cache is as good as free. */
    put("/sys/fs/cgroup/system.slice/inferd.service/memory.max", "600000\n");
    put("/sys/fs/cgroup/system.slice/inferd.service/memory.current", "500000\n");
    put("/sys/fs/cgroup/system.slice/inferd.service/memory.stat",
        "anon 9\ninactive_file 200000\nactive_file 7\n");
    check_memory(600000, 300000);
    /* A tighter one above it. */
    put("/sys/fs/cgroup/system.slice/memory.max", "550000\n");
    put("/sys/fs/cgroup/system.slice/memory.current", "549999\n");
    check_memory(550000, 1);
    put("/sys/fs/cgroup/system.slice/memory.current", "700000\n");
    check_memory(550000, 0);
}

static void test_memory_cgroup_v1(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "9:name=systemd:/\n5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n");
    put("/proc/self/mountinfo",
        "35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "900000\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "400000\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "100000\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.stat",
        "inactive_file 1\ntotal_inactive_file 50000\n");
    check_memory(400000, 350000);
}

/* In a container without a namespace of its own the mount begins at the group. */
static void test_memory_cgroup_mounted_from_below(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/docker/abc/inner\n");
    put("/proc/self/mountinfo", "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
    put("/sys/fs/cgroup/memory.max", "300000\n");
    put("/sys/fs/cgroup/memory.current", "1000\n");
    put("/sys/fs/cgroup/inner/memory.max", "200000\n");
    put("/sys/fs/cgroup/inner/memory.current", "1000\n");
    check_memory(200000, 199000);
    put("/proc/self/cgroup", "0::/docker/abcdef\n"); /* not below it: the mount itself */
    check_memory(300000, 299000);
}

static void test_memory_of_this_machine(void **state)
{
    (void)state;
    struct memory_info info;
    struct status st = { 0 };
    struct device *d = open_device(&(struct device_options){ .num_threads = 1 });
    assert_true(d->backend->memory_info(d, &info, &st));
    assert_true(info.available_bytes > 0 && info.available_bytes <= info.total_bytes);
    d->backend->close(d);
}

int main(void)
{
#define WITH_ROOT(TEST) cmocka_unit_test_setup_teardown(TEST, set_up_root, tear_down_root)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backend_find),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_open_refuses),
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_alloc_refuses),
        cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_sync_reports_the_first_error_once),
        cmocka_unit_test(test_row_ops),
        cmocka_unit_test(test_comm_self),
        WITH_ROOT(test_memory_without_cgroups),
        WITH_ROOT(test_memory_cgroup_v2),
        WITH_ROOT(test_memory_cgroup_v1),
        WITH_ROOT(test_memory_cgroup_mounted_from_below),
        cmocka_unit_test(test_memory_of_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
