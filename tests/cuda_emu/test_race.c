/* test_race.c - the race detector of the emulated device finds what is wrong in kernels made for
 * it, names where, and says nothing of right ones. */
#include "tests/cuda_emu/race_control.h"
#include "tests/cuda_emu/race_kernels.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <dlfcn.h>

/* Sets of hazards. */
enum {
    NOTHING = 0,
    IN_BLOCK = 1 << EMU_RACE_IN_BLOCK,
    AROUND_EXCHANGE = 1 << EMU_RACE_AROUND_EXCHANGE,
    BETWEEN_BLOCKS = 1 << EMU_RACE_BETWEEN_BLOCKS,
    WITH_COPY = 1 << EMU_RACE_WITH_COPY,
    OF_NOTHING = 1 << EMU_READ_OF_NOTHING,
};

static void (*run_kernel)(const char *, int *);
static void (*set_listener)(void (*)(enum emu_hazard, const char *));
static void (*set_seed)(unsigned long);
static void (*begin_profile)(void);
static void (*end_profile)(const char *);

static struct {
    int hazards; /* a set */
    char first[4096];
} found;

static void note(enum emu_hazard hazard, const char *report)
{
    if (found.hazards == NOTHING)
        snprintf(found.first, sizeof found.first, "%s", report);
    found.hazards |= 1 << hazard;
}

static void run(const char *name, int *out, unsigned long seed)
{
    if (!run_kernel) {
        printf("skip: a build with a sanitizer has no race detector\n");
        skip();
    }
    memset(&found, 0, sizeof found);
    set_listener(note);
    set_seed(seed);
    run_kernel(name, out);
}

struct row {
    const char *kernel;
    int hazards; /* any of them, and no other */
};

static void each_kernel(void **state)
{
    (void)state;
    const struct row rows[] = {
        { "barriers", NOTHING },
        { "no barrier before the reads", IN_BLOCK },
        { "no barrier after the reads", IN_BLOCK },
        { "halves of words", NOTHING },
        { "all written", NOTHING },
        { "one not written", OF_NOTHING },
        { "syncwarp", NOTHING },
        { "shuffle only", AROUND_EXCHANGE },
        { "no syncwarp", IN_BLOCK },
        { "syncwarp for other warps", IN_BLOCK },
        { "copies", NOTHING },
        { "copies without barrier", IN_BLOCK | WITH_COPY },
        { "copies without wait", WITH_COPY },
        { "copies with too short a wait", WITH_COPY },
        { "own copy without wait", WITH_COPY },
        { "copies over", NOTHING },
        { "copies over what is read", IN_BLOCK },
        { "source written after the wait", NOTHING },
        { "source written before the wait", WITH_COPY },
        { "fragments", NOTHING },
        { "fragments without syncwarp", AROUND_EXCHANGE },
        { "blocks write the same place", BETWEEN_BLOCKS },
        { "blocks read what others write", BETWEEN_BLOCKS },
        { "blocks write their own places", NOTHING },
        { "blocks count", NOTHING },
        { "volatile stores", NOTHING },
        { "count and set", IN_BLOCK },
        { "last block", NOTHING },
        { "last block without release", BETWEEN_BLOCKS },
        { "last block without acquire", BETWEEN_BLOCKS },
        { "last word", NOTHING },
    };
    int out[RACE_KERNELS_OUT];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (unsigned long seed = 1; seed <= 5; seed++) {
            run(rows[i].kernel, out, seed);
            if ((rows[i].hazards == NOTHING) != (found.hazards == NOTHING) ||
                (found.hazards & ~rows[i].hazards))
                fail_msg("%s, seed %lu: hazards 0x%x, not 0x%x; the first:\n%s", rows[i].kernel,
                         seed, (unsigned)found.hazards, (unsigned)rows[i].hazards, found.first);
        }
}

/* Both places, with what they were inlined into, and the threads. */
static void what_a_report_says(void **state)
{
    (void)state;
    int out[RACE_KERNELS_OUT];
    run("no barrier before the reads", out, 1);
    const char *const words[] = { "nothing orders two threads of a block", "shared memory",
                                  " of block 0 ", "turn_over", "race_kernels.cu:" };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strstr(found.first, words[i]))
            fail_msg("no \"%s\" in\n%s", words[i], found.first);
    const char *reads = strstr(found.first, " reads\n"), *wrote = strstr(found.first, " wrote\n");
    const char *writes = strstr(found.first, " writes\n"), *read = strstr(found.first, " read\n");
    assert_true((reads && wrote) || (writes && read));
}

/* The block that adds gets what all have written; what nobody waits for is not there. */
static void what_is_computed(void **state)
{
    (void)state;
    int out[RACE_KERNELS_OUT];
    run("last block", out, 1);
    assert_int_equal(out[0], 5);
    assert_int_equal(out[1], 5 * 127 * 128 / 2);
    run("copies", out, 1);
    for (int i = 0; i < 128; i++)
        assert_int_equal(out[i], (i + 1) % 128);
    run("copies with too short a wait", out, 1);
    for (int i = 0; i < 128; i++)
        assert_int_equal(out[i], -1);
}

/* The same seed gives the same order; some other one another. */
static void orders(void **state)
{
    (void)state;
    int out[RACE_KERNELS_OUT], last = -1;
    bool differ = false;
    for (unsigned long seed = 1; seed <= 8; seed++) {
        run("last word", out, seed);
        const int word = out[0];
        run("last word", out, seed);
        assert_int_equal(out[0], word);
        differ = differ || (seed > 1 && word != last);
        last = word;
    }
    assert_true(differ);
}

/* The exit status of a program that runs the kernel with nobody listening; its stderr is closed. */
static int status_of(const char *kernel)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int out[RACE_KERNELS_OUT];
        close(2);
        signal(SIGABRT, SIG_DFL);
        set_listener(NULL);
        run_kernel(kernel, out);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void ends_the_program(void **state)
{
    (void)state;
    if (!run_kernel)
        skip();
    assert_int_equal(status_of("barriers"), 0);
    const int status = status_of("no barrier before the reads");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* Of 32 lanes that read a word of global memory each and write it to shared memory. */
static void check_profile(const char *kernel, const char *sectors, const char *wavefronts)
{
    char path[] = "/tmp/inferd-test-profile-XXXXXX", line[512];
    int out[RACE_KERNELS_OUT], found_lines = 0;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    begin_profile();
    run_kernel(kernel, out);
    end_profile(path);
    FILE *table = fdopen(fd, "r");
    while (fgets(line, sizeof line, table)) {
        const char *want = strstr(line, "read of global")    ? sectors
                           : strstr(line, "write of shared") ? wavefronts
                                                             : NULL;
        if (want && !strstr(line, want))
            fail_msg("%s: no \"%s\" in %s", kernel, want, line);
        found_lines += want != NULL && strncmp(line, "steps<", 6) == 0;
    }
    fclose(table);
    unlink(path);
    assert_int_equal(found_lines, 2);
}

static void what_memory_is_asked_for(void **state)
{
    (void)state;
    if (!run_kernel)
        skip();
    /* By one warp, 32 lanes, 128 bytes; what it takes, and the least. */
    check_profile("steps of 1", "\t1\t32.0\t128\t4\t4\n", "\t1\t32.0\t128\t1\t1\n");
    check_profile("steps of 8", "\t1\t32.0\t128\t32\t4\n", "\t1\t32.0\t128\t8\t1\n");
}

static int open_library(void **state)
{
    (void)state;
    char path[4200];
    const ssize_t n = readlink("/proc/self/exe", path, 4000);
    assert_true(n > 0);
    path[n] = '\0';
    char *tests = strstr(path, "/tests/cuda_emu/test_race");
    assert_non_null(tests);
    strcpy(tests, "/race_kernels.so");
    if (access(path, R_OK) != 0)
        return 0; /* run() skips */
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fail_msg("%s", dlerror());
    *(void **)&run_kernel = dlsym(library, "race_kernels_run");
    *(void **)&set_listener = dlsym(library, "emu_race_set_listener");
    *(void **)&set_seed = dlsym(library, "emu_race_set_seed");
    *(void **)&begin_profile = dlsym(library, "emu_profile_begin");
    *(void **)&end_profile = dlsym(library, "emu_profile_end");
    assert_true(run_kernel && set_listener && set_seed && begin_profile && end_profile);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kernel),      cmocka_unit_test(what_a_report_says),
        cmocka_unit_test(what_is_computed), cmocka_unit_test(orders),
        cmocka_unit_test(ends_the_program), cmocka_unit_test(what_memory_is_asked_for),
    };
    return cmocka_run_group_tests(tests, open_library, NULL);
}
