/* test_deepseek_v2.c - what DeepSeek-V2, V3 and their kin are read as, from their published
 * configurations, what is refused, and where kv_b_proj and further layers' tensors go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/config_helper.h"
#include "engine/model/kv_cache_spec.h"
#include "engine/model/model.h"
#include "engine/model/weight_slot.h"

#include <math.h>

/* --- published configurations --- */

#define YARN(factor, mscale)                                                                       \
    "\"rope_scaling\":{\"beta_fast\":32,\"beta_slow\":1,\"factor\":" #factor                       \
    ",\"mscale\":" #mscale ",\"mscale_all_dim\":" #mscale                                          \
    ",\"original_max_position_embeddings\":4096,\"type\":\"yarn\"},"
#define HEADS                                                                                      \
    "\"kv_lora_rank\":512,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"

static const char v2_lite[] =
    "{\"architectures\":[\"DeepseekV2ForCausalLM\"],\"attention_bias\":false,"
    "\"first_k_dense_replace\":1,\"hidden_act\":\"silu\",\"hidden_size\":2048,"
    "\"intermediate_size\":10944," HEADS "\"max_position_embeddings\":163840,"
    "\"moe_intermediate_size\":1408,\"moe_layer_freq\":1,\"n_group\":1,\"n_routed_experts\":64,"
    "\"n_shared_experts\":2,\"norm_topk_prob\":false,\"num_attention_heads\":16,"
    "\"num_experts_per_tok\":6,\"num_hidden_layers\":27,\"num_key_value_heads\":16,"
    "\"q_lora_rank\":null," YARN(
        40, 0.707) "\"rms_norm_eps\":1e-06,\"rope_theta\":10000,"
                   "\"routed_scaling_factor\":1.0,\"scoring_func\":\"softmax\",\"tie_word_"
                   "embeddings\":false,"
                   "\"topk_group\":1,\"topk_method\":\"greedy\",\"vocab_size\":102400}";

static const char v2[] =
    "{\"architectures\":[\"DeepseekV2ForCausalLM\"],\"attention_bias\":false,"
    "\"first_k_dense_replace\":1,\"hidden_act\":\"silu\",\"hidden_size\":5120,"
    "\"intermediate_size\":12288," HEADS "\"max_position_embeddings\":163840,"
    "\"moe_intermediate_size\":1536,\"moe_layer_freq\":1,\"n_group\":8,\"n_routed_experts\":160,"
    "\"n_shared_experts\":2,\"norm_topk_prob\":false,\"num_attention_heads\":128,"
    "\"num_experts_per_tok\":6,\"num_hidden_layers\":60,\"num_key_value_heads\":128,"
    "\"q_lora_rank\":1536," YARN(
        40,
        0.707) "\"rms_norm_eps\":1e-06,\"rope_theta\":10000,"
               "\"routed_scaling_factor\":16.0,\"scoring_func\":\"softmax\",\"tie_word_"
               "embeddings\":false,"
               "\"topk_group\":3,\"topk_method\":\"group_limited_greedy\",\"vocab_size\":102400}";

static const char v3[] =
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"attention_bias\":false,"
    "\"first_k_dense_replace\":3,\"hidden_act\":\"silu\",\"hidden_size\":7168,"
    "\"intermediate_size\":18432," HEADS "\"max_position_embeddings\":163840,"
    "\"moe_intermediate_size\":2048,\"moe_layer_freq\":1,\"n_group\":8,\"n_routed_experts\":256,"
    "\"n_shared_experts\":1,\"norm_topk_prob\":true,\"num_attention_heads\":128,"
    "\"num_experts_per_tok\":8,\"num_hidden_layers\":61,\"num_key_value_heads\":128,"
    "\"num_nextn_predict_layers\":1,\"q_lora_rank\":1536," YARN(
        40, 1.0) "\"rms_norm_eps\":1e-06,\"rope_theta\":10000,\"routed_scaling_factor\":2.5,"
                 "\"scoring_func\":\"sigmoid\",\"tie_word_embeddings\":false,\"topk_group\":4,"
                 "\"topk_method\":\"noaux_tc\",\"vocab_size\":129280}";

static const char kimi_k2[] =
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"model_type\":\"kimi_k2\","
    "\"first_k_dense_replace\":1,\"hidden_act\":\"silu\",\"hidden_size\":7168,"
    "\"intermediate_size\":18432," HEADS "\"max_position_embeddings\":131072,"
    "\"moe_intermediate_size\":2048,\"moe_layer_freq\":1,\"n_group\":1,\"n_routed_experts\":384,"
    "\"n_shared_experts\":1,\"norm_topk_prob\":true,\"num_attention_heads\":64,"
    "\"num_experts_per_tok\":8,\"num_hidden_layers\":61,\"num_key_value_heads\":64,"
    "\"num_nextn_predict_layers\":0,\"q_lora_rank\":1536," YARN(
        32, 1.0) "\"rms_norm_eps\":1e-06,\"rope_theta\":50000.0,\"routed_scaling_factor\":2.827,"
                 "\"scoring_func\":\"sigmoid\",\"tie_word_embeddings\":false,\"topk_group\":1,"
                 "\"topk_method\":\"noaux_tc\",\"vocab_size\":163840}";

/* With the members of `patch` put in; a value "-" takes the member out. */
static bool read(const char *text, const char *patch, struct decoder_desc *desc, struct status *st)
{
    struct hf_config hf;
    const char *key;
    json_t *value, *config = json_loads(text, 0, NULL), *changes = json_loads(patch, 0, NULL);
    assert_true(config && changes);
    json_object_foreach(changes, key, value)
    {
        if (json_is_string(value) && strcmp(json_string_value(value), "-") == 0)
            json_object_del(config, key);
        else
            json_object_set(config, key, value);
    }
    status_clear(st);
    bool ok = hf_config_read(config, desc, &hf, st);
    json_decref(changes);
    json_decref(config);
    return ok;
}

static struct decoder_desc desc_from(const char *text, const char *patch)
{
    struct decoder_desc desc;
    struct status st;
    if (!read(text, patch, &desc, &st))
        fail_msg("%s", st.message);
    return desc;
}

/* In billions. */
static double parameters(const struct decoder_desc *d)
{
    struct model m = { .desc = *d };
    return (double)model_num_parameters(&m) * 1e-9;
}

static int32_t kv_bytes(const struct decoder_desc *d)
{
    struct kv_cache_spec s = kv_cache_spec_make(d, DTYPE_BF16);
    return (int32_t)kv_cache_bytes_per_token(&s);
}

static void test_published(void **state)
{
    struct decoder_desc d = desc_from(v2_lite, "{}");
    (void)state;
    assert_true(d.topk_method == TOPK_GREEDY && d.moe_scoring == MOE_SOFTMAX);
    assert_true(!d.layers[0].moe && d.layers[1].moe && d.layers[26].moe);
    assert_int_equal(d.shared_expert_intermediate_size, 2 * 1408);
    assert_int_equal(d.rope.rotary_dim, 64);
    assert_true(d.rope.interleaved && d.rope.attention_factor == 1);
    double mscale = 0.1 * 0.707 * log(40) + 1;
    assert_true(fabs((double)d.attention_scale / (mscale * mscale / sqrt(192)) - 1) < 1e-6);
    assert_int_equal(model_max_len(&d), 163840);
    assert_true(fabs(parameters(&d) - 15.7) < 0.05); /* these: of the models' cards */
    assert_int_equal(kv_bytes(&d), 27 * 576 * 2);

    d = desc_from(v2, "{}");
    assert_true(d.topk_method == TOPK_GROUP_LIMITED_GREEDY && d.n_group == 8 && d.topk_group == 3);
    assert_true(d.routed_scaling_factor == 16 && d.q_lora_rank == 1536);
    assert_true(fabs(parameters(&d) - 236) < 0.5);
    assert_int_equal(kv_bytes(&d), 60 * 576 * 2);

    d = desc_from(v3, "{}");
    assert_true(d.topk_method == TOPK_NOAUX_TC && d.moe_scoring == MOE_SIGMOID && d.norm_topk_prob);
    assert_true(!d.layers[2].moe && d.layers[3].moe && d.rope.interleaved);
    assert_true(fabs(parameters(&d) - 671) < 0.5);

    d = desc_from(kimi_k2, "{}");
    assert_true(d.n_group == 1 && d.num_experts == 384);
    assert_true(fabs(parameters(&d) - 1026) < 1);
}

/* Defaults of transformers' classes, and what its code does without a key. */
static void test_defaults(void **state)
{
    (void)state;
    struct decoder_desc d = desc_from(v2_lite, "{\"q_lora_rank\":\"-\",\"rope_scaling\":null,"
                                               "\"scoring_func\":\"-\",\"topk_method\":\"-\"}");
    assert_int_equal(d.q_lora_rank, 1536);
    assert_true(fabs((double)d.attention_scale * sqrt(192) - 1) < 1e-6);
    assert_int_equal(d.topk_method, TOPK_GREEDY);
    d = desc_from(v3, "{\"scoring_func\":\"-\",\"topk_method\":\"-\",\"n_group\":\"-\","
                      "\"topk_group\":\"-\",\"num_nextn_predict_layers\":\"-\","
                      "\"num_key_value_heads\":null,\"rope_interleave\":false}");
    assert_int_equal(d.topk_method, TOPK_NOAUX_TC);
    assert_true(d.n_group == 8 && d.topk_group == 4 && !d.rope.interleaved);
    assert_int_equal(d.num_key_value_heads, 1);
    assert_int_equal(d.num_nextn_predict_layers, 1);
    d = desc_from(v2_lite, "{\"moe_layer_freq\":3,\"first_k_dense_replace\":4,"
                           "\"n_shared_experts\":null}");
    for (int32_t i = 0; i < 27; i++)
        assert_int_equal(d.layers[i].moe, i >= 4 && i % 3 == 0);
    assert_int_equal(d.shared_expert_intermediate_size, 0);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *patch, *words;
    } cases[] = {
        { v2, "{\"scoring_func\":\"sigmoid\"}", "scoring_func is \"sigmoid\"" },
        { v2, "{\"topk_method\":\"noaux_tc\"}", "known for this architecture: greedy, group_lim" },
        { v2, "{\"norm_topk_prob\":true}", "norm_topk_prob is true" },
        { v2, "{\"mlp_bias\":true}", "mlp_bias is true" },
        { v2, "{\"num_key_value_heads\":8}", "num_key_value_heads is 8" },
        { v2, "{\"kv_lora_rank\":\"-\"}", "\"kv_lora_rank\" is missing" },
        { v2, "{\"kv_lora_rank\":1000}", "more than 1024 together" },
        { v2, "{\"qk_rope_head_dim\":63}", "qk_rope_head_dim 63 is odd" },
        { v2, "{\"n_group\":7}", "n_group 7 is no divisor of the 160 experts" },
        { v2, "{\"n_group\":null}", "n_group 0 is no divisor" },
        { v2, "{\"topk_group\":9}", "topk_group is 9, expected 1 to 8" },
        { v2, "{\"num_experts_per_tok\":61}", "more than the 60 experts of topk_group 3" },
        { v2, "{\"n_shared_experts\":1024,\"moe_intermediate_size\":1048576}",
          "more than 1048576 together" },
        { v3, "{\"scoring_func\":\"softmax\"}", "scoring_func is \"softmax\"" },
        { v3, "{\"topk_method\":\"greedy\"}", "topk_method is \"greedy\"" },
        { v3, "{\"topk_method\":[]}", "topk_method is []" },
        { v3, "{\"n_group\":256}", "leaves one of the 256 experts" },
        { v3, "{\"rope_interleave\":1}", "rope_interleave is 1" },
        { v3, "{\"hidden_act\":\"tanh\"}", "hidden_act is \"tanh\"" },
        { v3, "{\"num_nextn_predict_layers\":-1}", "num_nextn_predict_layers is -1" },
        { v3, "{\"rope_scaling\":{\"type\":\"deepseek_yarn\",\"factor\":2}}", "\"deepseek_yarn\"" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct decoder_desc desc;
        struct status st;
        bool ok = read(cases[i].text, cases[i].patch, &desc, &st);
        if (ok || !strstr(st.message, cases[i].words))
            fail_msg("%s\n  expected: %s\n  message:  %s", cases[i].patch, cases[i].words,
                     ok ? "(taken)" : st.message);
    }
}

/* --- tensors --- */

#define SMALL                                                                                      \
    "{\"num_hidden_layers\":1,\"first_k_dense_replace\":1,\"hidden_size\":8,"                      \
    "\"intermediate_size\":12,\"num_attention_heads\":3,\"num_key_value_heads\":3,"                \
    "\"vocab_size\":16,\"kv_lora_rank\":5,\"q_lora_rank\":7,\"qk_nope_head_dim\":4,"               \
    "\"qk_rope_head_dim\":2,\"v_head_dim\":6,\"num_nextn_predict_layers\":2}"

static void add(struct checkpoint *c, const char *name, int64_t rows, int64_t cols)
{
    static const struct checkpoint_type f32 = { "F32", 4, true, DTYPE_F32, NULL };
    struct checkpoint_tensor *t = checkpoint_add(c);
    t->name = arena_strdup(&c->names, name);
    t->file = "x.safetensors";
    t->type = &f32;
    t->num_dims = cols ? 2 : 1;
    t->shape[0] = rows;
    t->shape[1] = cols;
}

#define LAYER "model.layers.0."

static struct checkpoint *small_checkpoint(void)
{
    struct checkpoint *c = checkpoint_new();
    add(c, "model.embed_tokens.weight", 16, 8);
    add(c, "model.norm.weight", 8, 0);
    add(c, "lm_head.weight", 16, 8);
    add(c, LAYER "input_layernorm.weight", 8, 0);
    add(c, LAYER "post_attention_layernorm.weight", 8, 0);
    add(c, LAYER "self_attn.q_a_proj.weight", 7, 8);
    add(c, LAYER "self_attn.q_a_layernorm.weight", 7, 0);
    add(c, LAYER "self_attn.q_b_proj.weight", 3 * (4 + 2), 7);
    add(c, LAYER "self_attn.kv_a_proj_with_mqa.weight", 5 + 2, 8);
    add(c, LAYER "self_attn.kv_a_layernorm.weight", 5, 0);
    add(c, LAYER "self_attn.kv_b_proj.weight", 3 * (4 + 6), 5);
    add(c, LAYER "self_attn.o_proj.weight", 8, 3 * 6);
    add(c, LAYER "mlp.gate_proj.weight", 12, 8);
    add(c, LAYER "mlp.up_proj.weight", 12, 8);
    add(c, LAYER "mlp.down_proj.weight", 8, 12);
    return c;
}

static bool map(struct checkpoint *c, struct tensor_map *m, struct status *st)
{
    struct decoder_desc desc = desc_from(v3, SMALL);
    assert_true(checkpoint_seal(c, st));
    return tensor_map_make(model_arch_find("DeepseekV3ForCausalLM"), &desc, c, NULL, m, st);
}

/* The n-th entry of a tensor that goes to `slot`. */
static const struct tensor_map_entry *entry_of(const struct tensor_map *m, enum weight_slot slot,
                                               int32_t n)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->entries[i].slot == slot && n-- == 0)
            return &m->entries[i];
    fail_msg("slot %d has too few entries", (int)slot);
    return NULL;
}

static void test_places(void **state)
{
    struct checkpoint *c = small_checkpoint();
    struct tensor_map m;
    struct status st;
    (void)state;
    if (!map(c, &m, &st))
        fail_msg("%s", st.message);
    for (int32_t head = 0; head < 3; head++) {
        /* q's parts are brought together: all heads' nope, then all heads' rope. */
        const struct tensor_map_entry *e = entry_of(&m, W_Q_B, head);
        assert_int_equal(e->src_row_begin, head * 6);
        assert_int_equal(e->row_begin, head * 4);
        assert_int_equal(e->rows, 4);
        e = entry_of(&m, W_Q_B, 3 + head);
        assert_int_equal(e->src_row_begin, head * 6 + 4);
        assert_int_equal(e->row_begin, 12 + head * 2);
        e = entry_of(&m, W_KV_B_K, head);
        assert_true(e->transposed && e->stack_size == 3);
        assert_int_equal(e->stack_index, head);
        assert_int_equal(e->src_row_begin, 0);
        assert_int_equal(e->rows, 5);
        assert_int_equal(e->cols, 4);
        e = entry_of(&m, W_KV_B_V, head);
        assert_true(!e->transposed && e->stack_size == 3);
        assert_int_equal(e->expert, head);
        assert_int_equal(e->src_row_begin, 4);
        assert_int_equal(e->rows, 6);
        assert_int_equal(e->cols, 5);
    }
    tensor_map_free(&m);
    checkpoint_close(c);
}

/* Layers that predict further tokens, as many as the file says. */
static void test_further_layers(void **state)
{
    struct checkpoint *c = small_checkpoint();
    struct tensor_map m;
    struct status st;
    (void)state;
    add(c, "model.layers.1.eh_proj.weight", 8, 16);
    add(c, "model.layers.2.shared_head.norm.weight", 8, 0);
    if (!map(c, &m, &st))
        fail_msg("%s", st.message);
    tensor_map_free(&m);
    add(c, "model.layers.3.enorm.weight", 8, 0);
    assert_false(map(c, &m, &st));
    assert_non_null(strstr(st.message, "'model.layers.3.enorm.weight' is no part"));
    checkpoint_close(c);
    c = small_checkpoint();
    add(c, LAYER "self_attn.q_proj.weight", 18, 8);
    assert_false(map(c, &m, &st)); /* there is no W_Q beside W_Q_B */
    assert_non_null(strstr(st.message, "'model.layers.0.self_attn.q_proj.weight' is no part"));
    checkpoint_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),      cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_places),
        cmocka_unit_test(test_further_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
