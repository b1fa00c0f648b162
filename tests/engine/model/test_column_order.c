/* test_column_order.c - which order of columns each link is given, and what is wrong with one: on
 * tests/golden/quant's checkpoints with desc_act, whose g_idx are changed in place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/checkpoint_edit.h"

enum { HIDDEN = 64, INNER = 96, GROUP = 16 };

static const char ACT_ORDER[] = "gptq_4bit_g16_act_order";

static const char *g_idx_name(const char *module)
{
    static char name[128];
    snprintf(name, sizeof name, "model.layers.0.%s.g_idx", module);
    return name;
}

static void read_groups(const char *dir, const char *module, int32_t *groups, int32_t cols)
{
    edit_tensor(dir, g_idx_name(module), groups, (size_t)cols * sizeof *groups, false);
}

static void write_groups(const char *dir, const char *module, int32_t *groups, int32_t cols)
{
    edit_tensor(dir, g_idx_name(module), groups, (size_t)cols * sizeof *groups, true);
}

/* The first column changes places with the first that is in another group. */
static void swap_groups(const char *dir, const char *module, int32_t cols)
{
    int32_t groups[INNER], at = 1;
    read_groups(dir, module, groups, cols);
    while (groups[at] == groups[0])
        at++;
    const int32_t other = groups[at];
    groups[at] = groups[0];
    groups[0] = other;
    write_groups(dir, module, groups, cols);
}

/* Places hold the columns by rising group, and those of a group by rising column. */
static void check_order(const char *dir, const char *module, const struct linear *l)
{
    int32_t groups[INNER], at = 0;
    assert_non_null(l->input_order);
    assert_true(l->in_features <= INNER);
    read_groups(dir, module, groups, l->in_features);
    for (int32_t g = 0; g < l->in_features / GROUP; g++)
        for (int32_t c = 0; c < l->in_features; c++)
            if (groups[c] == g && l->input_order[at++] != c)
                fail_msg("%s: place %d has column %d, not %d", module, at - 1,
                         l->input_order[at - 1], c);
    assert_int_equal(at, l->in_features);
}

static void check_model(const char *dir)
{
    struct rig r;
    rig_open(&r, dir, "auto", "float32", "auto");
    const struct layer_weights *layer = &r.weights->layers[0];
    const struct linear *q = &layer->qkv, *gate = &layer->gate_up;
    check_order(dir, "self_attn.q_proj", q);
    check_order(dir, "self_attn.k_proj", q->next);
    check_order(dir, "self_attn.v_proj", q->next->next);
    check_order(dir, "self_attn.o_proj", &layer->o);
    check_order(dir, "mlp.gate_proj", gate);
    check_order(dir, "mlp.up_proj", gate->next);
    check_order(dir, "mlp.down_proj", &layer->down);
    assert_null(q->next->next->next);
    assert_null(gate->next->next);
    assert_null(r.weights->embedding.input_order);
    rig_close(&r);
}

/* Each part of a fused linear has the one that it has in the checkpoint, be it another or not. */
static void links_have_their_own(void **state)
{
    (void)state;
    static const char *const modules[] = { "self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj" };
    char dir[64];
    edit_copy(dir, ACT_ORDER);
    check_model(dir);
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++) {
        swap_groups(dir, modules[i], HIDDEN);
        check_model(dir);
    }
    remove_dir(dir);
}

static void none_without_desc_act(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, "tests/golden/quant/gptq_4bit_g32_sym", "auto", "float32", "auto");
    const struct layer_weights *layer = &r.weights->layers[0];
    const struct linear *all[] = { &layer->qkv, &layer->o, &layer->gate_up, &layer->down };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_null(all[i]->input_order);
        assert_null(all[i]->next);
    }
    rig_close(&r);
}

/* --- experts ---------------------------------------------------------------------------------- */

static void change_config(const char *dir, const char *patch)
{
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *config = load_json(path), *change = json_loads(patch, 0, NULL);
    assert_non_null(change);
    json_object_update_recursive(config, change);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(change);
    json_decref(config);
}

#define EXPERT "block_sparse_moe.experts.0."

static void rename_tensor(json_t *header, const char *module, const char *to, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "model.layers.0.%s%s", module, suffix);
    json_t *entry = json_incref(json_object_get(header, name));
    assert_int_equal(json_object_del(header, name), 0);
    snprintf(name, sizeof name, "model.layers.0.%s%s", to, suffix);
    json_object_set_new(header, name, entry);
}

/* The MLP becomes the only expert of a Mixtral, and a bias, which is zeros, its router. */
static void copy_with_expert(char dir[64])
{
    static const char *const modules[][2] = { { "mlp.gate_proj", EXPERT "w1" },
                                              { "mlp.up_proj", EXPERT "w3" },
                                              { "mlp.down_proj", EXPERT "w2" } };
    static const char *const suffixes[] = { ".qweight", ".qzeros", ".scales", ".g_idx", ".bias" };
    static const char router[] = "model.layers.0.block_sparse_moe.gate.weight";
    char name[128];
    edit_copy(dir, ACT_ORDER);
    json_t *header = edit_read_header(dir);
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < sizeof suffixes / sizeof suffixes[0]; k++)
            rename_tensor(header, modules[i][0], modules[i][1], suffixes[k]);
    }
    snprintf(name, sizeof name, "model.layers.0.%sw2.bias", EXPERT);
    json_object_set(header, router, json_object_get(header, name));
    json_object_del(header, name);
    json_object_set_new(json_object_get(header, router), "shape", json_pack("[i, i]", 1, HIDDEN));
    edit_write_header(dir, header);
    json_decref(header);
    change_config(dir, "{\"architectures\": [\"MixtralForCausalLM\"], \"model_type\": \"mixtral\", "
                       "\"num_local_experts\": 1, \"num_experts_per_tok\": 1}");
}

/* An expert's gate and up are one link, so that they must have one order. */
static void parts_of_experts_share_one(void **state)
{
    (void)state;
    char dir[64];
    struct rig r;
    copy_with_expert(dir);
    rig_open(&r, dir, "auto", "float32", "auto");
    const struct layer_weights *layer = &r.weights->layers[0];
    check_order(dir, EXPERT "w1", &layer->expert_gate_up[0]);
    check_order(dir, EXPERT "w3", &layer->expert_gate_up[0]);
    check_order(dir, EXPERT "w2", &layer->expert_down[0]);
    assert_null(layer->expert_gate_up[0].next);
    rig_close(&r);
    swap_groups(dir, EXPERT "w3", HIDDEN);
    expect_load_refused(dir, EXPERT "w3: its columns are in another order than those of "
                                    "model.layers.0." EXPERT "w1");
    swap_groups(dir, EXPERT "w1", HIDDEN);
    rig_open(&r, dir, "auto", "float32", "auto");
    check_order(dir, EXPERT "w3", &r.weights->layers[0].expert_gate_up[0]);
    rig_close(&r);
    remove_dir(dir);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void wrong_groups(void **state)
{
    (void)state;
    static const int32_t wrong[] = { -1, HIDDEN / GROUP, INT32_MAX, INT32_MIN };
    int32_t groups[HIDDEN], saved[HIDDEN];
    char dir[64];
    edit_copy(dir, ACT_ORDER);
    read_groups(dir, "self_attn.o_proj", saved, HIDDEN);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memcpy(groups, saved, sizeof groups);
        groups[HIDDEN - 1] = wrong[i];
        write_groups(dir, "self_attn.o_proj", groups, HIDDEN);
        expect_load_refused(dir, "self_attn.o_proj.g_idx'");
    }
    memcpy(groups, saved, sizeof groups);
    groups[0] = (groups[0] + 1) % (HIDDEN / GROUP); /* one group has a column too many */
    write_groups(dir, "self_attn.o_proj", groups, HIDDEN);
    expect_load_refused(dir, "self_attn.o_proj.g_idx'");
    write_groups(dir, "self_attn.o_proj", saved, HIDDEN);
    check_model(dir);
    remove_dir(dir);
}

/* An order that the configuration does not announce is not passed over. */
static void an_order_not_announced(void **state)
{
    (void)state;
    char dir[64];
    edit_copy(dir, ACT_ORDER);
    change_config(dir, "{\"quantization_config\": {\"desc_act\": false}}");
    expect_load_refused(dir, "but without desc_act a group_size of 16 puts it into");
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_have_their_own),       cmocka_unit_test(none_without_desc_act),
        cmocka_unit_test(parts_of_experts_share_one), cmocka_unit_test(wrong_groups),
        cmocka_unit_test(an_order_not_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
