/* test_weight_slot.c - the shape of every slot, and that the largest fit 32 bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/limits.h"
#include "engine/model/weight_slot.h"

static const struct decoder_desc desc = { .hidden_size = 8,
                                          .intermediate_size = 12,
                                          .num_hidden_layers = 2,
                                          .vocab_size = 16,
                                          .num_attention_heads = 6,
                                          .num_key_value_heads = 3,
                                          .head_dim = 10,
                                          .attention_bias = true };

static void expect_linear(enum weight_slot slot, int32_t rows, int32_t cols, int32_t parts,
                          bool bias)
{
    struct weight_shape s = weight_slot_shape(&desc, slot);
    int32_t sum = 0;
    assert_true(s.present && !s.is_vector);
    assert_int_equal(s.rows, rows);
    assert_int_equal(s.cols, cols);
    assert_int_equal(s.num_parts, parts);
    assert_int_equal(s.has_bias, bias);
    for (int32_t i = 0; i < s.num_parts; i++)
        sum += s.part_rows[i];
    assert_int_equal(sum, rows);
}

static void test_shapes(void **state)
{
    (void)state;
    expect_linear(W_EMBEDDING, 16, 8, 1, false);
    expect_linear(W_LM_HEAD, 16, 8, 1, false);
    expect_linear(W_QKV, 60 + 30 + 30, 8, 3, true);
    expect_linear(W_O, 8, 60, 1, false);
    expect_linear(W_GATE_UP, 24, 8, 2, false);
    expect_linear(W_DOWN, 8, 12, 1, false);
    for (int i = 0; i < 3; i++) {
        static const enum weight_slot norms[] = { W_FINAL_NORM, W_INPUT_NORM,
                                                  W_POST_ATTENTION_NORM };
        struct weight_shape s = weight_slot_shape(&desc, norms[i]);
        assert_true(s.present && s.is_vector);
        assert_int_equal(s.cols, 8);
    }
    struct decoder_desc tied = desc;
    tied.tie_word_embeddings = true;
    assert_false(weight_slot_shape(&tied, W_LM_HEAD).present);
}

static void test_per_layer(void **state)
{
    (void)state;
    assert_false(weight_slot_is_per_layer(W_EMBEDDING));
    assert_false(weight_slot_is_per_layer(W_LM_HEAD));
    assert_false(weight_slot_is_per_layer(W_FINAL_NORM));
    assert_true(weight_slot_is_per_layer(W_INPUT_NORM));
    assert_true(weight_slot_is_per_layer(W_DOWN));
}

static void test_limits(void **state)
{
    struct decoder_desc largest = { .hidden_size = LIMIT_HIDDEN_SIZE,
                                    .intermediate_size = LIMIT_INTERMEDIATE_SIZE,
                                    .num_hidden_layers = LIMIT_NUM_LAYERS,
                                    .vocab_size = LIMIT_VOCAB_SIZE,
                                    .num_attention_heads = LIMIT_NUM_HEADS,
                                    .num_key_value_heads = LIMIT_NUM_HEADS,
                                    .head_dim = LIMIT_HEAD_DIM,
                                    .max_position_embeddings = LIMIT_VOCAB_SIZE };
    struct decoder_desc latent = largest;
    latent.kv_lora_rank = latent.qk_nope_head_dim = latent.qk_rope_head_dim = LIMIT_HEAD_DIM;
    latent.v_head_dim = LIMIT_HEAD_DIM;
    latent.q_lora_rank = LIMIT_HIDDEN_SIZE;
    (void)state;
    for (int slot = W_EMBEDDING; slot < NUM_WEIGHT_SLOTS; slot++) {
        struct weight_shape s = weight_slot_shape(&largest, (enum weight_slot)slot);
        assert_true(!s.present || (s.rows > 0 && s.cols > 0));
        s = weight_slot_shape(&latent, (enum weight_slot)slot);
        assert_true(!s.present || (s.rows > 0 && s.cols > 0));
        assert_true(!s.present || (int64_t)s.num_experts * s.stack_rows <= 2 << 20);
    }
    assert_false(weight_slot_shape(&latent, W_QKV).present);
    assert_false(weight_slot_shape(&latent, W_Q).present);
    assert_int_equal(weight_slot_shape(&latent, W_Q_B).rows, 2 << 20);
    assert_int_equal(weight_slot_shape(&largest, W_QKV).rows, 3 << 20);
    assert_int_equal(weight_slot_shape(&largest, W_GATE_UP).rows, 2 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_per_layer),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
