/* test_kv_cache_spec.c - the KV cache's arithmetic, at small sizes and at the limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_latent),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
