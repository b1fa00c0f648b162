/* test_gguf_config.c - keys of GGUF files as a config.json, what is refused, and tensors' names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/gguf_arch.h"
#include "engine/model/hf_config.h"
#include "tests/engine/model/gguf_builder.h"

enum { F32 = 0 };

/* A model of two layers that every family takes. */
static void build(struct builder *b, const char *arch)
{
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = { { "context_length", 64 },      { "embedding_length", 32 },
                  { "block_count", 2 },          { "feed_forward_length", 48 },
                  { "attention.head_count", 4 }, { "attention.head_count_kv", 2 } };
    char key[96];
    builder_open(b);
    key_text(b, "general.architecture", arch);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, sizes[i].key);
        key_u32(b, key, sizes[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    key_f32(b, key, 1e-5f);
    key_texts(b, "tokenizer.ggml.tokens", 40);
    b->data_bytes = 256;
}

struct translated {
    struct gguf *g;
    unsigned char *bytes;
    const struct gguf_arch *arch;
    json_t *config;
    struct status st;
};

/* Closes the builder. False with a message in t->st. */
static bool translate(struct builder *b, struct translated *t)
{
    size_t size;
    memset(t, 0, sizeof *t);
    t->bytes = builder_file(b, &size);
    builder_close(b);
    t->g = read_memory(t->bytes, size, &t->st);
    if (!t->g)
        fail_msg("%s", t->st.message);
    t->arch = gguf_arch_find(t->g, &t->st);
    t->config = t->arch ? gguf_config(t->g, t->arch, &t->st) : NULL;
    return t->config != NULL;
}

static void release(struct translated *t)
{
    json_decref(t->config);
    gguf_close(t->g);
    free(t->bytes);
}

static void expect_refused(struct builder *b, const char *words)
{
    struct translated t;
    if (translate(b, &t) || !strstr(t.st.message, words) || !strstr(t.st.message, "x.gguf"))
        fail_msg("expected: %s\n  message:  %s", words, t.config ? "(taken)" : t.st.message);
    release(&t);
}

/* What `path` ("rope_scaling.factor") has in the configuration must be `json`; NULL: nothing. */
static void expect_json(const struct translated *t, const char *path, const char *json)
{
    char first[64];
    const char *dot = strchr(path, '.');
    snprintf(first, sizeof first, "%.*s", dot ? (int)(dot - path) : 63, path);
    const json_t *value = json_object_get(t->config, first);
    if (dot)
        value = json_object_get(value, dot + 1);
    json_t *expected = json ? json_loads(json, JSON_DECODE_ANY, NULL) : NULL;
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    if (json ? !json_equal(value, expected) : value != NULL)
        fail_msg("%s is %s, expected %s", path, text ? text : "(nothing)", json);
    free(text);
    json_decref(expected);
}

/* Reads it as the engine does. */
static void expect_desc(const struct translated *t, struct decoder_desc *desc)
{
    struct hf_config hf;
    struct status st;
    if (!hf_config_read(t->config, desc, &hf, &st))
        fail_msg("%s", st.message);
    gguf_arch_apply(t->arch, desc);
}

static void test_llama(void **state)
{
    (void)state;
    static struct decoder_desc desc;
    struct builder b;
    struct translated t;
    build(&b, "llama");
    key_f32(&b, "llama.rope.freq_base", 500000.0f);
    key_u32(&b, "llama.rope.dimension_count", 8);
    key_u32(&b, "tokenizer.ggml.bos_token_id", 1);
    key_u32(&b, "tokenizer.ggml.eos_token_id", 2);
    key_u32(&b, "tokenizer.ggml.eot_token_id", 3);
    add_tensor(&b, "token_embd.weight", 4, 4, F32, 0);
    assert_true(translate(&b, &t));
    expect_json(&t, "architectures", "[\"LlamaForCausalLM\"]");
    expect_json(&t, "vocab_size", "40");
    expect_json(&t, "rope_theta", "500000.0");
    expect_json(&t, "rope_scaling", NULL);
    expect_json(&t, "head_dim", "8");
    expect_json(&t, "partial_rotary_factor", NULL);
    expect_json(&t, "tie_word_embeddings", "true");
    expect_json(&t, "bos_token_id", "1");
    expect_json(&t, "eos_token_id", "[2, 3]");
    expect_desc(&t, &desc);
    assert_true(desc.rope.interleaved);
    assert_int_equal(desc.num_key_value_heads, 2);
    assert_true(desc.rms_norm_eps == 1e-5f);
    release(&t);
}

static void test_variants_of_llama(void **state)
{
    (void)state;
    struct builder b;
    struct translated t;
    build(&b, "llama");
    key_u32(&b, "llama.expert_count", 4);
    key_u32(&b, "llama.expert_used_count", 2);
    assert_true(translate(&b, &t));
    expect_json(&t, "architectures", "[\"MixtralForCausalLM\"]");
    expect_json(&t, "num_local_experts", "4");
    expect_json(&t, "sliding_window", "null");
    release(&t);
    build(&b, "llama");
    key_u32(&b, "llama.attention.sliding_window", 16);
    key_u32(&b, "llama.expert_count", 0);
    assert_true(translate(&b, &t));
    expect_json(&t, "architectures", "[\"MistralForCausalLM\"]");
    expect_json(&t, "sliding_window", "16");
    release(&t);
    build(&b, "llama");
    key_u32(&b, "llama.expert_count", 4);
    expect_refused(&b, "key 'llama.expert_used_count' is missing");
}

static void test_gemma(void **state)
{
    (void)state;
    static struct decoder_desc desc;
    struct builder b;
    struct translated t;
    build(&b, "gemma2");
    key_f32(&b, "gemma2.attn_logit_softcapping", 50);
    assert_true(translate(&b, &t));
    expect_json(&t, "sliding_window", "4096");
    expect_json(&t, "query_pre_attn_scalar", "8");
    expect_json(&t, "layer_types", "[\"sliding_attention\", \"full_attention\"]");
    expect_json(&t, "attn_logit_softcapping", "50.0");
    expect_desc(&t, &desc);
    assert_true(desc.traits.norm_weight_offset == 0);
    assert_false(desc.rope.interleaved);
    release(&t);
    build(&b, "gemma3"); /* no window: nothing slides */
    assert_true(translate(&b, &t));
    expect_json(&t, "layer_types", "[\"full_attention\", \"full_attention\"]");
    expect_json(&t, "sliding_window", "null");
    expect_desc(&t, &desc);
    release(&t);
    build(&b, "gemma3");
    key_u32(&b, "gemma3.attention.sliding_window", 16);
    key_f32(&b, "gemma3.rope.freq_base_swa", 100);
    put_u32(key_begin(&b, "gemma3.attention.sliding_window_pattern", GGUF_ARRAY), GGUF_BOOL);
    put_u64(&b.keys, 2);
    put(&b.keys, "\0\1", 2);
    assert_true(translate(&b, &t));
    expect_json(&t, "layer_types", "[\"full_attention\", \"sliding_attention\"]");
    expect_desc(&t, &desc);
    assert_true(desc.sliding_rope.theta == 100 && desc.layers[1].sliding);
    release(&t);
    build(&b, "gemma3");
    put_u32(key_begin(&b, "gemma3.attention.sliding_window_pattern", GGUF_ARRAY), GGUF_BOOL);
    put_u64(&b.keys, 1);
    put(&b.keys, "\1", 1);
    expect_refused(&b, "sliding_window_pattern' has 1 entries, expected one for each of 2 layers");
}

static void test_attention_scale_of_the_largest(void **state)
{
    (void)state;
    struct builder b;
    struct translated t;
    builder_open(&b);
    key_text(&b, "general.architecture", "gemma2");
    key_u32(&b, "gemma2.context_length", 64);
    key_u32(&b, "gemma2.embedding_length", 96);
    key_u32(&b, "gemma2.block_count", 46); /* 27B */
    key_u32(&b, "gemma2.feed_forward_length", 48);
    key_u32(&b, "gemma2.attention.head_count", 4);
    key_u32(&b, "gemma2.attention.key_length", 16);
    key_u32(&b, "gemma2.attention.value_length", 16);
    key_f32(&b, "gemma2.attention.layer_norm_rms_epsilon", 1e-6f);
    key_u32(&b, "gemma2.vocab_size", 40);
    assert_true(translate(&b, &t));
    expect_json(&t, "query_pre_attn_scalar", "24");
    expect_json(&t, "head_dim", "16");
    expect_json(&t, "num_key_value_heads", "4");
    release(&t);
}

static void put_factors(struct builder *b, const char *name, uint64_t offset)
{
    const uint64_t dims[1] = { 4 };
    add_tensor_full(b, name, 1, dims, F32, offset);
}

static void test_rope(void **state)
{
    (void)state;
    struct builder b;
    struct translated t;
    build(&b, "llama");
    key_text(&b, "llama.rope.scaling.type", "linear");
    key_f32(&b, "llama.rope.scaling.factor", 4);
    assert_true(translate(&b, &t));
    expect_json(&t, "rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 4.0}");
    release(&t);
    build(&b, "llama"); /* as old files say it */
    key_f32(&b, "llama.rope.scale_linear", 2);
    assert_true(translate(&b, &t));
    expect_json(&t, "rope_scaling.factor", "2.0");
    release(&t);
    build(&b, "qwen2");
    key_text(&b, "qwen2.rope.scaling.type", "yarn");
    key_f32(&b, "qwen2.rope.scaling.factor", 4);
    key_u32(&b, "qwen2.rope.scaling.original_context_length", 32);
    key_f32(&b, "qwen2.rope.scaling.yarn_beta_fast", 16);
    assert_true(translate(&b, &t));
    expect_json(&t, "rope_scaling",
                "{\"rope_type\": \"yarn\", \"factor\": 4.0, \"beta_fast\": 16.0, "
                "\"original_max_position_embeddings\": 32}");
    release(&t);
    build(&b, "qwen2");
    key_text(&b, "qwen2.rope.scaling.type", "none");
    key_f32(&b, "qwen2.rope.scaling.factor", 4);
    assert_true(translate(&b, &t));
    expect_json(&t, "rope_scaling", NULL);
    release(&t);
    build(&b, "llama");
    put_factors(&b, "rope_freqs.weight", 0);
    assert_true(translate(&b, &t));
    expect_json(&t, "rope_scaling",
                "{\"rope_type\": \"longrope\", \"long_factor\": [0.0, 0.0, 0.0, 0.0], "
                "\"short_factor\": [0.0, 0.0, 0.0, 0.0]}");
    release(&t);
    build(&b, "phi3");
    key_u32(&b, "phi3.rope.scaling.original_context_length", 16);
    key_f32(&b, "phi3.rope.scaling.attn_factor", 1.5f);
    key_u32(&b, "phi3.rope.dimension_count", 6);
    put_factors(&b, "rope_factors_long.weight", 0);
    put_factors(&b, "rope_factors_short.weight", 32);
    assert_true(translate(&b, &t));
    expect_json(&t, "original_max_position_embeddings", "16");
    expect_json(&t, "rope_scaling.attention_factor", "1.5");
    expect_json(&t, "rope_scaling.rope_type", "\"longrope\"");
    double share = json_number_value(json_object_get(t.config, "partial_rotary_factor"));
    assert_int_equal((int32_t)(8 * share), 6);
    release(&t);
}

static void test_refused(void **state)
{
    (void)state;
    struct builder b;
    builder_open(&b);
    expect_refused(&b, "key 'general.architecture' is missing");
    build(&b, "mamba");
    expect_refused(&b, "architecture \"mamba\" (key general.architecture) is not supported; known: "
                       "llama, qwen2, qwen2moe, qwen3, qwen3moe, gemma2, gemma3, phi3");
    builder_open(&b);
    key_u32(&b, "general.architecture", 1);
    expect_refused(&b, "key 'general.architecture' is uint32, expected a string");
    builder_open(&b);
    key_text(&b, "general.architecture", "llama");
    expect_refused(&b, "key 'llama.embedding_length' is missing");
    build(&b, "llama");
    key_u32(&b, "llama.attention.value_length", 16);
    expect_refused(&b, "heads of 8 elements in keys (8 of which rotate) and 16 in values");
    build(&b, "llama");
    key_u32(&b, "llama.rope.dimension_count", 9);
    expect_refused(&b, "9 of which rotate");
    build(&b, "llama");
    key_text(&b, "llama.rope.scaling.type", "spiral");
    expect_refused(&b, "'llama.rope.scaling.type' is \"spiral\"; known are none, linear, yarn");
    build(&b, "llama");
    key_text(&b, "llama.rope.scaling.type", "yarn");
    key_f32(&b, "llama.rope.scaling.factor", 2);
    key_f32(&b, "llama.rope.scaling.yarn_ext_factor", 0.5f);
    expect_refused(&b, "yarn with an ext_factor of 0.5");
    build(&b, "llama");
    key_f32(&b, "llama.rope.scaling.factor", 2);
    put_factors(&b, "rope_freqs.weight", 0);
    expect_refused(&b, "rope factors in a tensor together with a rope.scaling.factor of 2");
    build(&b, "llama");
    add_tensor(&b, "rope_freqs.weight", 2, 2, F32, 0);
    expect_refused(&b, "tensor 'rope_freqs.weight' is [2, 2] of F32, expected");
    build(&b, "llama");
    key_bool(&b, "llama.attention.causal", 0);
    expect_refused(&b, "attention.causal is false");
    build(&b, "llama");
    key_u32(&b, "llama.expert_gating_func", 2);
    expect_refused(&b, "expert_gating_func 2");
    build(&b, "llama");
    key_u32(&b, "tokenizer.ggml.eos_token_id", UINT32_MAX);
    expect_refused(&b, "key 'tokenizer.ggml.eos_token_id' is 4294967295");
}

static void test_generation(void **state)
{
    (void)state;
    struct builder b;
    struct translated t;
    build(&b, "llama");
    key_f32(&b, "general.sampling.temp", 0.5f);
    key_u32(&b, "general.sampling.top_k", 20);
    assert_true(translate(&b, &t));
    json_t *generation = gguf_generation_config(t.g, &t.st);
    json_t *expected = json_loads("{\"temperature\": 0.5, \"top_k\": 20}", 0, NULL);
    assert_true(json_equal(generation, expected));
    json_decref(generation);
    json_decref(expected);
    release(&t);
}

/* --- names ----------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    (void)state;
    struct builder b;
    struct translated t;
    const uint64_t stack[3] = { 4, 2, 3 }, row[1] = { 4 };
    build(&b, "qwen2moe");
    key_u32(&b, "qwen2moe.expert_count", 3);
    key_u32(&b, "qwen2moe.expert_used_count", 2);
    key_u32(&b, "qwen2moe.expert_feed_forward_length", 2);
    add_tensor(&b, "token_embd.weight", 4, 1, F32, 0);
    add_tensor_full(&b, "blk.1.attn_q.bias", 1, row, F32, 32);
    add_tensor_full(&b, "blk.1.ffn_gate_inp_shexp.weight", 1, row, F32, 64);
    add_tensor_full(&b, "blk.0.ffn_up_exps.weight", 3, stack, F32, 96);
    add_tensor_full(&b, "blk.01.attn_q.bias", 1, row, F32, 192);
    add_tensor_full(&b, "strange.weight", 1, row, F32, 224);
    add_tensor_full(&b, "rope_freqs.weight", 1, row, F32, 256);
    b.data_bytes = 288;
    assert_true(translate(&b, &t));
    assert_true(gguf_rename_tensors(t.g, t.arch, &t.st));
    const struct checkpoint *c = t.g->checkpoint;
    assert_int_equal(c->num_tensors, 8);
    assert_non_null(checkpoint_find(c, "model.embed_tokens.weight"));
    assert_non_null(checkpoint_find(c, "model.layers.1.self_attn.q_proj.bias"));
    assert_non_null(checkpoint_find(c, "strange.weight"));
    assert_non_null(checkpoint_find(c, "blk.01.attn_q.bias"));
    const struct checkpoint_tensor *gate =
        checkpoint_find(c, "model.layers.1.mlp.shared_expert_gate.weight");
    assert_int_equal(gate->num_dims, 2);
    assert_int_equal(gate->shape[0], 1);
    assert_int_equal(gate->shape[1], 4);
    const struct checkpoint_tensor *first =
        checkpoint_find(c, "model.layers.0.mlp.experts.0.up_proj.weight");
    const struct checkpoint_tensor *last =
        checkpoint_find(c, "model.layers.0.mlp.experts.2.up_proj.weight");
    assert_int_equal(last->num_dims, 2);
    assert_int_equal(last->shape[0], 2);
    assert_int_equal(last->shape[1], 4);
    assert_int_equal(last->size_bytes, 32);
    assert_ptr_equal(last->data, first->data + 64);
    release(&t);
}

static void test_hostile_names(void **state)
{
    static const struct {
        const char *name;
        uint64_t experts;
        const char *words;
    } cases[] = { { "blk.1024.attn_q.weight", 1, "at most 1024 layers" },
                  { "blk.0.ffn_up_exps.weight", 2000, "expected one with up to 1024 experts" } };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct builder b;
        struct translated t;
        const uint64_t dims[2] = { 1, cases[i].experts };
        build(&b, "qwen3");
        add_tensor_full(&b, cases[i].name, 2, dims, F32, 0);
        b.data_bytes = 8000;
        assert_true(translate(&b, &t));
        if (gguf_rename_tensors(t.g, t.arch, &t.st) || !strstr(t.st.message, cases[i].words))
            fail_msg("expected: %s\n  message:  %s", cases[i].words, t.st.message);
        release(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),         cmocka_unit_test(test_variants_of_llama),
        cmocka_unit_test(test_gemma),         cmocka_unit_test(test_attention_scale_of_the_largest),
        cmocka_unit_test(test_rope),          cmocka_unit_test(test_refused),
        cmocka_unit_test(test_generation),    cmocka_unit_test(test_names),
        cmocka_unit_test(test_hostile_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
