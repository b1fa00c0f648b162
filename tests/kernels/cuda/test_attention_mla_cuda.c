/* test_attention_mla_cuda.c - latent attention on the GPU against the scalar CPU: prompts, decode
 * and mixtures of both, sizes for tensor cores and others, every cache dtype; and that the bits of
 * a row depend on nothing but its own sequence up to its own position. */
#include "tests/kernels/cuda/attention_fixture.h"

static const struct workspace_desc workspace = { .max_num_tokens = MAX_TOKENS,
                                                 .max_num_seqs = MAX_PARTS,
                                                 .max_logits_rows = 1,
                                                 .max_model_len = MAX_LEN,
                                                 .block_size = 16,
                                                 .max_in_features = 64,
                                                 .max_out_features = 64,
                                                 .num_heads = 80,
                                                 .num_kv_heads = 1,
                                                 .head_dim = 576,
                                                 .latent_dim = 512,
                                                 .vocab_size = 16 };

static struct layer latent_layer(enum dtype dtype, int32_t heads, int32_t latent, int32_t rope)
{
    struct layer l;
    random_layer(&l, dtype, latent + rope);
    l.params.num_heads = heads;
    l.params.num_kv_heads = 1;
    l.params.value_head_dim = latent;
    l.params.sinks = NULL;
    return l;
}

/* 512 + 64 is DeepSeek's. 16 heads make up to 4 queries decode's; 80 take two blocks of rows. */
static void follows_the_cpu(void **state)
{
    (void)state;
    static const struct {
        int32_t latent, rope;
    } sizes[] = { { 512, 64 }, { 32, 16 }, { 264, 8 }, { 33, 6 } };
    for (int n = 0; n < NUM_CACHE_DTYPES; n++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct layer l = latent_layer(cache_dtypes[n], RANDOM_OF(1, 3, 16, 80), sizes[i].latent,
                                          sizes[i].rope);
            const int32_t len = RANDOM_OF(1, 15, 31, 32, 33, 40);
            check_layer(&l, len, len);
            check_layer(&l, RANDOM_OF(1, 64, 200, 511, 512, 513), 1);
        }
        struct layer l = latent_layer(cache_dtypes[n], 16, 64, 32);
        check_layer(&l, RANDOM_OF(520, 600, 1100), random_int(2, 12));
    }
}

static void bits_depend_on_own_sequence_only(void **state)
{
    (void)state;
    for (int n = 0; n < NUM_CACHE_DTYPES; n++) {
        struct layer small = latent_layer(cache_dtypes[n], RANDOM_OF(3, 16, 70), 40, 8);
        check_layer_bits(&small, random_int(30, 60));
        struct layer odd = latent_layer(cache_dtypes[n], 3, 17, 4);
        check_layer_bits(&odd, random_int(1, 60));
    }
    struct layer large = latent_layer(DTYPE_BF16, 8, 512, 64);
    check_layer_bits(&large, random_int(20, 50));
}

/* Past the first span: what a prompt computes among others, decode computes alone. */
static void spans_are_merged_alike(void **state)
{
    (void)state;
    for (int n = 1; n < NUM_CACHE_DTYPES; n++) {
        struct layer l = latent_layer(cache_dtypes[n], 9, 64, 16);
        l.params.sliding_window = RANDOM_OF(0, 900, 530);
        const int32_t len = random_int(1040, 1090);
        struct sequence s = random_sequence(&l, len);
        struct part many = new_part(&s, len - 9, len), one = new_part(&s, len - 1, len);
        run_gpu(&l, &many, 1);
        run_gpu(&l, &one, 1);
        struct tensor same = rows_of(&many.out, 8, 1);
        assert_tensors_equal(&one.out, &same, describe(&l));
        free(many.out.data);
        free(one.out.data);
        free_sequence(&s);
    }
}

static void empty_queries(void **state)
{
    (void)state;
    for (int n = 0; n < NUM_CACHE_DTYPES; n++) {
        struct layer l = latent_layer(cache_dtypes[n], 5, 64, 16);
        struct sequence s = random_sequence(&l, 30);
        struct part parts[3] = { new_part(&s, 30, 30), new_part(&s, 10, 30), new_part(&s, 7, 7) };
        struct part want = new_part(&s, 10, 30);
        run_cpu(&l, &want, 1);
        run_gpu(&l, parts, 3);
        assert_tensors_close(&parts[1].out, &want.out, tolerance(l.dtype), tolerance(l.dtype),
                             "with empty neighbours");
        run_gpu(&l, parts, 1);
        run_gpu(&l, parts, 0);
        for (int i = 0; i < 3; i++)
            free(parts[i].out.data);
        free(want.out.data);
        free_sequence(&s);
    }
}

static void bits_on_gpus_with_less_shared_memory(void **state)
{
    (void)state;
    if (!gpu_is_emulated())
        skip();
    for (int n = 1; n < NUM_CACHE_DTYPES; n++) {
        struct layer l = latent_layer(cache_dtypes[n], RANDOM_OF(3, 16, 80), 512, 64);
        check_less_shared_memory(&l, &workspace, 90, 1);
        check_less_shared_memory(&l, &workspace, 40, 33);
        l = latent_layer(cache_dtypes[n], 5, 64, 32);
        check_less_shared_memory(&l, &workspace, random_int(1030, 1090), 40);
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_cpu),
        cmocka_unit_test(bits_depend_on_own_sequence_only),
        cmocka_unit_test(spans_are_merged_alike),
        cmocka_unit_test(empty_queries),
        cmocka_unit_test(bits_on_gpus_with_less_shared_memory),
    };
    return gpu_run_tests(tests, workspace);
}
