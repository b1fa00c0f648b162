/* test_qwen3_moe.c - which layers have experts, what a config.json with experts may not say, and
 * that such a model is planned exactly and runs with dummy weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/config_helper.h"
#include "tests/engine/model/model_helper.h"

#include <math.h>

#define QWEN3                                                                                      \
    "\"architectures\":[\"Qwen3MoeForCausalLM\"],\"num_hidden_layers\":4,"                         \
    "\"moe_intermediate_size\":20,\"num_experts_per_tok\":3"
#define QWEN2                                                                                      \
    "\"architectures\":[\"Qwen2MoeForCausalLM\"],\"moe_intermediate_size\":20,"                    \
    "\"shared_expert_intermediate_size\":24,\"attention_bias\":\"-\""

static void expect_layers(const char *patch, const char *expected)
{
    struct decoder_desc d = desc_of(patch);
    assert_int_equal((size_t)d.num_hidden_layers, strlen(expected));
    for (int32_t i = 0; i < d.num_hidden_layers; i++)
        assert_int_equal(d.layers[i].moe, expected[i] == 'x');
}

static void test_layers_with_experts(void **state)
{
    (void)state;
    expect_layers("{" QWEN3 ",\"num_experts\":5}", "xxxx");
    expect_layers("{" QWEN3 ",\"num_local_experts\":5,\"mlp_only_layers\":[0,2]}", ".x.x");
    expect_layers("{" QWEN3 ",\"num_experts\":5,\"decoder_sparse_step\":2}", ".x.x");
    expect_layers("{" QWEN3 ",\"num_experts\":5,\"decoder_sparse_step\":3,\"mlp_only_layers\":[]}",
                  "..x.");
    expect_layers("{}", ".....");
    assert_int_equal(desc_of("{" QWEN3 ",\"num_local_experts\":5}").num_experts, 5);
}

static void test_refused(void **state)
{
    (void)state;
    expect_config_refused("{" QWEN3 "}", "num_experts");
    expect_config_refused("{" QWEN3 ",\"num_experts\":2}", "num_experts_per_tok 3");
    expect_config_refused("{" QWEN3 ",\"num_experts\":1025}", "num_experts");
    expect_config_refused("{" QWEN3 ",\"num_experts\":0}", "num_experts");
    expect_config_refused("{" QWEN3 ",\"num_experts\":8,\"num_local_experts\":9}",
                          "num_local_experts is 9");
    expect_config_refused("{" QWEN3 ",\"num_experts\":8,\"mlp_only_layers\":[4]}",
                          "mlp_only_layers");
    expect_config_refused("{" QWEN3 ",\"num_experts\":8,\"mlp_only_layers\":7}", "mlp_only_layers");
    expect_config_refused("{" QWEN3 ",\"num_experts\":8,\"decoder_sparse_step\":0}",
                          "decoder_sparse_step");
    expect_config_refused("{" QWEN2 ",\"num_experts\":8,\"use_sliding_window\":true}",
                          "layer_types");
}

/* Parameters counted by hand: qwen3 with 5 experts of 3 * 20 * 64 in two layers of four. */
static void test_slots(void **state)
{
    struct decoder_desc d = desc_of("{" QWEN3 ",\"num_experts\":5,\"mlp_only_layers\":[0,2]}");
    (void)state;
    struct weight_shape s = weight_slot_shape(&d, W_EXPERT_GATE_UP);
    assert_true(s.present && s.num_experts == 5 && s.rows == 40 && s.cols == 64);
    s = weight_slot_shape(&d, W_EXPERT_DOWN);
    assert_true(s.present && s.num_experts == 5 && s.rows == 64 && s.cols == 20);
    s = weight_slot_shape(&d, W_ROUTER);
    assert_true(s.present && s.num_experts == 1 && s.rows == 5 && s.cols == 64);
    assert_false(weight_slot_shape(&d, W_SHARED_EXPERT_GATE).present);
    assert_true(weight_slot_in_layer(&d, W_GATE_UP, 0));
    assert_false(weight_slot_in_layer(&d, W_GATE_UP, 1));
    assert_false(weight_slot_in_layer(&d, W_EXPERT_DOWN, 0));
    assert_true(weight_slot_in_layer(&d, W_EXPERT_DOWN, 1));
    assert_true(weight_slot_in_layer(&d, W_MLP_OUT_NORM, 0));
    d = desc_of("{" QWEN3 ",\"num_experts\":5}");
    assert_false(weight_slot_shape(&d, W_GATE_UP).present);
    d = desc_of("{}");
    assert_false(weight_slot_shape(&d, W_ROUTER).present);
}

static void write_config(const char *dir, const char *patch)
{
    char path[96];
    json_t *config = patched_config(patch);
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
}

static void check_dummy(const char *patch)
{
    char dir[] = "/tmp/inferd-moe-XXXXXX";
    struct rig r;
    int32_t ids[20];
    struct weights_size planned;
    struct status st;
    assert_non_null(mkdtemp(dir));
    write_config(dir, patch);
    rig_open(&r, dir, "dummy", "bfloat16", "auto");
    assert_true(weights_plan(r.model, r.device, &planned, &st));
    assert_int_equal(planned.bytes, r.weights->size.bytes);
    assert_true(planned.bytes >= 2 * (size_t)model_num_parameters(r.model));
    for (int32_t i = 0; i < 20; i++)
        ids[i] = i * 7;
    const struct tensor *logits = rig_step(&r, &(struct rig_span){ 0, ids, 20 }, 1);
    double squares = 0;
    for (int32_t i = 0; i < 20; i++)
        for (int32_t k = 0; k < logits->cols; k++)
            squares += (double)logits_row(logits, i)[k] * (double)logits_row(logits, i)[k];
    double deviation = sqrt(squares / (20.0 * logits->cols));
    assert_true(deviation > 0.1 && deviation < 10);
    rig_close(&r);
    remove_dir(dir);
}

static void test_dummy_weights(void **state)
{
    (void)state;
    check_dummy("{" QWEN3 ",\"num_experts\":5,\"mlp_only_layers\":[0,2]}");
    check_dummy("{" QWEN2 ",\"num_experts\":6}");
}

static void test_published_shape(void **state)
{
    struct model *m;
    struct status st;
    struct model_options options = { .path = "../shared/shapes/qwen3-30b-a3b",
                                     .load_format = "dummy",
                                     .dtype = "auto" };
    (void)state;
    if (!file_exists("../shared/shapes/qwen3-30b-a3b/config.json")) {
        print_message("skip: there is no ../shared/shapes/qwen3-30b-a3b\n");
        skip();
    }
    if (!model_open(&options, &m, &st))
        fail_msg("%s", st.message);
    /* 48 layers of q, k, v, o, norms and 128 experts; embedding, head and last norm. */
    int64_t layer =
        2048LL * (4096 + 2 * 512 + 4096) + 2 * 2048 + 2 * 128 + 128 * 2048 + 128LL * 3 * 768 * 2048;
    assert_int_equal(model_num_parameters(m), 48 * layer + 2LL * 151936 * 2048 + 2048);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers_with_experts),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_dummy_weights),
        cmocka_unit_test(test_published_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
