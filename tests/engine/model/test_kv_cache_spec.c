/* test_kv_cache_spec.c - the KV cache's arithmetic, at small sizes and at the limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "config/limits.h"
#include "engine/model/kv_cache_spec.h"

static void test_bytes(void **state)
{
    (void)state;
    struct decoder_desc llama_8b = { .num_hidden_layers = 32,
                                     .num_attention_heads = 32,
                                     .num_key_value_heads = 8,
                                     .head_dim = 128 };
    struct kv_cache_spec s = kv_cache_spec_make(&llama_8b, DTYPE_BF16);
    assert_int_equal(kv_cache_bytes_per_token(&s), 131072); /* the well-known 128 KiB */
    assert_int_equal(kv_cache_block_bytes(&s, 16), 16 * 131072);
    assert_int_equal(kv_cache_k_block_bytes(&s, 16), 16 * 8 * 128 * 2);
    assert_int_equal(kv_cache_v_block_bytes(&s, 16), 16 * 8 * 128 * 2);
    s = kv_cache_spec_make(&llama_8b, DTYPE_F32);
    assert_int_equal(kv_cache_bytes_per_token(&s), 262144);
}

static void test_8_bits(void **state)
{
    (void)state;
    struct decoder_desc llama_8b = { .num_hidden_layers = 32,
                                     .num_key_value_heads = 8,
                                     .head_dim = 128 };
    struct kv_cache_spec s = kv_cache_spec_make(&llama_8b, DTYPE_F8_E4M3);
    assert_int_equal(kv_cache_block_bytes(&s, 16), 32 * 2 * 16 * 8 * 128);
    /* A scale for each token and head, of K and of V. */
    s = kv_cache_spec_make(&llama_8b, DTYPE_I8);
    assert_int_equal(kv_cache_block_bytes(&s, 16), 32 * 2 * 16 * 8 * (128 + 4));
    s = (struct kv_cache_spec){
        .num_layers = 1, .num_kv_heads = 1, .k_head_dim = 576, .dtype = DTYPE_I8
    };
    assert_int_equal(kv_cache_k_block_bytes(&s, 16), 16 * (576 + 4));
    assert_int_equal(kv_cache_v_block_bytes(&s, 16), 0);
}

static void test_dtype_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum dtype dtype;
    } known[] = { { "half", DTYPE_F16 },  { "float16", DTYPE_F16 },     { "bfloat16", DTYPE_BF16 },
                  { "float", DTYPE_F32 }, { "float32", DTYPE_F32 },     { "fp8", DTYPE_F8_E4M3 },
                  { "int8", DTYPE_I8 },   { "fp8_e4m3", DTYPE_F8_E4M3 } };
    enum dtype dtype;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        assert_true(kv_cache_dtype_parse(known[i].name, &dtype));
        assert_int_equal(dtype, known[i].dtype);
    }
    assert_false(kv_cache_dtype_parse("int32", &dtype));
    assert_false(kv_cache_dtype_parse("fp8_e5m2", &dtype));
    assert_false(kv_cache_dtype_parse("auto", &dtype));
}

/* DeepSeek-V3 keeps 512 + 64 elements per token and layer. */
static void test_latent(void **state)
{
    (void)state;
    struct kv_cache_spec s = {
        .num_layers = 61, .num_kv_heads = 1, .k_head_dim = 512 + 64, .dtype = DTYPE_BF16
    };
    assert_int_equal(kv_cache_bytes_per_token(&s), 61 * 576 * 2);
    assert_int_equal(kv_cache_k_block_bytes(&s, 16), 16 * 576 * 2);
    assert_int_equal(kv_cache_v_block_bytes(&s, 16), 0);
}

/* `pattern` full layers (or none: 0) follow each other with sliding ones between: layer i is full
 * where (i + 1) % pattern is 0, as in Gemma. */
static struct kv_cache_spec grouped(int32_t num_layers, int32_t pattern, int32_t window,
                                    int32_t max_model_len)
{
    static struct decoder_desc desc;
    desc = (struct decoder_desc){ .num_hidden_layers = num_layers,
                                  .num_key_value_heads = 4,
                                  .head_dim = 64,
                                  .sliding_window = window };
    for (int32_t i = 0; i < num_layers; i++)
        desc.layers[i].sliding = pattern == 0 || (i + 1) % pattern != 0;
    struct kv_cache_spec s = kv_cache_spec_make(&desc, DTYPE_F16);
    kv_cache_spec_group(&s, &desc, max_model_len, 16);
    return s;
}

static void check_groups(const struct kv_cache_spec *s, int32_t pattern, int32_t num_groups,
                         int32_t group_size)
{
    static bool used[LIMIT_KV_CACHE_GROUPS][LIMIT_NUM_LAYERS];
    memset(used, 0, sizeof used);
    assert_int_equal(s->num_groups, num_groups);
    assert_int_equal(s->group_size, group_size);
    assert_int_equal(kv_cache_block_bytes(s, 16), group_size * 2 * 4 * 64 * 2 * 16);
    for (int32_t i = 0; i < s->num_layers; i++) {
        assert_in_range(s->group[i], 0, num_groups - 1);
        assert_in_range(s->place[i], 0, group_size - 1);
        assert_false(used[s->group[i]][s->place[i]]);
        used[s->group[i]][s->place[i]] = true;
        if (num_groups > 1)
            assert_int_equal(s->sliding_window[s->group[i]] > 0, (i + 1) % pattern != 0);
    }
}

static void test_groups(void **state)
{
    (void)state;
    static const struct {
        int32_t num_layers, pattern, window, max_model_len, num_groups, group_size;
    } cases[] = {
        { 24, 2, 128, 131072, 2, 12 },  /* gpt-oss-20b */
        { 26, 2, 4096, 8192, 2, 13 },   /* Gemma 2 2B */
        { 26, 6, 512, 32768, 13, 2 },   /* Gemma 3 1B: 22 and 4 */
        { 34, 6, 1024, 131072, 7, 5 },  /* 4B: 29 and 5, one place empty */
        { 48, 6, 1024, 131072, 6, 8 },  /* 12B */
        { 62, 6, 1024, 131072, 13, 5 }, /* 27B: 52 and 10, three places of sliding groups empty */
        { 26, 6, 512, 512, 1, 26 },     /* nothing lies outside of the window */
        { 3, 2, 4, 512, 3, 1 },         /* 2 and 1 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kv_cache_spec s =
            grouped(cases[i].num_layers, cases[i].pattern, cases[i].window, cases[i].max_model_len);
        check_groups(&s, cases[i].pattern, cases[i].num_groups, cases[i].group_size);
    }
    /* Mistral: every layer slides, in one group. */
    struct kv_cache_spec s = grouped(32, 0, 4096, 32768);
    assert_int_equal(s.num_groups, 1);
    assert_int_equal(s.group_size, 32);
    assert_int_equal(s.sliding_window[0], 4096);
    /* And none slides. */
    s = grouped(32, 1, 0, 32768);
    assert_int_equal(s.num_groups, 1);
    assert_int_equal(s.sliding_window[0], 0);
    assert_int_equal(s.place[31], 31);
}

static void test_limits(void **state)
{
    (void)state;
    struct decoder_desc largest = { .num_hidden_layers = LIMIT_NUM_LAYERS,
                                    .num_key_value_heads = LIMIT_NUM_HEADS,
                                    .head_dim = LIMIT_HEAD_DIM };
    struct kv_cache_spec s = kv_cache_spec_make(&largest, DTYPE_F32);
    assert_int_equal(kv_cache_block_bytes(&s, 256), (size_t)1 << 41);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),       cmocka_unit_test(test_8_bits),
        cmocka_unit_test(test_dtype_names), cmocka_unit_test(test_latent),
        cmocka_unit_test(test_groups),      cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
