/* test_input_scales.c - which links have their activations rounded, with which static scale, and
 * what is wrong with one: on tests/golden/quant's checkpoints, whose scales are changed in place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/checkpoint_edit.h"

#include "engine/model/input_scales.h"

#include <math.h>

/* A copy of ct_fp8_static with layer 0's input_scale of `module` changed: to a number, or to be
 * that of a module that there is not. */
static void copy_checkpoint(char dir[64], const char *module, float scale, bool rename)
{
    char name[128];
    edit_copy(dir, "ct_fp8_static");
    snprintf(name, sizeof name, "model.layers.0.%s.input_scale", module);
    if (rename) {
        json_t *header = edit_read_header(dir);
        json_t *entry = json_incref(json_object_get(header, name));
        assert_int_equal(json_object_del(header, name), 0);
        name[strlen("model.layers.0.")] = 'x'; /* of the module's name */
        json_object_set_new(header, name, entry);
        edit_write_header(dir, header);
        json_decref(header);
    } else {
        uint16_t bits = bf16_from_f32(scale);
        edit_tensor(dir, name, &bits, sizeof bits, true);
    }
}

/* Of the one link. */
static struct input_quant input_of(const struct linear *l)
{
    assert_null(l->next);
    return l->input_quant;
}

static void the_greatest_of_the_parts(void **state)
{
    (void)state;
    static const char *const modules[] = { "self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj" };
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++) {
        char dir[64];
        struct rig r;
        copy_checkpoint(dir, modules[i], 0.5f, false);
        rig_open(&r, dir, "auto", "float32", "auto");
        const struct layer_weights *layer = &r.weights->layers[0];
        assert_int_equal(input_of(&layer->qkv).kind, INPUT_QUANT_FP8);
        assert_true(input_of(&layer->qkv).scale == (i < 2 ? 0.5f : 0.125f));
        assert_true(input_of(&layer->gate_up).scale == (i < 2 ? 0.125f : 0.5f));
        assert_true(input_of(&layer->down).scale == 0.125f);
        assert_int_equal(r.weights->embedding.input_quant.kind, INPUT_QUANT_NONE);
        rig_close(&r);
        remove_dir(dir);
    }
}

static void only_where_the_checkpoint_says(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum input_quant_kind kind;
    } cases[] = {
        { "ct_w8a8_int8", INPUT_QUANT_INT8 },     { "ct_fp8_dynamic", INPUT_QUANT_FP8 },
        { "fp8_tensor", INPUT_QUANT_FP8 },        { "ct_w8a8_int8_asym", INPUT_QUANT_NONE },
        { "ct_w8a16_channel", INPUT_QUANT_NONE }, { "ct_fp8_block", INPUT_QUANT_NONE },
        { "fp8_block", INPUT_QUANT_NONE },        { "gptq_4bit_row", INPUT_QUANT_NONE },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[96];
        struct rig r;
        snprintf(path, sizeof path, "tests/golden/quant/%s", cases[i].name);
        rig_open(&r, path, "auto", "float32", "auto");
        const struct layer_weights *layer = &r.weights->layers[0];
        const struct linear *linears[] = { &layer->qkv, &layer->o, &layer->gate_up, &layer->down };
        for (size_t l = 0; l < 4; l++)
            assert_int_equal(input_of(linears[l]).kind, cases[i].kind);
        assert_true((layer->o.input_quant.scale > 0) == (i == 2));
        assert_int_equal(quant_config_has_int8_input(r.model->quant),
                         strncmp(cases[i].name, "ct_w8a8", 7) == 0);
        rig_close(&r);
    }
    assert_false(quant_config_has_int8_input(NULL));
}

static void wrong_scales(void **state)
{
    (void)state;
    static const float scales[] = { 0, -1, NAN, INFINITY };
    char dir[64];
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        copy_checkpoint(dir, "mlp.down_proj", scales[i], false);
        expect_load_refused(
            dir, "model.layers.0.mlp.down_proj.input_scale', a scale of activations, is");
        remove_dir(dir);
    }
    copy_checkpoint(dir, "mlp.down_proj", 0, true);
    expect_load_refused(dir, "there is no tensor 'model.layers.0.mlp.down_proj.input_scale'");
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_greatest_of_the_parts),
        cmocka_unit_test(only_where_the_checkpoint_says),
        cmocka_unit_test(wrong_scales),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
