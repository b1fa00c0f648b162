/* test_arch_cuda.c - every architecture on the CUDA backend against transformers: the tiny models
 * of test_arch_parity.c, their logits within the bound that the CPU's have, the same greedy tokens.
 *
 * An emulated device takes its time: by default each model has one prompt and a few tokens there.
 * INFERD_TEST_ALL=1 runs all of both; a real device always does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/plugin.h"
#include "tests/engine/model/arch_fixture.h"
#include "tests/kernels/cuda/plugin_path.h"

static const struct backend *cuda;

static int load_plugin(void **state)
{
    struct status st;
    (void)state;
    cuda = backend_load(gpu_plugin_path(), &st);
    if (!cuda)
        rig_fail(gpu_plugin_path(), &st);
    return 0;
}

static void float32_goldens(void **state)
{
    const bool all = getenv("INFERD_TEST_ALL") || !gpu_is_emulated();
    const size_t num_prompts = all ? 2 : 1;
    (void)state;
    for (int i = 0; i < NUM_ARCH_MODELS; i++) {
        struct fixture f;
        json_t *prompt;
        size_t p;
        double worst = 0;
        if (strncmp(arch_models[i], "deepseek", 8) == 0)
            continue;
        fixture_open(&f, arch_models[i]);
        for (p = 0; p < num_prompts; p++) {
            prompt = json_array_get(json_object_get(f.golden, "prompts"), p);
            assert_non_null(prompt);
            worst =
                fmax(worst, prompt_error_on(f.dir, prompt, cuda, "scalar", all ? NUM_GREEDY : 8));
        }
        print_message("%s: worst difference %.2g of the range\n", arch_models[i], worst);
        assert_true(worst <= 1e-4);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_goldens),
    };
    return cmocka_run_group_tests(tests, load_plugin, NULL);
}
