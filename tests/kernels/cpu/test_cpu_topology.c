/* test_cpu_topology.c - CPUs of a made-up machine come in the order of its nodes and cores, and
 * shares of them are equal and do not overlap. */
#include "kernels/cpu/cpu_topology.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NUM_CPUS = 8 };

static char root[] = P_tmpdir "/inferd-topology-XXXXXX";

/* Two nodes of two cores of two threads each; numbered as machines do, siblings last. CPU 7 is on
 * node 1 with no topology told. */
static int make_machine(void **state)
{
    char command[512];
    (void)state;
    if (!mkdtemp(root))
        return -1;
    for (int cpu = 0; cpu < NUM_CPUS; cpu++) {
        int core = cpu % 4, node = core % 2;
        snprintf(command, sizeof command,
                 "d='%s/sys/devices/system/cpu/cpu%d' && mkdir -p \"$d/topology\" \"$d/node%d\" && "
                 "echo %d > \"$d/topology/core_id\" && "
                 "echo %d > \"$d/topology/physical_package_id\"",
                 root, cpu, node, core, node);
        if (system(command) != 0)
            return -1;
    }
    snprintf(command, sizeof command, "rm -r '%s/sys/devices/system/cpu/cpu7/topology'", root);
    return system(command);
}

static int remove_machine(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static void test_neighbours_stand_together(void **state)
{
    (void)state;
    int32_t cpus[NUM_CPUS] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    /* Node 0: cores 0 and 2; node 1: what tells nothing, then cores 1 and 3. */
    const int32_t expected[NUM_CPUS] = { 0, 4, 2, 6, 7, 1, 5, 3 };
    cpu_topology_sort(root, cpus, NUM_CPUS);
    assert_memory_equal(cpus, expected, sizeof expected);
}

static void test_without_sys_numbers_decide(void **state)
{
    (void)state;
    int32_t cpus[3] = { 9, 4, 7 };
    const int32_t expected[3] = { 4, 7, 9 };
    cpu_topology_sort("/nonexistent", cpus, 3);
    assert_memory_equal(cpus, expected, sizeof expected);
    cpu_topology_sort(root, cpus, 0);
}

static void test_shares_are_apart(void **state)
{
    (void)state;
    for (int32_t count = 1; count <= 9; count++)
        for (int32_t shares = 1; shares <= count; shares++) {
            int32_t next = 0, total = 0;
            for (int32_t s = 0; s < shares; s++) {
                int32_t cpus[9] = { 0, 1, 2, 3, 4, 5, 6, 7, 8 };
                int32_t n = cpu_topology_share(cpus, count, s, shares);
                assert_int_equal(n, count / shares);
                assert_true(cpus[0] >= next);
                for (int32_t i = 1; i < n; i++)
                    assert_int_equal(cpus[i], cpus[0] + i);
                next = cpus[0] + n;
                total += n;
            }
            assert_true(next <= count && total > count - shares);
        }
}

static void test_more_shares_than_cpus(void **state)
{
    (void)state;
    for (int32_t s = 0; s < 5; s++) {
        int32_t cpus[2] = { 3, 6 };
        assert_int_equal(cpu_topology_share(cpus, 2, s, 5), 1);
        assert_int_equal(cpus[0], s % 2 ? 6 : 3);
    }
    assert_int_equal(cpu_topology_share(NULL, 0, 0, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours_stand_together),
        cmocka_unit_test(test_without_sys_numbers_decide),
        cmocka_unit_test(test_shares_are_apart),
        cmocka_unit_test(test_more_shares_than_cpus),
    };
    return cmocka_run_group_tests(tests, make_machine, remove_machine);
}
