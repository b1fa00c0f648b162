/* test_tensor_map.c - missing, surplus and misshaped tensors by name, and where good ones go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/config_helper.h"
#include "engine/model/tensor_map.h"

#include <stdlib.h>

static const struct checkpoint_type f32 = { "F32", 4, true, DTYPE_F32, NULL };
static const struct checkpoint_type i8 = { "I8", 1, false, DTYPE_F32, NULL };

#define SMALL                                                                                      \
    "\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":2,\"vocab_size\":16,"        \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1"

static void add(struct checkpoint *c, const char *name, int32_t rows, int32_t cols)
{
    struct checkpoint_tensor *t = checkpoint_add(c);
    t->name = arena_strdup(&c->names, name);
    t->file = "x.safetensors";
    t->type = &f32;
    t->num_dims = cols ? 2 : 1;
    t->shape[0] = rows;
    t->shape[1] = cols;
}

static void add_layer(struct checkpoint *c, int32_t layer, bool biases)
{
    static const struct {
        const char *name;
        int32_t rows, cols;
    } tensors[] = { { "input_layernorm", 8, 0 },  { "post_attention_layernorm", 8, 0 },
                    { "self_attn.q_proj", 8, 8 }, { "self_attn.k_proj", 4, 8 },
                    { "self_attn.v_proj", 4, 8 }, { "self_attn.o_proj", 8, 8 },
                    { "mlp.gate_proj", 12, 8 },   { "mlp.up_proj", 12, 8 },
                    { "mlp.down_proj", 8, 12 } };
    char name[128];
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, tensors[i].name);
        add(c, name, tensors[i].rows, tensors[i].cols);
        snprintf(name, sizeof name, "model.layers.%d.%s.bias", layer, tensors[i].name);
        if (biases && tensors[i].cols)
            add(c, name, tensors[i].rows, 0);
    }
}

/* What SMALL asks for, not sealed yet. */
static struct checkpoint *small_checkpoint(bool biases)
{
    struct checkpoint *c = checkpoint_new();
    add(c, "model.embed_tokens.weight", 16, 8);
    add(c, "model.norm.weight", 8, 0);
    add_layer(c, 0, biases);
    add_layer(c, 1, biases);
    return c;
}

static struct checkpoint_tensor *find(struct checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->num_tensors; i++)
        if (strcmp(c->tensors[i].name, name) == 0)
            return &c->tensors[i];
    fail_msg("%s is not there", name);
    return NULL;
}

static bool map(struct checkpoint *c, const char *patch, struct tensor_map *out, struct status *st)
{
    struct decoder_desc desc = desc_of(patch);
    assert_true(checkpoint_seal(c, st));
    return tensor_map_make(model_arch_find("LlamaForCausalLM"), &desc, c, NULL, out, st);
}

static void expect_mapped(struct checkpoint *c, const char *patch, size_t count)
{
    struct status st;
    struct tensor_map m;
    if (!map(c, patch, &m, &st))
        fail_msg("%s: %s", patch, st.message);
    assert_int_equal(m.count, count);
    tensor_map_free(&m);
    checkpoint_close(c);
}

static void expect_refused(struct checkpoint *c, const char *patch, const char *words)
{
    struct status st;
    struct tensor_map m;
    bool ok = map(c, patch, &m, &st);
    if (ok || !strstr(st.message, words))
        fail_msg("%s\n  expected: %s\n  message:  %s", patch, words, ok ? "(taken)" : st.message);
    assert_null(m.entries);
    checkpoint_close(c);
}

static const struct tensor_map_entry *entry_of(const struct tensor_map *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->entries[i].tensor->name, name) == 0)
            return &m->entries[i];
    fail_msg("%s is not mapped", name);
    return NULL;
}

static void test_places(void **state)
{
    struct status st;
    struct tensor_map m;
    struct checkpoint *c = small_checkpoint(true);
    (void)state;
    assert_true(map(c, "{" SMALL ",\"attention_bias\":true,\"mlp_bias\":true}", &m, &st));
    assert_int_equal(m.count, 2 + 2 * (9 + 7));

    const struct tensor_map_entry *e = entry_of(&m, "model.layers.1.self_attn.v_proj.weight");
    assert_int_equal(e->slot, W_QKV);
    assert_int_equal(e->partition, COLUMN_PARALLEL);
    assert_int_equal(e->layer, 1);
    assert_int_equal(e->row_begin, 12); /* after 8 rows of q and 4 of k */
    assert_int_equal(e->rows, 4);
    assert_int_equal(e->cols, 8);
    assert_false(e->is_bias);
    e = entry_of(&m, "model.layers.1.self_attn.k_proj.bias");
    assert_true(e->is_bias);
    assert_int_equal(e->row_begin, 8);
    assert_int_equal(e->rows, 4);
    e = entry_of(&m, "model.layers.0.mlp.up_proj.weight");
    assert_int_equal(e->slot, W_GATE_UP);
    assert_int_equal(e->row_begin, 12);
    assert_int_equal(entry_of(&m, "model.layers.0.mlp.down_proj.weight")->partition, ROW_PARALLEL);
    assert_int_equal(entry_of(&m, "model.norm.weight")->slot, W_FINAL_NORM);
    tensor_map_free(&m);
    checkpoint_close(c);
}

static void test_tied_and_ignored(void **state)
{
    (void)state;
    expect_mapped(small_checkpoint(false), "{" SMALL "}", 20);
    /* A tied head in the file is left alone. */
    struct checkpoint *c = small_checkpoint(false);
    add(c, "lm_head.weight", 16, 8);
    expect_mapped(c, "{" SMALL "}", 20);
    c = small_checkpoint(false);
    add(c, "lm_head.weight", 16, 8);
    expect_mapped(c, "{" SMALL ",\"tie_word_embeddings\":false}", 21);
    c = small_checkpoint(false);
    add(c, "model.layers.1.self_attn.rotary_emb.inv_freq", 2, 0);
    expect_mapped(c, "{" SMALL "}", 20);
    /* The KV cache's scales are nobody's weights, but belong to a layer. */
    c = small_checkpoint(false);
    add(c, "model.layers.1.self_attn.k_scale", 1, 0);
    expect_mapped(c, "{" SMALL "}", 20);
    c = small_checkpoint(false);
    add(c, "model.layers.2.self_attn.k_scale", 1, 0);
    expect_refused(c, "{" SMALL "}", "model.layers.2.self_attn.k_scale");
}

static void test_missing(void **state)
{
    (void)state;
    expect_refused(small_checkpoint(false), "{" SMALL ",\"tie_word_embeddings\":false}",
                   "tensor 'lm_head.weight' is missing");
    expect_refused(small_checkpoint(false), "{" SMALL ",\"num_hidden_layers\":3}",
                   "'model.layers.2.input_layernorm.weight' is missing");
    expect_refused(small_checkpoint(false), "{" SMALL ",\"attention_bias\":true}",
                   "'model.layers.0.self_attn.q_proj.bias' is missing");
    expect_refused(small_checkpoint(false), "{" SMALL ",\"mlp_bias\":true}",
                   "'model.layers.0.mlp.gate_proj.bias' is missing");
    expect_refused(checkpoint_new(), "{" SMALL "}", "'model.embed_tokens.weight' is missing");
}

static void test_surplus(void **state)
{
    static const char *const names[] = { "model.layers.2.input_layernorm.weight",
                                         "model.layers.0.self_attn.q_norm.weight",
                                         "model.layers.0.self_attn.q_proj.bias",
                                         "model.norm.bias",
                                         "lm_head.bias",
                                         "model.layers..self_attn.rotary_emb.inv_freq",
                                         "model.layers.0x.self_attn.rotary_emb.inv_freq",
                                         "model.layers.0.self_attn.rotary_emb.inv_freq2" };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char words[128];
        struct checkpoint *c = small_checkpoint(false);
        add(c, names[i], 8, 0);
        snprintf(words, sizeof words, "x.safetensors: tensor '%s' is no part", names[i]);
        expect_refused(c, "{" SMALL "}", words);
    }
}

static void test_misshaped(void **state)
{
    struct checkpoint *c = small_checkpoint(false);
    (void)state;
    find(c, "model.layers.1.self_attn.k_proj.weight")->shape[0] = 8;
    expect_refused(c, "{" SMALL "}",
                   "x.safetensors: tensor 'model.layers.1.self_attn.k_proj.weight' has shape "
                   "[8, 8], config.json asks for [4, 8]");
    c = small_checkpoint(false);
    find(c, "model.norm.weight")->num_dims = 2;
    expect_refused(c, "{" SMALL "}",
                   "'model.norm.weight' has shape [8, 0], config.json asks for "
                   "[8]");
    c = small_checkpoint(true);
    find(c, "model.layers.0.self_attn.o_proj.bias")->shape[0] = 7;
    expect_refused(c, "{" SMALL ",\"attention_bias\":true,\"mlp_bias\":true}",
                   "has shape [7], config.json asks for [8]");
    c = small_checkpoint(false);
    find(c, "model.embed_tokens.weight")->type = &i8;
    expect_refused(c, "{" SMALL "}", "'model.embed_tokens.weight' is of dtype I8");
}

/* A child's rule for a place replaces the base's; a place of its own name stays. */
static void test_extension(void **state)
{
    static const struct tensor_rule rules[] = {
        { "model.layers.{}.attn.out", W_O, ROW_PARALLEL, .part = 0 },
        { "extra.{}.thing", W_IGNORED, REPLICATED, .part = 0 },
        { 0 },
    };
    const struct model_arch child = { .architectures = { "Child" },
                                      .base = model_arch_find("LlamaForCausalLM"),
                                      .tensors = rules };
    struct decoder_desc desc = desc_of("{" SMALL "}");
    struct checkpoint *c = small_checkpoint(false);
    struct tensor_map m;
    struct status st;
    (void)state;
    find(c, "model.layers.0.self_attn.o_proj.weight")->name = "model.layers.0.attn.out.weight";
    add(c, "extra.12.thing", 1, 1);
    assert_true(checkpoint_seal(c, &st));
    assert_false(tensor_map_make(&child, &desc, c, NULL, &m, &st));
    assert_non_null(strstr(st.message, "model.layers.1.attn.out.weight' is missing"));
    find(c, "model.layers.1.self_attn.o_proj.weight")->name = "model.layers.1.attn.out.weight";
    assert_true(checkpoint_seal(c, &st));
    assert_true(tensor_map_make(&child, &desc, c, NULL, &m, &st));
    assert_int_equal(m.count, 20);
    assert_int_equal(entry_of(&m, "model.layers.1.attn.out.weight")->slot, W_O);
    tensor_map_free(&m);
    checkpoint_close(c);
}

static void add_shaped(struct checkpoint *c, const char *name, int32_t num_dims,
                       const int64_t *shape)
{
    add(c, name, 1, 1);
    struct checkpoint_tensor *t = find(c, name);
    t->num_dims = num_dims;
    memcpy(t->shape, shape, (size_t)num_dims * sizeof *shape);
}

#define EXPERTS                                                                                    \
    "{" SMALL ",\"architectures\":[\"GptOssForCausalLM\"],\"head_dim\":4,"                         \
    "\"tie_word_embeddings\":true,\"attention_bias\":false,\"num_local_experts\":3,"               \
    "\"num_experts_per_tok\":2,\"rope_scaling\":{\"rope_type\":\"default\"}}"

/* What EXPERTS asks for: small_checkpoint with experts in the place of its MLPs. */
static struct checkpoint *checkpoint_with_experts(void)
{
    static const struct {
        const char *name;
        int32_t num_dims;
        int64_t shape[3];
    } added[] = { { "self_attn.sinks", 1, { 2 } },
                  { "mlp.router.weight", 2, { 3, 8 } },
                  { "mlp.router.bias", 1, { 3 } },
                  { "mlp.experts.gate_up_proj", 3, { 3, 8, 24 } },
                  { "mlp.experts.gate_up_proj_bias", 2, { 3, 24 } },
                  { "mlp.experts.down_proj", 3, { 3, 12, 8 } },
                  { "mlp.experts.down_proj_bias", 2, { 3, 8 } } };
    struct checkpoint *c = small_checkpoint(false);
    for (size_t i = c->num_tensors; i-- > 0;)
        if (strstr(c->tensors[i].name, ".mlp."))
            c->tensors[i] = c->tensors[--c->num_tensors];
    for (size_t i = 0; i < 2 * sizeof added / sizeof added[0]; i++) {
        char name[128];
        snprintf(name, sizeof name, "model.layers.%d.%s", (int)(i % 2), added[i / 2].name);
        add_shaped(c, name, added[i / 2].num_dims, added[i / 2].shape);
    }
    return c;
}

/* The experts of a layer in one tensor, their gates and ups row by row, and parameters that are not
 * called weight or bias. */
static void test_stacks(void **state)
{
    struct decoder_desc desc = desc_of(EXPERTS);
    const struct model_arch *arch = model_arch_find("GptOssForCausalLM");
    struct checkpoint *c = checkpoint_with_experts();
    struct tensor_map m;
    struct status st;
    (void)state;
    assert_true(checkpoint_seal(c, &st));
    if (!tensor_map_make(arch, &desc, c, NULL, &m, &st))
        fail_msg("%s", st.message);
    /* Gate and up of an expert, then their biases; the first entry is expert 0's. */
    const struct tensor_map_entry *e = entry_of(&m, "model.layers.1.mlp.experts.gate_up_proj") + 4;
    assert_ptr_equal(e->tensor, find(c, "model.layers.1.mlp.experts.gate_up_proj"));
    assert_ptr_equal(e[2].tensor, find(c, "model.layers.1.mlp.experts.gate_up_proj_bias"));
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(e[i].is_bias, i >= 2);
        assert_int_equal(e[i].transposed, i < 2);
        assert_int_equal(e[i].expert, 1);
        assert_int_equal(e[i].stack_size, 3);
        assert_int_equal(e[i].stack_index, 1);
        assert_int_equal(e[i].rows, 12);
        assert_int_equal(e[i].cols, i < 2 ? 8 : 1);
        assert_int_equal(e[i].row_begin, i % 2 * 12);
        assert_int_equal(e[i].src_row_begin, i % 2);
        assert_int_equal(e[i].src_row_step, 2);
    }
    e = entry_of(&m, "model.layers.1.self_attn.sinks");
    assert_int_equal(e->slot, W_SINKS);
    assert_int_equal(e->cols, 2);
    assert_int_equal(e->stack_size, 1);
    tensor_map_free(&m);
    find(c, "model.layers.1.mlp.experts.down_proj")->shape[0] = 4;
    assert_false(tensor_map_make(arch, &desc, c, NULL, &m, &st));
    assert_non_null(strstr(st.message, "has shape [4, 12, 8], config.json asks for [3, 12, 8]"));
    checkpoint_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),    cmocka_unit_test(test_tied_and_ignored),
        cmocka_unit_test(test_missing),   cmocka_unit_test(test_surplus),
        cmocka_unit_test(test_misshaped), cmocka_unit_test(test_extension),
        cmocka_unit_test(test_stacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
