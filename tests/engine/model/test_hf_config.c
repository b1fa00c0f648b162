/* test_hf_config.c - what config.json and generation_config.json may say, and what they may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/config_helper.h"

#include <math.h>
#include <unistd.h>

static void test_good_config(void **state)
{
    (void)state;
    struct decoder_desc d = desc_of("{}");
    assert_string_equal(d.architecture, "LlamaForCausalLM");
    assert_string_equal(d.model_type, "llama");
    assert_int_equal(d.hidden_size, 64);
    assert_int_equal(d.intermediate_size, 172);
    assert_int_equal(d.num_hidden_layers, 5);
    assert_int_equal(d.vocab_size, 512);
    assert_int_equal(d.num_attention_heads, 8);
    assert_int_equal(d.num_key_value_heads, 4);
    assert_int_equal(d.head_dim, 8);
    assert_int_equal(d.max_position_embeddings, 256);
    assert_int_equal(d.hidden_act, ACT_SILU);
    assert_true(d.rms_norm_eps == 1e-5f);
    assert_true(d.attention_scale == (float)(1 / sqrt(8)));
    assert_true(d.tie_word_embeddings);
    assert_false(d.attention_bias || d.attention_o_bias || d.mlp_bias);
    assert_int_equal(d.checkpoint_dtype, DTYPE_F32);
    assert_int_equal(d.bos_token_id, 1);
    assert_int_equal(d.num_eos_token_ids, 1);
    assert_int_equal(d.eos_token_ids[0], 2);
}

/* What transformers' LlamaConfig assumes of keys that are not there, or null. */
static void test_defaults(void **state)
{
    (void)state;
    static const char *const absent[] = {
        "{\"num_key_value_heads\":\"-\",\"max_position_embeddings\":\"-\",\"hidden_act\":\"-\","
        "\"rms_norm_eps\":\"-\",\"rope_theta\":\"-\",\"tie_word_embeddings\":\"-\","
        "\"attention_bias\":\"-\",\"mlp_bias\":\"-\",\"bos_token_id\":\"-\",\"eos_token_id\":\"-\","
        "\"model_type\":\"-\",\"torch_dtype\":\"-\"}",
        "{\"num_key_value_heads\":null,\"max_position_embeddings\":null,\"hidden_act\":null,"
        "\"rms_norm_eps\":null,\"rope_theta\":null,\"tie_word_embeddings\":null,"
        "\"attention_bias\":null,\"mlp_bias\":null,\"bos_token_id\":null,\"eos_token_id\":null,"
        "\"head_dim\":null,\"model_type\":null,\"torch_dtype\":null,\"quantization_config\":null}",
    };
    for (int i = 0; i < 2; i++) {
        struct decoder_desc d = desc_of(absent[i]);
        assert_int_equal(d.num_key_value_heads, 8);
        assert_int_equal(d.max_position_embeddings, 2048);
        assert_int_equal(d.hidden_act, ACT_SILU);
        assert_true(d.rms_norm_eps == 1e-6f);
        assert_true(d.rope.theta == 10000.0);
        assert_false(d.tie_word_embeddings || d.attention_bias || d.mlp_bias);
        assert_int_equal(d.bos_token_id, -1);
        assert_int_equal(d.num_eos_token_ids, 0);
    }
}

static void test_values(void **state)
{
    (void)state;
    struct decoder_desc d = desc_of("{\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":20}");
    assert_true(d.attention_bias && d.attention_o_bias && d.mlp_bias);
    assert_int_equal(d.head_dim, 20);
    assert_int_equal(d.rope.rotary_dim, 20);
    assert_true(d.attention_scale == (float)(1 / sqrt(20)));

    d = desc_of("{\"torch_dtype\":\"bfloat16\",\"eos_token_id\":[2,5,2,511]}");
    assert_int_equal(d.checkpoint_dtype, DTYPE_BF16);
    assert_int_equal(d.num_eos_token_ids, 3);
    assert_int_equal(d.eos_token_ids[2], 511);
    assert_int_equal(desc_of("{\"torch_dtype\":\"-\",\"dtype\":\"float16\"}").checkpoint_dtype,
                     DTYPE_F16);
    assert_int_equal(desc_of("{\"dtype\":\"float32\"}").checkpoint_dtype, DTYPE_F32);
    /* Unknown keys, and known names beside unknown ones. */
    d = desc_of("{\"pretraining_tp\":8,\"use_cache\":1,\"architectures\":[\"X\","
                "\"LlamaForCausalLM\"],\"partial_rotary_factor\":1.0}");
    assert_string_equal(d.architecture, "LlamaForCausalLM");

    static const struct {
        const char *patch;
        enum activation act;
    } acts[] = { { "{\"hidden_act\":\"swish\"}", ACT_SILU },
                 { "{\"hidden_act\":\"gelu\"}", ACT_GELU },
                 { "{\"hidden_act\":\"gelu_pytorch_tanh\"}", ACT_GELU_TANH },
                 { "{\"hidden_act\":\"gelu_new\"}", ACT_GELU_TANH },
                 { "{\"hidden_act\":\"relu\"}", ACT_RELU } };
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        assert_int_equal(desc_of(acts[i].patch).hidden_act, acts[i].act);
}

static void test_refused(void **state)
{
    static const struct {
        const char *patch, *words;
    } cases[] = {
        { "{\"architectures\":\"-\"}", "\"architectures\" is missing" },
        { "{\"architectures\":[]}", "\"architectures\" is missing" },
        { "{\"architectures\":\"LlamaForCausalLM\"}", "\"architectures\" is missing" },
        { "{\"architectures\":[7]}", "[7] are not supported" },
        { "{\"architectures\":[\"Qwen9ForCausalLM\"]}",
          "[\"Qwen9ForCausalLM\"] are not supported; known: LlamaForCausalLM" },
        { "{\"hidden_size\":\"-\"}", "\"hidden_size\" is missing" },
        { "{\"hidden_size\":null}", "\"hidden_size\" is missing" },
        { "{\"hidden_size\":0}", "hidden_size is 0, expected a whole number from 1 to 65536" },
        { "{\"hidden_size\":-64}", "hidden_size is -64" },
        { "{\"hidden_size\":64.0}", "hidden_size is 64.0" },
        { "{\"hidden_size\":\"64\"}", "hidden_size is \"64\"" },
        { "{\"hidden_size\":65537}", "hidden_size is 65537" },
        { "{\"hidden_size\":9223372036854775807}", "hidden_size is 9223372036854775807" },
        { "{\"hidden_size\":[64]}", "hidden_size is [64]" },
        { "{\"intermediate_size\":1048577}", "intermediate_size" },
        { "{\"num_hidden_layers\":1025}", "num_hidden_layers" },
        { "{\"num_hidden_layers\":0}", "num_hidden_layers" },
        { "{\"vocab_size\":1}", "vocab_size" },
        { "{\"vocab_size\":4194305}", "vocab_size" },
        { "{\"num_attention_heads\":0}", "num_attention_heads" },
        { "{\"num_attention_heads\":7}", "num_attention_heads 7" },
        { "{\"num_attention_heads\":7,\"num_key_value_heads\":7}", "hidden_size 64 over" },
        { "{\"num_key_value_heads\":0}", "num_key_value_heads" },
        { "{\"num_key_value_heads\":3}", "no multiple of num_key_value_heads 3" },
        { "{\"num_key_value_heads\":16}", "no multiple" },
        { "{\"head_dim\":0}", "head_dim is 0" },
        { "{\"head_dim\":1025}", "head_dim is 1025" },
        { "{\"head_dim\":9}", "head_dim 9 is odd" },
        { "{\"hidden_size\":16384,\"num_attention_heads\":8}", "gives no head size up to 1024" },
        { "{\"max_position_embeddings\":16777217}", "max_position_embeddings" },
        { "{\"rms_norm_eps\":-1e-5}", "rms_norm_eps is -1" },
        { "{\"rms_norm_eps\":\"x\"}", "rms_norm_eps is \"x\"" },
        { "{\"hidden_act\":\"xielu\"}", "hidden_act is \"xielu\"" },
        { "{\"hidden_act\":1}", "hidden_act is 1" },
        { "{\"tie_word_embeddings\":1}", "tie_word_embeddings is 1, expected true or false" },
        { "{\"attention_bias\":\"yes\"}", "attention_bias" },
        { "{\"partial_rotary_factor\":0.5}", "partial_rotary_factor is 0.5" },
        { "{\"torch_dtype\":\"float64\"}", "dtype is \"float64\"" },
        { "{\"torch_dtype\":\"int32\"}", "dtype is \"int32\"" },
        { "{\"torch_dtype\":16}", "dtype is 16" },
        { "{\"dtype\":\"bfloat16\"}", "dtype is \"bfloat16\" but torch_dtype is \"float32\"" },
        { "{\"bos_token_id\":512}", "bos_token_id is 512" },
        { "{\"bos_token_id\":-1}", "bos_token_id is -1" },
        { "{\"eos_token_id\":512}", "eos_token_id holds 512" },
        { "{\"eos_token_id\":[1,\"2\"]}", "eos_token_id holds \"2\"" },
        { "{\"eos_token_id\":{}}", "eos_token_id holds {}" },
        { "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "more than 16" },
        { "{\"hidden_act\":\"\\u001b[31m\\n\"}", "hidden_act is \"\\u001B[31m\\n\"" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_config_refused(cases[i].patch, cases[i].words);
}

/* A value too long for a message is cut, not left out. */
static void test_long_value(void **state)
{
    char patch[2100];
    (void)state;
    snprintf(patch, sizeof patch, "{\"hidden_act\":\"%02000d\"}", 7);
    expect_config_refused(patch, "hidden_act is \"00000000");
    expect_config_refused(patch, "0...");
}

/* --- real shapes ----------------------------------------------------------------------------- */

static struct decoder_desc read_shape(const char *name)
{
    char path[128];
    struct decoder_desc desc;
    struct hf_config hf;
    struct status st;
    snprintf(path, sizeof path, "../shared/shapes/%s/config.json", name);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    if (!hf_config_read(config, &desc, &hf, &st))
        fail_msg("%s: %s", path, st.message);
    json_decref(config);
    return desc;
}

static void test_real_shapes(void **state)
{
    (void)state;
    if (access("../shared/shapes/llama-3.2-1b/config.json", R_OK) != 0) {
        print_message("skip: ../shared/shapes is not here\n");
        skip();
    }
    struct decoder_desc d = read_shape("llama-3.2-1b");
    assert_int_equal(d.head_dim, 64);
    assert_int_equal(d.rope.type, ROPE_LLAMA3);
    assert_int_equal(d.rope.original_max_position_embeddings, 8192);
    assert_int_equal(d.checkpoint_dtype, DTYPE_BF16);
    assert_int_equal(d.eos_token_ids[0], 128001);
    d = read_shape("llama-3.1-8b");
    assert_int_equal(d.head_dim, 128);
    d = read_shape("smollm2-135m");
    assert_int_equal(d.head_dim, 64);
    assert_int_equal(d.num_key_value_heads, 3);
}

/* --- generation_config.json ------------------------------------------------------------------ */

static bool read_generation(const char *text, struct decoder_desc *desc,
                            struct sampling_params *params, int32_t *cap, struct status *st)
{
    json_t *generation = json_loads(text, 0, NULL);
    assert_non_null(generation);
    *desc = desc_of("{}");
    sampling_params_defaults(params);
    *cap = 0;
    status_clear(st);
    bool ok = hf_generation_config_read(generation, desc, params, cap, st);
    json_decref(generation);
    return ok;
}

static void test_generation_config(void **state)
{
    struct decoder_desc desc;
    struct sampling_params p, untouched;
    struct status st;
    int32_t cap;
    (void)state;
    sampling_params_defaults(&untouched);
    assert_true(read_generation("{\"_from_model_config\":true,\"temperature\":null}", &desc, &p,
                                &cap, &st));
    assert_memory_equal(&p, &untouched, sizeof p);
    assert_int_equal(cap, 0);

    /* do_sample is not looked at; keys that vLLM does not take stay at their defaults. */
    assert_true(read_generation(
        "{\"do_sample\":false,\"temperature\":0.6,\"top_p\":0.9,\"top_k\":20,\"min_p\":0.05,"
        "\"repetition_penalty\":1.05,\"max_new_tokens\":77,\"eos_token_id\":[2,3],\"seed\":5,"
        "\"min_tokens\":9,\"presence_penalty\":1}",
        &desc, &p, &cap, &st));
    assert_true(p.temperature == 0.6f && p.top_p == 0.9f && p.min_p == 0.05f);
    assert_true(p.repetition_penalty == 1.05f);
    assert_int_equal(p.top_k, 20);
    assert_int_equal(cap, 77);
    assert_int_equal(p.seed, untouched.seed);
    assert_int_equal(p.min_tokens, untouched.min_tokens);
    assert_true(p.presence_penalty == untouched.presence_penalty);
    assert_int_equal(desc.num_eos_token_ids, 2);
    assert_int_equal(desc.eos_token_ids[1], 3);

    static const struct {
        const char *text, *words;
    } cases[] = {
        { "{\"temperature\":-0.5}", "temperature is -0.5" },
        { "{\"temperature\":\"hot\"}", "temperature is \"hot\"" },
        { "{\"top_p\":0}", "top_p is 0, expected a number above 0" },
        { "{\"top_p\":1.5}", "top_p is 1.5" },
        { "{\"top_k\":-2}", "top_k is -2" },
        { "{\"top_k\":1.5}", "top_k is 1.5" },
        { "{\"min_p\":2}", "min_p is 2" },
        { "{\"repetition_penalty\":0}", "repetition_penalty is 0" },
        { "{\"max_new_tokens\":0}", "max_new_tokens is 0" },
        { "{\"max_new_tokens\":99999999999}", "max_new_tokens" },
        { "{\"eos_token_id\":[1,1000]}", "eos_token_id holds 1000" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool ok = read_generation(cases[i].text, &desc, &p, &cap, &st);
        if (ok || !strstr(st.message, cases[i].words) ||
            !strstr(st.message, "generation_config.json"))
            fail_msg("%s: %s", cases[i].text, ok ? "(taken)" : st.message);
    }
}

/* --- rows over a base ------------------------------------------------------------------------ */

/* A child's row replaces the base's of the same key, and finish() runs last. */
static bool finish_child(struct decoder_desc *desc, const json_t *config, struct status *st)
{
    (void)config;
    (void)st;
    assert_int_equal(desc->max_position_embeddings, 256);
    desc->attention_scale = 3;
    return true;
}

static void test_table_of_all(void **state)
{
    (void)state;
    for (const struct model_arch *const *a = model_archs; *a; a++) {
        assert_non_null((*a)->architectures[0]);
        assert_ptr_equal(model_arch_find((*a)->architectures[0]), *a);
    }
    assert_null(model_arch_find("NoSuchModel"));
    assert_null(model_arch_find(""));
}

static void test_extension(void **state)
{
    static const struct config_key rows[] = {
        { "head_dim", FIELD(head_dim), REQUIRED, .min = 1, .max = 64 },
        { "hidden_act", FIELD(hidden_act), OPTIONAL, .fallback = ACT_GELU },
        { 0 },
    };
    const struct model_arch child = { .architectures = { "ChildForCausalLM" },
                                      .base = model_arch_find("LlamaForCausalLM"),
                                      .config = rows,
                                      .finish = finish_child };
    struct decoder_desc desc = { 0 };
    struct status st;
    (void)state;
    json_t *config = patched_config("{}");
    assert_false(hf_config_apply(&child, config, &desc, &st));
    assert_non_null(strstr(st.message, "\"head_dim\" is missing"));
    json_decref(config);

    config = patched_config("{\"head_dim\":16,\"hidden_act\":null}");
    assert_true(hf_config_apply(&child, config, &desc, &st));
    assert_int_equal(desc.head_dim, 16);
    assert_int_equal(desc.hidden_act, ACT_GELU);
    assert_int_equal(desc.hidden_size, 64); /* from the base's row */
    assert_true(desc.attention_scale == 3);
    json_decref(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_config),  cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_long_value),   cmocka_unit_test(test_real_shapes),
        cmocka_unit_test(test_table_of_all), cmocka_unit_test(test_generation_config),
        cmocka_unit_test(test_extension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
