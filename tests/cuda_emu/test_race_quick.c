/* test_race_quick.c - the kernels under the race detector, as far as seconds go: some tests of
 * tests/kernels/cuda, on the plug-in that has it. `make emu-racecheck` runs all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { OUTPUT_BYTES = 16 << 10 };

static char build[4200]; /* "build" for "build/tests/cuda_emu/test_race_quick" */
static char plugin[4300];

/* What the program prints goes to `output`; 0 where it passed. */
static int run(const char *program, const char *filter, char output[OUTPUT_BYTES])
{
    char path[4400];
    int pipe_ends[2], status;
    snprintf(path, sizeof path, "%s/tests/kernels/cuda/%s", build, program);
    assert_int_equal(pipe(pipe_ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(pipe_ends[1], 1);
        dup2(pipe_ends[1], 2);
        close(pipe_ends[0]);
        setenv("INFERD_TEST_PLUGIN", plugin, 1);
        setenv("INFERD_TEST_FILTER", filter, 1);
        execl(path, program, (char *)NULL);
        _exit(127);
    }
    close(pipe_ends[1]);
    size_t used = 0;
    for (;;) {
        char more[1024];
        const ssize_t n = read(pipe_ends[0], more, sizeof more);
        if (n <= 0)
            break;
        const size_t room = OUTPUT_BYTES - 1 - used;
        const size_t taken = (size_t)n < room ? (size_t)n : room;
        memcpy(output + used, more, taken);
        used += taken;
    }
    output[used] = '\0';
    close(pipe_ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void check(const char *program, const char *filter)
{
    char output[OUTPUT_BYTES];
    if (access(plugin, R_OK) != 0) {
        printf("skip: a build with a sanitizer has no race detector\n");
        skip();
    }
    const int status = run(program, filter, output);
    if (status != 0 || !strstr(output, "[  PASSED  ]") || strstr(output, "[  PASSED  ] 0 "))
        fail_msg("%s, %s: status 0x%x\n%s", program, filter, (unsigned)status, output);
}

static void linears(void **state)
{
    (void)state;
    check("test_linear_cuda", "*");
    check("test_linear_codes", "*");
}

static void attention(void **state)
{
    (void)state;
    check("test_attention_cuda", "empty_queries");
    check("test_attention_cuda", "bytes_are_the_cpus");
    check("test_attention_mla_cuda", "empty_queries");
}

static void mixtures(void **state)
{
    (void)state;
    check("test_moe_cuda", "one_expert_for_all");
    check("test_moe_cuda", "the_choice");
}

static void sampling_and_others(void **state)
{
    (void)state;
    check("test_sampling_cuda", "*");
    check("test_backend_cuda", "*");
}

int main(void)
{
    const ssize_t n = readlink("/proc/self/exe", build, 4000);
    char *tests = n > 0 ? strstr(build, "/tests/cuda_emu/test_race_quick") : NULL;
    if (!tests)
        return 1;
    *tests = '\0';
    snprintf(plugin, sizeof plugin, "%s/inferd_cuda_emu_racecheck.so", build);
    const struct CMUnitTest rows[] = {
        cmocka_unit_test(linears),
        cmocka_unit_test(attention),
        cmocka_unit_test(mixtures),
        cmocka_unit_test(sampling_and_others),
    };
    return cmocka_run_group_tests(rows, NULL, NULL);
}
