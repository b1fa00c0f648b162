/* plugin_path.h - the CUDA plug-in that tests use: inferd_cuda_emu.so of the same build, the
 * kernels on an emulated device; INFERD_TEST_PLUGIN names another, inferd_cuda.so for a real one or
 * inferd_cuda_emu_racecheck.so. */
#ifndef INFERD_TESTS_KERNELS_CUDA_PLUGIN_PATH_H
#define INFERD_TESTS_KERNELS_CUDA_PLUGIN_PATH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* "build/inferd_cuda_emu.so" for "build/tests/kernels/cuda/test_x". */
static inline const char *gpu_plugin_path(void)
{
    static char path[4200];
    const char *wanted = getenv("INFERD_TEST_PLUGIN");
    if (wanted)
        return wanted;
    ssize_t n = readlink("/proc/self/exe", path, 4000);
    assert_true(n > 0);
    path[n] = '\0';
    char *tests = strstr(path, "/tests/");
    for (char *next = tests; next; next = strstr(next + 1, "/tests/"))
        tests = next;
    assert_non_null(tests);
    strcpy(tests, "/inferd_cuda_emu.so");
    return path;
}

/* Where the executor looks for the plug-in, beside the program, there is a link to it from then on:
 * other programs there may be using it. */
static inline const char *gpu_link_plugin(void)
{
    static char path[4200], there[4200];
    ssize_t n = readlink("/proc/self/exe", path, 4000);
    assert_true(n > 0);
    path[n] = '\0';
    strcpy(strrchr(path, '/') + 1, "inferd_cuda.so");
    if (symlink(gpu_plugin_path(), path) != 0) {
        n = readlink(path, there, sizeof there - 1);
        assert_true(n > 0);
        there[n] = '\0';
        assert_string_equal(there, gpu_plugin_path());
    }
    return path;
}

static inline bool gpu_is_emulated(void)
{
    const char *wanted = getenv("INFERD_TEST_PLUGIN");
    return !wanted || strstr(wanted, "_cuda_emu");
}

#endif
