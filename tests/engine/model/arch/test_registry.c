/* test_registry.c - what each architecture makes of configurations as they are published, what it
 * refuses, and that the README's table is what the rows say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/config_helper.h"
#include "engine/model/model.h"

#include <math.h>
#include <stdlib.h>

/* --- published configurations, shortened to what bears on the description --- */

static struct decoder_desc read_text(const char *text)
{
    struct decoder_desc desc;
    struct hf_config hf;
    struct status st;
    json_error_t error;
    json_t *config = json_loads(text, 0, &error);
    if (!config)
        fail_msg("%s: %s", error.text, text);
    if (!hf_config_read(config, &desc, &hf, &st))
        fail_msg("%s: %s", st.message, text);
    json_decref(config);
    return desc;
}

static int32_t sliding_layers(const struct decoder_desc *d)
{
    int32_t count = 0;
    for (int32_t i = 0; i < d->num_hidden_layers; i++)
        count += d->layers[i].sliding;
    return count;
}

#define SIZES(hidden, inner, layers, heads, kv_heads, vocab)                                       \
    "\"hidden_size\":" #hidden ",\"intermediate_size\":" #inner ",\"num_hidden_layers\":" #layers  \
    ",\"num_attention_heads\":" #heads ",\"num_key_value_heads\":" #kv_heads                       \
    ",\"vocab_size\":" #vocab ","

static void test_qwen(void **state)
{
    (void)state;
    /* The window is named but off. */
    struct decoder_desc d = read_text("{\"architectures\":[\"Qwen2ForCausalLM\"]," SIZES(
        3584, 18944, 28, 28, 4,
        152064) "\"max_position_embeddings\":32768,\"max_window_layers\":28,\"rms_norm_eps\":1e-06,"
                "\"rope_theta\":1000000.0,\"sliding_window\":131072,\"use_sliding_window\":false,"
                "\"tie_word_embeddings\":false,\"hidden_act\":\"silu\"}");
    assert_true(d.attention_bias && !d.attention_o_bias && !d.mlp_bias);
    assert_int_equal(sliding_layers(&d), 0);
    assert_int_equal(d.sliding_window, 0);
    assert_int_equal(model_max_len(&d), 32768);
    d = read_text("{\"architectures\":[\"Qwen2ForCausalLM\"]," SIZES(
        3584, 18944, 28, 28, 4,
        152064) "\"max_position_embeddings\":32768,\"max_window_layers\":21,\"sliding_window\":"
                "4096,"
                "\"use_sliding_window\":true,\"rope_scaling\":{\"factor\":4.0,"
                "\"original_max_position_embeddings\":32768,\"type\":\"yarn\"}}");
    assert_int_equal(sliding_layers(&d), 7);
    assert_true(!d.layers[20].sliding && d.layers[21].sliding);
    assert_int_equal(model_max_len(&d), 131072);
    d = read_text("{\"architectures\":[\"Qwen3ForCausalLM\"]," SIZES(
        1024, 3072, 28, 16, 8,
        151936) "\"head_dim\":128,\"attention_bias\":false,\"sliding_window\":null,"
                "\"use_sliding_window\":false,\"max_window_layers\":28,\"tie_word_embeddings\":"
                "true}");
    assert_int_equal(d.head_dim, 128);
    assert_int_equal(d.traits.qk_norm, QK_NORM_HEAD);
    assert_false(d.attention_bias);
}

static void test_mistral(void **state)
{
    (void)state;
    struct decoder_desc d = read_text("{\"architectures\":[\"MistralForCausalLM\"]," SIZES(
        4096, 14336, 32, 32, 8,
        32000) "\"sliding_window\":4096,\"max_position_embeddings\":32768}");
    assert_int_equal(sliding_layers(&d), 32);
    /* null is "none"; a key that is missing has the default of transformers' MistralConfig. */
    d = read_text("{\"architectures\":[\"MistralForCausalLM\"]," SIZES(
        5120, 14336, 40, 32, 8, 131072) "\"head_dim\":128,\"sliding_window\":null}");
    assert_int_equal(sliding_layers(&d), 0);
    d = read_text("{\"architectures\":[\"MistralForCausalLM\"]," SIZES(5120, 14336, 40, 32, 8,
                                                                       131072) "\"head_dim\":128}");
    assert_int_equal(d.sliding_window, 4096);
}

static void test_gemma(void **state)
{
    (void)state;
    struct decoder_desc d = read_text("{\"architectures\":[\"Gemma2ForCausalLM\"]," SIZES(
        2304, 9216, 26, 8, 4,
        256000) "\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0,\"head_dim\":256,"
                "\"hidden_act\":\"gelu_pytorch_tanh\",\"hidden_activation\":\"gelu_pytorch_tanh\","
                "\"query_pre_attn_scalar\":256,\"sliding_window\":4096,\"max_position_embeddings\":"
                "8192}");
    assert_int_equal(sliding_layers(&d), 13);
    assert_true(d.layers[0].sliding && !d.layers[1].sliding);
    assert_true(d.attn_logit_softcap == 50 && d.final_logit_softcap == 30);
    assert_true(d.attention_scale == 1.0f / 16 && d.tie_word_embeddings);
    assert_int_equal(d.hidden_act, ACT_GELU_TANH);
    d = read_text("{\"architectures\":[\"Gemma3ForCausalLM\"]," SIZES(
        1152, 6912, 26, 4, 1,
        262144) "\"attn_logit_softcapping\":null,\"final_logit_softcapping\":null,\"head_dim\":256,"
                "\"hidden_activation\":\"gelu_pytorch_tanh\",\"query_pre_attn_scalar\":256,"
                "\"rope_local_base_freq\":10000,\"rope_scaling\":null,\"rope_theta\":1000000,"
                "\"sliding_window\":512,\"sliding_window_pattern\":6,\"max_position_embeddings\":"
                "32768}");
    assert_int_equal(sliding_layers(&d), 22);
    assert_false(d.layers[5].sliding);
    assert_int_equal(d.layers[5].rope, LAYER_ROPE);
    assert_int_equal(d.layers[4].rope, LAYER_SLIDING_ROPE);
    assert_true(d.rope.theta == 1e6 && d.sliding_rope.theta == 1e4);
    assert_true(d.attn_logit_softcap == 0 && d.final_logit_softcap == 0);
}

static void test_phi3(void **state)
{
    char text[2000], factors[600] = "1.5";
    (void)state;
    for (int i = 1; i < 48; i++)
        strcat(factors, ",1.5");
    snprintf(text, sizeof text,
             "{\"architectures\":[\"Phi3ForCausalLM\"],"
             "%s\"original_max_position_embeddings\":4096,\"max_position_embeddings\":131072,"
             "\"partial_rotary_factor\":0.75,\"sliding_window\":262144,\"rope_scaling\":{"
             "\"type\":\"longrope\",\"long_factor\":[%s],\"short_factor\":[%s]}}",
             SIZES(3072, 8192, 32, 24, 8, 200064), factors, factors);
    struct decoder_desc d = read_text(text);
    assert_int_equal(d.rope.rotary_dim, 96);
    assert_int_equal(d.rope.original_max_position_embeddings, 4096);
    assert_int_equal(model_max_len(&d), 131072);
    assert_true(fabs(d.rope.attention_factor - sqrt(1 + log(32) / log(4096))) < 1e-12);
}

/* In billions, as its authors count. */
static double parameters(const struct decoder_desc *d)
{
    struct model m = { .desc = *d };
    return (double)model_num_parameters(&m) * 1e-9;
}

#define GPT_OSS(layers, experts)                                                                   \
    "{\"architectures\":[\"GptOssForCausalLM\"]," SIZES(                                           \
        2880, 2880, layers, 64, 8,                                                                 \
        201088) "\"head_dim\":64,\"attention_bias\":true,\"experts_per_token\":4,"                 \
                "\"hidden_act\":\"silu\",\"initial_context_length\":4096,"                         \
                "\"max_position_embeddings\":131072,\"num_experts_per_tok\":4,"                    \
                "\"num_local_experts\":" #experts ",\"rms_norm_eps\":1e-05,\"rope_scaling\":{"     \
                "\"beta_fast\":32.0,\"beta_slow\":1.0,\"factor\":32.0,"                            \
                "\"original_max_position_embeddings\":4096,\"rope_type\":\"yarn\","                \
                "\"truncate\":false},\"rope_theta\":150000,\"sliding_window\":128,"                \
                "\"swiglu_limit\":7.0,\"tie_word_embeddings\":false}"

static void test_gpt_oss(void **state)
{
    (void)state;
    struct decoder_desc d = read_text(GPT_OSS(24, 32));
    assert_int_equal(sliding_layers(&d), 12);
    assert_true(d.layers[0].sliding && !d.layers[1].sliding && d.layers[23].moe);
    assert_true(d.attention_bias && d.attention_o_bias && d.mlp_bias && d.router_bias);
    assert_int_equal(d.hidden_act, ACT_SWIGLU_OAI);
    assert_int_equal(d.moe_scoring, MOE_SOFTMAX_TOPK);
    assert_true(d.rope.type == ROPE_YARN && !d.rope.truncate && d.rope.theta == 150000);
    assert_int_equal(model_max_len(&d), 131072);
    assert_true(fabs(parameters(&d) - 20.91) < 0.01); /* of the model card: 20.91B and 116.83B */
    d = read_text(GPT_OSS(36, 128));
    assert_true(fabs(parameters(&d) - 116.83) < 0.01);
}

static void test_others(void **state)
{
    (void)state;
    struct decoder_desc d =
        read_text("{\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":768,\"n_layer\":12,"
                  "\"n_head\":12,\"n_ctx\":1024,\"n_positions\":1024,\"vocab_size\":50257,"
                  "\"activation_function\":\"gelu_new\",\"layer_norm_epsilon\":1e-05}");
    assert_int_equal(d.intermediate_size, 3072);
    assert_int_equal(d.head_dim, 64);
    assert_int_equal(d.rope.rotary_dim, 0);
    assert_int_equal(model_max_len(&d), 1024);
    assert_true(d.traits.learned_positions && d.attention_bias && d.tie_word_embeddings);
    d = read_text("{\"architectures\":[\"GPTNeoXForCausalLM\"],\"hidden_size\":2048,"
                  "\"intermediate_size\":8192,\"num_hidden_layers\":16,\"num_attention_heads\":8,"
                  "\"rotary_emb_base\":10000,\"rotary_pct\":0.25,\"use_parallel_residual\":true,"
                  "\"vocab_size\":50304,\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-05}");
    assert_int_equal(d.num_key_value_heads, 8);
    assert_int_equal(d.rope.rotary_dim, 64);
    assert_true(d.parallel_residual && d.traits.norm_kind == NORM_LAYER);
    d = read_text("{\"architectures\":[\"SmolLM3ForCausalLM\"]," SIZES(
        2048, 11008, 36, 16, 4, 128256) "\"no_rope_layer_interval\":4,\"rope_theta\":5000000.0,"
                                        "\"use_sliding_window\":false,\"sliding_window\":null}");
    assert_int_equal(d.layers[3].rope, LAYER_NO_ROPE);
    assert_int_equal(d.layers[4].rope, LAYER_ROPE);
    assert_true(d.rope.theta == 5e6);
    d = read_text("{\"architectures\":[\"GraniteForCausalLM\"]," SIZES(
        2048, 8192, 40, 32, 8,
        49155) "\"embedding_multiplier\":12.0,\"attention_multiplier\":0.015625,"
               "\"residual_multiplier\":0.22,\"logits_scaling\":8.0}");
    assert_true(d.embedding_scale == 12 && d.attention_scale == 0.015625f);
    assert_true(d.residual_scale == 0.22f && d.logits_scale == 8);
}

/* --- what is refused --- */

static void test_refused(void **state)
{
    static const struct {
        const char *patch, *words;
    } cases[] = {
        { "{\"layer_types\":[\"full_attention\"]}", "num_hidden_layers = 5 entries" },
        { "{\"layer_types\":7}", "layer_types is 7" },
        { "{\"layer_types\":[\"full_attention\",\"linear_attention\",\"\",\"\",\"\"]}",
          "layer_types holds \"linear_attention\"" },
        { "{\"layer_types\":[1,2,3,4,5]}", "layer_types holds 1" },
        { "{\"layer_types\":[\"sliding_attention\",\"\",\"\",\"\",\"\"]}", "no sliding_window" },
        { "{\"architectures\":[\"Qwen2ForCausalLM\"],\"use_sliding_window\":3}",
          "use_sliding_window is 3" },
        { "{\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":0}",
          "sliding_window is 0" },
        { "{\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":\"4096\"}",
          "sliding_window is \"4096\"" },
        { "{\"architectures\":[\"MistralForCausalLM\"],\"attention_bias\":true}",
          "attention_bias is true" },
        { "{\"architectures\":[\"Gemma2ForCausalLM\"],\"query_pre_attn_scalar\":0}",
          "query_pre_attn_scalar is 0" },
        { "{\"architectures\":[\"Gemma2ForCausalLM\"],\"attn_logit_softcapping\":-1}",
          "attn_logit_softcapping is -1" },
        { "{\"architectures\":[\"Gemma2ForCausalLM\"],\"hidden_activation\":\"tanh\"}",
          "hidden_activation is \"tanh\"" },
        { "{\"architectures\":[\"Gemma3ForCausalLM\"],\"use_bidirectional_attention\":true}",
          "use_bidirectional_attention is true" },
        { "{\"architectures\":[\"Gemma3ForCausalLM\"],\"rope_scaling\":\"-\","
          "\"rope_parameters\":{\"full_attention\":3}}",
          "rope_parameters.full_attention is 3" },
        { "{\"architectures\":[\"Gemma3ForCausalLM\"],\"rope_scaling\":\"-\","
          "\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"x\"}}}",
          "rope_parameters.sliding_attention.rope_type is \"x\"" },
        { "{\"architectures\":[\"Gemma3ForCausalLM\"],\"sliding_window_pattern\":0}",
          "sliding_window_pattern is 0" },
        { "{\"architectures\":[\"Phi3ForCausalLM\"],\"partial_rotary_factor\":0.4}",
          "rotary embedding needs pairs" },
        { "{\"architectures\":[\"SmolLM3ForCausalLM\"],\"no_rope_layers\":[1,1,1,0,2]}",
          "no_rope_layers holds 2" },
        { "{\"architectures\":[\"SmolLM3ForCausalLM\"],\"no_rope_layers\":[1,1]}",
          "no_rope_layers is [1,1]" },
        { "{\"architectures\":[\"GraniteForCausalLM\"],\"logits_scaling\":0}",
          "logits_scaling is 0" },
        { "{\"architectures\":[\"GPTNeoXForCausalLM\"],\"rotary_pct\":1.5}", "rotary_pct is 1.5" },
        { "{\"architectures\":[\"GptOssForCausalLM\"],\"num_local_experts\":4}",
          "no object rope_scaling" },
        { "{\"architectures\":[\"GptOssForCausalLM\"],\"num_local_experts\":4,"
          "\"rope_scaling\":{},\"hidden_act\":\"gelu\"}",
          "hidden_act is \"gelu\"; known for this architecture: silu" },
        { "{\"architectures\":[\"GptOssForCausalLM\"],\"num_local_experts\":4,"
          "\"rope_scaling\":{},\"swiglu_limit\":6.5}",
          "swiglu_limit is 6.5" },
        { "{\"architectures\":[\"GptOssForCausalLM\"],\"num_local_experts\":4,"
          "\"rope_scaling\":{},\"hidden_act\":1}",
          "hidden_act is 1" },
        { "{\"architectures\":[\"GPT2LMHeadModel\"]}", "\"n_embd\" is missing" },
        { "{\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":12,\"n_layer\":1,\"n_head\":3,"
          "\"scale_attn_by_inverse_layer_idx\":true}",
          "scale_attn_by_inverse_layer_idx is true" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_config_refused(cases[i].patch, cases[i].words);
}

/* --- the table in the README --- */

static void test_readme(void **state)
{
    static char text[1 << 16];
    static const char begin_mark[] = "<!-- model_archs: begin -->\n";
    struct buf table;
    (void)state;
    FILE *file = fopen("engine/model/README.md", "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    char *begin = strstr(text, begin_mark), *end = strstr(text, "<!-- model_archs: end -->");
    assert_true(begin && end && end > begin);
    *end = '\0';
    buf_init(&table, 0);
    model_arch_table(&table);
    if (strcmp(begin + strlen(begin_mark), buf_str(&table)) != 0)
        fail_msg("the table of engine/model/README.md is not the code's; run `make models-table`");
    buf_free(&table);
}

/* Each row says what it is for, and no architecture is there twice. */
static void test_rows(void **state)
{
    (void)state;
    for (const struct model_arch *const *a = model_archs; *a; a++) {
        assert_non_null((*a)->models);
        assert_true((*a)->differs || !(*a)->base);
        assert_true(strncmp((*a)->source, "engine/model/arch/", 18) == 0);
        for (int i = 0; i < ARCH_MAX_NAMES && (*a)->architectures[i]; i++)
            assert_ptr_equal(model_arch_find((*a)->architectures[i]), *a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen),    cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_gemma),   cmocka_unit_test(test_phi3),
        cmocka_unit_test(test_gpt_oss), cmocka_unit_test(test_others),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_readme),
        cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
