/* test_quant_config.c - quantization_config and the tensors that do not fit it: each an error that
 * names what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/hf_config.h"
#include "engine/model/safetensors.h"
#include "engine/model/tensor_map.h"
#include "tests/engine/model/model_helper.h"

static void expect_words(const struct status *st, const char *words)
{
    if (!strstr(st->message, words))
        fail_msg("\"%s\" does not hold \"%s\"", st->message, words);
}

/* `text` is a quantization_config. */
static bool read_config(const char *text, struct quant_config **out, struct status *st)
{
    json_t *config =
        json_pack("{s:o}", "quantization_config", json_loads(text, JSON_DECODE_ANY, NULL));
    bool ok = quant_config_read(config, out, st);
    json_decref(config);
    return ok;
}

static void test_configurations_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "7", "quantization_config is 7" },
        { "{}", "quant_method (nothing), which is not supported; supported: awq, gptq, fp8" },
        { "{\"quant_method\":\"aqlm\"}", "quant_method \"aqlm\", which is not supported" },
        { "{\"quant_method\":\"awq\",\"bits\":8}",
          "bits is 8, which is not supported; supported: 4" },
        { "{\"quant_method\":\"awq\",\"bits\":\"4\"}", "bits is \"4\", expected a whole number" },
        { "{\"quant_method\":\"awq\",\"version\":\"gemv\"}", "version is \"gemv\"" },
        { "{\"quant_method\":\"awq\",\"zero_point\":false}", "zero_point is false" },
        { "{\"quant_method\":\"gptq\",\"bits\":3}", "bits is 3, which is not supported" },
        { "{\"quant_method\":\"gptq\",\"group_size\":0}",
          "group_size is 0, expected -1 or a size" },
        { "{\"quant_method\":\"gptq\",\"group_size\":-2}", "group_size is -2" },
        { "{\"quant_method\":\"gptq\",\"group_size\":4294967424}", "group_size is 4294967424" },
        { "{\"quant_method\":\"gptq\",\"desc_act\":1}", "desc_act is 1, expected true or false" },
        { "{\"quant_method\":\"gptq\",\"checkpoint_format\":\"marlin\"}",
          "checkpoint_format is \"marlin\"" },
        { "{\"quant_method\":\"gptq\",\"dynamic\":{\"+:.*down.*\":{\"bits\":8}}}", "dynamic is" },
        { "{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}", "weight_block_size is [128]" },
        { "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,0]}", "weight_block_size is" },
        { "{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\"}", "fmt is \"e5m2\"" },
        { "{\"quant_method\":\"fp8\",\"activation_scheme\":\"odd\"}", "activation_scheme is" },
        { "{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true}",
          "load_in_4bit is (nothing)" },
        { "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}",
          "bnb_4bit_quant_type is (nothing), which is not supported; supported: nf4" },
        { "{\"quant_method\":\"compressed-tensors\"}", "config_groups is (nothing)" },
        { "{\"quant_method\":\"compressed-tensors\",\"config_groups\":{}}", "no group says" },
        { "{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"W4A16\":[\"Linear\"]}}",
          "config_groups holds [\"Linear\"]" },
        { "{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"config_"
          "groups\":"
          "{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":3}}}}",
          "num_bits is 3" },
        { "{\"quant_method\":\"compressed-tensors\",\"format\":\"nvfp4-pack-quantized\","
          "\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,"
          "\"type\":\"float\"}}}}",
          "format nvfp4-pack-quantized with weights of type float is not supported" },
        { "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\",\"config_groups\":"
          "{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"strategy\":\"token\"}}}}",
          "strategy is \"token\"" },
        { "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\",\"config_groups\":"
          "{\"g\":{\"targets\":[],\"weights\":{}}}}",
          "targets is []" },
        { "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\",\"config_groups\":"
          "{\"g\":{\"targets\":[\"re:(a{99999})\"],\"weights\":{}}}}",
          "no expression that is supported" },
        { "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\",\"config_groups\":"
          "{\"g\":{\"targets\":[\"re:(\"],\"weights\":{}}}}",
          "no expression that is supported" },
        { "{\"quant_method\":\"compressed-tensors\",\"sparsity_config\":{\"format\":"
          "\"sparse-24-bitmask\"},\"config_groups\":{}}",
          "sparsity_config is" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct quant_config *q = NULL;
        struct status st = { 0 };
        if (read_config(cases[i].text, &q, &st))
            fail_msg("%s was taken", cases[i].text);
        assert_null(q);
        expect_words(&st, cases[i].words);
    }
}

static void test_schemes_by_target(void **state)
{
    struct quant_config *q = NULL;
    struct status st = { 0 };
    (void)state;
    assert_true(read_config(
        "{\"quant_method\":\"compressed-tensors\",\"format\":\"mixed-precision\",\"config_groups\":"
        "{"
        "\"a\":{\"targets\":[\"Linear\"],\"format\":\"int-quantized\",\"weights\":{\"strategy\":"
        "\"channel\"}},\"b\":{\"targets\":[\"re:.*mlp\\\\.(gate|up)_proj$\",\"model.x\"],"
        "\"format\":"
        "\"pack-quantized\",\"weights\":{\"num_bits\":4,\"group_size\":32}}}}",
        &q, &st));
    assert_int_equal(quant_config_scheme(q, "model.layers.0.mlp.up_proj")->bits, 4);
    assert_int_equal(quant_config_scheme(q, "model.x")->group_size, 32);
    assert_int_equal(quant_config_scheme(q, "model.layers.0.mlp.up_proj2")->bits, 8);
    assert_ptr_equal(quant_config_scheme(q, "lm_head")->layout, &quant_layout_int8);
    assert_true(quant_config_ignores(q, "model.layers.0.self_attn.q_proj.input_scale"));
    assert_false(quant_config_ignores(q, "model.layers.0.weight_scale"));
    quant_config_free(q);
    assert_true(read_config("null", &q, &st));
    assert_null(q);
}

/* --- tensors -----------------------------------------------------------------------------------
 */

/* One of tests/golden/quant with a changed quantization_config and tensors. */
struct changed {
    const char *name;   /* of the case */
    const char *config; /* merged into its quantization_config; NULL: as it is */
    const char *tensor; /* after "model.layers.0."; NULL: as they are */
    const char *entry;  /* merged into its entry of the header; NULL: taken away */
    const char *words;
};

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    unsigned char *data = malloc(*size);
    assert_int_equal(fread(data, 1, *size, f), *size);
    fclose(f);
    return data;
}

/* A changed entry may cut its tensor short: what is left over becomes a tensor that is ignored. */
static void change_header(json_t *header, const struct changed *c)
{
    char name[128];
    if (!c->tensor)
        return;
    snprintf(name, sizeof name, "model.layers.0.%s", c->tensor);
    json_t *entry = json_object_get(header, name);
    assert_non_null(entry);
    json_t *rest = json_deep_copy(entry);
    json_t *offsets = json_object_get(rest, "data_offsets");
    json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    json_int_t end = json_integer_value(json_array_get(offsets, 1));
    if (c->entry) {
        json_t *patch = json_loads(c->entry, 0, NULL);
        json_object_update(entry, patch);
        json_int_t bytes = json_integer_value(json_object_get(patch, "bytes"));
        json_object_del(entry, "bytes");
        if (bytes > 0) {
            begin += bytes;
            json_object_set_new(entry, "data_offsets", json_pack("[I,I]", begin - bytes, begin));
        } else {
            begin = end;
        }
        json_decref(patch);
    } else {
        json_object_del(header, name);
    }
    json_object_set_new(rest, "dtype", json_string("U8"));
    json_object_set_new(rest, "shape", json_pack("[I]", end - begin));
    json_object_set_new(rest, "data_offsets", json_pack("[I,I]", begin, end));
    json_object_set_new(header, "model.layers.0.self_attn.rotary_emb.inv_freq", rest);
}

static void map_changed(const struct changed *c, struct status *st)
{
    char path[128];
    size_t size;
    uint64_t len;
    struct hf_config hf;
    struct decoder_desc desc;
    struct quant_config *quant = NULL;
    struct tensor_map map = { 0 };
    snprintf(path, sizeof path, "tests/golden/quant/%s/config.json", c->name);
    json_t *config = load_json(path);
    if (c->config) {
        json_t *patch = json_loads(c->config, 0, NULL);
        json_object_update(json_object_get(config, "quantization_config"), patch);
        json_decref(patch);
    }
    snprintf(path, sizeof path, "tests/golden/quant/%s/model.safetensors", c->name);
    unsigned char *file = read_file(path, &size);
    memcpy(&len, file, sizeof len);
    json_t *header = json_loadb((char *)file + 8, len, 0, NULL);
    change_header(header, c);
    char *text = json_dumps(header, 0);
    size_t text_len = strlen(text), total = 8 + text_len + size - 8 - len;
    unsigned char *data = malloc(total);
    memcpy(data, &(uint64_t){ text_len }, 8);
    memcpy(data + 8, text, text_len);
    memcpy(data + 8 + text_len, file + 8 + len, size - 8 - len);
    struct checkpoint *checkpoint = checkpoint_new();
    const struct checkpoint_file *mapped = checkpoint_use_memory(checkpoint, "x", data, total);
    if (!safetensors_read_header(checkpoint, mapped, st) || !checkpoint_seal(checkpoint, st) ||
        !hf_config_read(config, &desc, &hf, st))
        fail_msg("%s: %s", c->name, st->message);
    bool ok = quant_config_read(config, &quant, st) &&
              tensor_map_make(hf.arch, &desc, checkpoint, quant, &map, st);
    for (size_t i = 0; ok && i < map.count; i++) {
        const struct quant_source *s = map.entries[i].quant;
        int32_t order[128];
        ok = !s || ((!s->scheme->layout->check_values || s->scheme->layout->check_values(s, st)) &&
                    (!s->has_order || quant_source_order(s, order, st)));
    }
    if (ok && c->words)
        fail_msg("%s with %s: taken, though %s", c->name, c->tensor ? c->tensor : c->config,
                 c->words);
    if (!ok && !c->words)
        fail_msg("%s with %s: %s", c->name, c->tensor, st->message);
    tensor_map_free(&map);
    quant_config_free(quant);
    checkpoint_close(checkpoint);
    free(data);
    free(text);
    free(file);
    json_decref(header);
    json_decref(config);
}

static void test_tensors_refused(void **state)
{
    static const struct changed cases[] = {
        { "awq_g32", NULL, "mlp.up_proj.qzeros", NULL,
          "'model.layers.0.mlp.up_proj.qzeros' is missing; quantization_config of config.json says "
          "awq" },
        { "awq_g32", NULL, "mlp.up_proj.qweight", NULL,
          "'model.layers.0.mlp.up_proj.weight' is missing" },
        { "awq_g32", "{\"group_size\":48}", NULL, NULL, "group_size of 48 does not divide" },
        { "awq_g32", "{\"group_size\":128}", NULL, NULL, "group_size of 128 is more than" },
        { "awq_g32", "{\"group_size\":16}", NULL, NULL,
          "qzeros' has shape [2, 8]; as awq with a weight of [64, 64] it must have [4, 8]" },
        { "awq_g32", NULL, "mlp.up_proj.scales", "{\"dtype\":\"I16\"}",
          "scales' is of dtype I16, awq needs F32, BF16 or F16" },
        { "awq_g32", NULL, "mlp.up_proj.qweight", "{\"shape\":[32,24]}", "qweight' has shape" },
        { "awq_g32", NULL, "mlp.up_proj.qweight", "{\"dtype\":\"U32\"}", "is of dtype U32" },
        { "gptq_4bit_g32_sym", "{\"bits\":8}", NULL, NULL, "qweight' has shape [8, 64]" },
        { "gptq_4bit_g32_sym", NULL, "mlp.up_proj.scales", NULL, "up_proj.scales' is missing" },
        { "gptq_4bit_g32_sym", NULL, "mlp.up_proj.g_idx", NULL, NULL },
        { "gptq_4bit_g16_act_order", "{\"desc_act\":false}", NULL, NULL, "without desc_act" },
        { "gptq_4bit_g16_act_order", NULL, "mlp.up_proj.g_idx", "{\"bytes\":128,\"shape\":[32]}",
          "g_idx' has shape [32]" },
        { "gptq_8bit_g32_act_order", "{\"group_size\":64}", NULL, NULL, "qzeros' has shape" },
        { "ct_w4a16_g32", NULL, "mlp.up_proj.weight_scale", NULL, "weight_scale' is missing" },
        { "ct_w4a16_g32_asym", NULL, "mlp.up_proj.weight_zero_point", NULL,
          "weight_zero_point' is missing; quantization_config says that weights are not "
          "symmetric" },
        { "ct_w8a8_int8_asym", NULL, "mlp.up_proj.weight_zero_point", "{\"dtype\":\"U8\"}",
          "is of dtype U8, not I8" },
        { "ct_fp8_dynamic", NULL, "mlp.up_proj.weight_scale", NULL, "weight_scale' is missing" },
        { "ct_fp8_dynamic", NULL, "mlp.up_proj.weight", "{\"dtype\":\"F8_E5M2\"}",
          "is of dtype F8_E5M2, fp8 needs F8_E4M3" },
        { "ct_fp8_dynamic", NULL, "mlp.up_proj.weight_scale", "{\"shape\":[48,2]}",
          "weight_scale' has shape [48, 2]" },
        { "fp8_block", "{\"weight_block_size\":[32,32]}", NULL, NULL,
          "weight_scale_inv' has shape" },
        { "bnb_nf4", NULL, "mlp.up_proj.weight.absmax", NULL, "weight.absmax' is missing" },
        { "bnb_nf4", NULL, "mlp.up_proj.weight.quant_map", "{\"bytes\":32,\"shape\":[8]}",
          "quant_map' has shape [8]" },
        { "bnb_nf4_double", NULL, "mlp.up_proj.weight.nested_quant_map", NULL,
          "nested_quant_map' is missing" },
        { "bnb_nf4_double", NULL, "mlp.up_proj.weight.nested_absmax", NULL, "is of dtype U8" },
        { "bnb_nf4", NULL, "mlp.up_proj.weight.quant_state.bitsandbytes__nf4",
          "{\"bytes\":1,\"shape\":[1]}", "quant_state.bitsandbytes__nf4" },
        { "mxfp4", NULL, "mlp.experts.gate_up_proj_scales", NULL,
          "'model.layers.0.mlp.experts.gate_up_proj_scales' is missing; quantization_config of "
          "config.json says mxfp4" },
        { "mxfp4", NULL, "mlp.experts.down_proj_blocks", NULL,
          "'model.layers.0.mlp.experts.down_proj' is missing" },
        { "mxfp4", NULL, "mlp.experts.down_proj_blocks", "{\"shape\":[3,64,16,3]}",
          "down_proj_blocks' has shape [3, 64, 16, 3]; as mxfp4 with a weight of [64, 96] it must "
          "have [3, 64, 3, 16]" },
        { "mxfp4", NULL, "mlp.experts.down_proj_scales", "{\"shape\":[192,3]}",
          "down_proj_scales' has shape [192, 3]" },
        { "mxfp4", NULL, "mlp.experts.down_proj_scales", "{\"dtype\":\"I8\"}",
          "down_proj_scales' is of dtype I8, mxfp4 needs U8" },
        { "mxfp4", NULL, "mlp.experts.down_proj_blocks",
          "{\"dtype\":\"F32\",\"bytes\":9216,"
          "\"shape\":[3,64,3,4]}",
          "down_proj_blocks' has shape [3, 64, 3, 4]" },
        { "bnb_nf4", "{\"quant_method\":\"awq\"}", NULL, NULL,
          "q_proj.weight' has shape [2048, 1]" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct status st = { 0 };
        map_changed(&cases[i], &st);
        if (cases[i].words)
            expect_words(&st, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_configurations_refused),
        cmocka_unit_test(test_schemes_by_target),
        cmocka_unit_test(test_tensors_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
