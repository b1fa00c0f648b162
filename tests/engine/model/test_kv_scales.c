/* test_kv_scales.c - every name of a scale is found, and what is no scale is refused. */
#include "engine/model/kv_scales.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static const struct checkpoint_type f32 = { .name = "F32", .size_bytes = 4, .is_float = true };
static const struct checkpoint_type bf16 = {
    .name = "BF16", .size_bytes = 2, .is_float = true, .dtype = DTYPE_BF16
};
static const struct checkpoint_type i32 = { .name = "I32", .size_bytes = 4 };

static struct checkpoint_tensor *add(struct checkpoint *c, const char *name,
                                     const struct checkpoint_type *type, const void *data)
{
    struct checkpoint_tensor *t = checkpoint_add(c);
    t->name = name;
    t->file = "x.safetensors";
    t->type = type;
    t->data = data;
    t->size_bytes = (size_t)type->size_bytes;
    return t;
}

static void expect(struct checkpoint *c, int32_t layer, float k, float v)
{
    struct kv_scales s;
    struct status st;
    if (!kv_scales_find(c, layer, &s, &st))
        fail_msg("%s", st.message);
    assert_true(s.k == k && s.v == v);
}

static void test_names(void **state)
{
    (void)state;
    static const float a = 0.5f, b = 0.25f;
    static const uint16_t c_bits = 0x4040; /* 3 */
    struct checkpoint *c = checkpoint_new();
    struct status st;
    add(c, "model.layers.0.self_attn.k_scale", &f32, &a);
    add(c, "model.layers.0.self_attn.v_scale", &f32, &b);
    add(c, "model.layers.1.self_attn.k_proj.k_scale", &bf16, &c_bits)->num_dims = 1;
    add(c, "model.layers.1.self_attn.v_proj.v_scale", &f32, &b);
    add(c, "model.layers.2.self_attn.attn.k_scale", &f32, &b);
    add(c, "model.layers.3.self_attn.kv_scale", &f32, &a);
    add(c, "model.layers.4.self_attn.attn.v_scale", &f32, &a);
    for (size_t i = 0; i < c->num_tensors; i++)
        c->tensors[i].shape[0] = 1;
    assert_true(checkpoint_seal(c, &st));
    expect(c, 0, 0.5f, 0.25f);
    expect(c, 1, 3, 0.25f);
    expect(c, 2, 0.25f, 0.25f);
    expect(c, 3, 0.5f, 0.5f);
    expect(c, 4, 1, 0.5f);
    expect(c, 5, 1, 1);
    expect(NULL, 0, 1, 1);
    checkpoint_close(c);
}

static void test_what_is_a_name(void **state)
{
    (void)state;
    static const char *const names[] = { "model.layers.0.self_attn.k_scale",
                                         "model.layers.11.self_attn.attn.v_scale",
                                         "model.layers.3.self_attn.v_proj.v_scale",
                                         "model.layers.3.self_attn.kv_scale" };
    static const char *const others[] = { "model.layers.12.self_attn.k_scale",
                                          "model.layers.99999999999.self_attn.k_scale",
                                          "model.layers..self_attn.k_scale",
                                          "model.layers.1x.self_attn.k_scale",
                                          "model.layers.1.self_attn.k_proj.v_scale",
                                          "model.layers.1.self_attn.k_scale2",
                                          "model.layers.1.mlp.k_scale",
                                          "x.model.layers.1.self_attn.k_scale",
                                          "" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_true(kv_scales_name(names[i], 12));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_false(kv_scales_name(others[i], 12));
}

static void test_refused(void **state)
{
    (void)state;
    static const float values[] = { 0, -1, NAN, INFINITY };
    static const int32_t number = 1;
    for (int i = 0; i < 6; i++) {
        struct checkpoint *c = checkpoint_new();
        struct kv_scales s;
        struct status st;
        struct checkpoint_tensor *t =
            add(c, "model.layers.7.self_attn.v_scale", i == 4 ? &i32 : &f32,
                i < 4    ? (const void *)&values[i]
                : i == 4 ? (const void *)&number
                         : values);
        t->num_dims = i == 5;
        t->shape[0] = 2;
        assert_true(checkpoint_seal(c, &st));
        assert_false(kv_scales_find(c, 7, &s, &st));
        assert_non_null(
            strstr(st.message, "x.safetensors: tensor 'model.layers.7.self_attn.v_scale'"));
        checkpoint_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_what_is_a_name),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
