/* test_gpu_profile.c - names are found as people write them; what is planned for cannot be run. */
#include "kernels/profile/gpu_profile.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void test_names(void **state)
{
    static const char *const same[] = { "RTX 4090", "rtx4090", "RTX-4090", "rtx_40 90" };
    (void)state;
    const struct gpu_profile *p = gpu_profile_find("RTX 4090");
    assert_non_null(p);
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        assert_ptr_equal(gpu_profile_find(same[i]), p);
    static const char *const unknown[] = { "", "RTX", "RTX 40900", "cuda", "cpu", "auto" };
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_null(gpu_profile_find(unknown[i]));
    assert_null(gpu_profile_find(NULL));
}

static void test_every_profile_opens(void **state)
{
    struct buf names;
    char name[64];
    int count = 0;
    (void)state;
    buf_init(&names, 0);
    gpu_profile_list(&names);
    for (const char *at = buf_str(&names); *at; count++) {
        size_t len = strcspn(at, ",");
        assert_true(len < sizeof name);
        memcpy(name, at, len);
        name[len] = '\0';
        at += at[len] ? len + 2 : len;
        const struct gpu_profile *p = gpu_profile_find(name);
        struct device *d;
        struct status st;
        struct memory_info memory;
        struct buffer buffer;
        assert_non_null(p);
        assert_true(gpu_profile_open(p, &d, &st));
        assert_true(d->backend->caps & BACKEND_PLAN_ONLY);
        assert_true(d->backend->memory_info(d, &memory, &st));
        assert_true(memory.available_bytes < memory.total_bytes);
        assert_true(memory.total_bytes >> 30 >= 20 && memory.total_bytes >> 30 < 300);
        assert_false(d->backend->alloc(d, &buffer, 1, MEMORY_DEVICE, &st));
        assert_non_null(strstr(st.message, name));
        d->backend->close(d);
    }
    buf_free(&names);
    assert_true(count >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_every_profile_opens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
