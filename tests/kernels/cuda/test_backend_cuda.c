/* test_backend_cuda.c - the ops that work on rows, on the GPU against the scalar CPU: embedding,
 * gather, norms, rotation, activations; odd shapes, indices out of range. Products, attention and
 * sampling have programs of their own. */
#include "tests/kernels/cuda/cuda_fixture.h"

static const struct workspace_desc workspace = { .max_num_tokens = 64,
                                                 .max_num_seqs = 8,
                                                 .max_logits_rows = 8,
                                                 .max_model_len = 512,
                                                 .block_size = 16,
                                                 .max_in_features = 512,
                                                 .max_out_features = 512,
                                                 .num_heads = 4,
                                                 .num_kv_heads = 2,
                                                 .head_dim = 64,
                                                 .vocab_size = 512 };

/* x as the CPU leaves it and as the GPU does. */
struct both {
    struct tensor cpu, host, device;
};

static struct both both_of(const struct tensor *x)
{
    return (struct both){ copy_tensor(x), copy_tensor(x), gpu_tensor(&gpu, x) };
}

static void compare(struct both *b, double absolute, double relative, const char *what)
{
    gpu_get_tensor(&gpu, &b->host, &b->device);
    assert_tensors_close(&b->host, &b->cpu, absolute, relative, what);
    free(b->cpu.data);
    free(b->host.data);
}

static void elements(void **state)
{
    (void)state;
    for (int round = 0; round < 30; round++) {
        struct tensor x = random_tensor(RANDOM_OF(1, 2, 5, 17), RANDOM_OF(1, 3, 64, 300, 1025), 2);
        struct tensor y = random_tensor(x.rows, x.cols, 2), gate = random_tensor(x.rows, 1, 2);
        struct tensor y_at = gpu_tensor(&gpu, &y), gate_at = gpu_tensor(&gpu, &gate);
        struct both b = both_of(&x);
        switch (round % 5) {
        case 0:
            backend_cpu.add(gpu.cpu, &b.cpu, &y);
            gpu.ops->add(gpu.device, &b.device, &y_at);
            break;
        case 1:
            backend_cpu.scale(gpu.cpu, &b.cpu, 0.37f);
            gpu.ops->scale(gpu.device, &b.device, 0.37f);
            break;
        case 2:
            backend_cpu.softcap(gpu.cpu, &b.cpu, 1.5f);
            gpu.ops->softcap(gpu.device, &b.device, 1.5f);
            break;
        case 3:
            backend_cpu.add_gated(gpu.cpu, &b.cpu, &y, &gate);
            gpu.ops->add_gated(gpu.device, &b.device, &y_at, &gate_at);
            break;
        default: {
            enum activation act = (enum activation)random_int(0, ACT_RELU);
            backend_cpu.act(gpu.cpu, &b.cpu, act);
            gpu.ops->act(gpu.device, &b.device, act);
        }
        }
        compare(&b, 1e-6, 2e-6, "an op on elements");
        gpu_release(&gpu);
        free(x.data);
        free(y.data);
        free(gate.data);
    }
}

static void gated_activations(void **state)
{
    (void)state;
    for (int act = 0; act < NUM_ACTIVATIONS; act++) {
        for (int round = 0; round < 3; round++) {
            struct tensor x =
                random_tensor(random_int(1, 5), 2 * RANDOM_OF(1, 3, 64, 333, 1100), 4);
            struct tensor out = random_tensor(x.rows, x.cols / 2, 1);
            struct tensor x_at = gpu_tensor(&gpu, &x);
            struct both b = both_of(&out);
            backend_cpu.act_and_mul(gpu.cpu, &b.cpu, &x, (enum activation)act);
            gpu.ops->act_and_mul(gpu.device, &b.device, &x_at, (enum activation)act);
            compare(&b, 2e-6, 5e-6, "act_and_mul");
            gpu_release(&gpu);
            free(x.data);
            free(out.data);
        }
    }
}

static void norms(void **state)
{
    (void)state;
    float *weight = random_floats(2048, 1), *bias = random_floats(2048, 1);
    for (int round = 0; round < 40; round++) {
        struct norm norm = { .kind = random_int(0, 2) ? NORM_RMS : NORM_LAYER,
                             .size = RANDOM_OF(1, 3, 8, 31, 64, 100, 128, 512, 513, 2048),
                             .weight = random_int(0, 3) ? weight : NULL,
                             .bias = random_int(0, 1) ? bias : NULL,
                             .eps = 1e-5f,
                             .weight_offset = (float)random_int(0, 1) },
                    norm_at = norm;
        const bool has_residual = random_int(0, 1), in_place = random_int(0, 1);
        const int32_t cols = norm.size * RANDOM_OF(1, 1, 3);
        struct tensor x = random_tensor(RANDOM_OF(1, 2, 9), cols, 3);
        struct tensor residual = random_tensor(x.rows, cols, 3);
        struct both bx = both_of(&x), br = both_of(&residual), bo = both_of(&x);
        if (norm.weight)
            norm_at.weight = gpu_put(&gpu, weight, (size_t)norm.size * sizeof *weight);
        if (norm.bias)
            norm_at.bias = gpu_put(&gpu, bias, (size_t)norm.size * sizeof *bias);
        backend_cpu.norm(gpu.cpu, in_place ? &bx.cpu : &bo.cpu, has_residual ? &br.cpu : NULL,
                         &bx.cpu, &norm);
        gpu.ops->norm(gpu.device, in_place ? &bx.device : &bo.device,
                      has_residual ? &br.device : NULL, &bx.device, &norm_at);
        compare(&bx, 2e-5, 1e-5, "norm: x");
        compare(&bo, 2e-5, 1e-5, "norm: out");
        compare(&br, 0, 0, "norm: residual");
        gpu_release(&gpu);
        free(x.data);
        free(residual.data);
    }
    free(weight);
    free(bias);
}

static void rotation(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        const int32_t rotary_dim = RANDOM_OF(2, 8, 16, 64, 128), rows = random_int(1, 9);
        const int32_t head_dim = rotary_dim + RANDOM_OF(0, 0, 2, 16);
        float *inv_freq = random_floats((size_t)rotary_dim / 2, 1);
        int32_t positions[9];
        for (int i = 0; i < 9; i++)
            positions[i] = random_int(0, 5000);
        struct rope rope = { rotary_dim, random_int(0, 1), inv_freq, random_uniform(0.5f, 2) };
        struct rope rope_at = rope;
        rope_at.inv_freq = gpu_put(&gpu, inv_freq, (size_t)rotary_dim / 2 * sizeof *inv_freq);
        struct tensor table = random_tensor(rows, rotary_dim, 1);
        struct tensor x = random_tensor(rows, head_dim * random_int(1, 4), 1);
        struct both bt = both_of(&table), bx = both_of(&x);
        backend_cpu.rotary_cos_sin(gpu.cpu, &bt.cpu, positions, &rope);
        gpu.ops->rotary_cos_sin(gpu.device, &bt.device, gpu_put(&gpu, positions, sizeof positions),
                                &rope_at);
        backend_cpu.rotary_embedding(gpu.cpu, &bx.cpu, head_dim, &bt.cpu, &rope);
        gpu.ops->rotary_embedding(gpu.device, &bx.device, head_dim, &bt.device, &rope_at);
        compare(&bt, 1e-6, 1e-6, "cos_sin");
        compare(&bx, 5e-6, 1e-6, "rotary_embedding");
        gpu_release(&gpu);
        free(inv_freq);
        free(table.data);
        free(x.data);
    }
}

/* Loads rows of `from` as `to`; the linear's memory is one of g's buffers. */
static struct linear load_linear(const float *rows, int32_t out_features, int32_t in_features,
                                 enum dtype from, enum dtype to)
{
    struct status st;
    struct linear l = { .out_features = out_features,
                        .in_features = in_features,
                        .format = quant_format_of_dtype(to) };
    size_t count = (size_t)out_features * (size_t)in_features;
    void *stored = malloc(count * dtype_size(from));
    dtype_convert(stored, from, rows, DTYPE_F32, count);
    if (!gpu.ops->linear_plan(gpu.device, &l, &st))
        gpu_fail("linear_plan", &st);
    l.packed = gpu_new(&gpu, l.packed_bytes);
    int32_t half = out_features / 2;
    gpu.ops->linear_pack(gpu.device, &l, half, out_features - half,
                         (char *)stored + (size_t)half * (size_t)in_features * dtype_size(from),
                         quant_format_of_dtype(from));
    gpu.ops->linear_pack(gpu.device, &l, 0, half, stored, quant_format_of_dtype(from));
    gpu_sync(&gpu);
    free(stored);
    return l;
}

static void embedding_rows(void **state)
{
    (void)state;
    for (int round = 0; round < 12; round++) {
        const int32_t vocab = RANDOM_OF(1, 2, 77), hidden = RANDOM_OF(1, 7, 64, 65, 300);
        const enum dtype to = (enum dtype)random_int(DTYPE_F32, DTYPE_F16);
        const enum dtype from = (enum dtype)random_int(DTYPE_F32, DTYPE_F16);
        float *rows = random_floats((size_t)vocab * (size_t)hidden, 1);
        int32_t ids[5];
        for (int i = 0; i < 5; i++)
            ids[i] = random_int(0, vocab - 1);
        round_floats(rows, (size_t)vocab * (size_t)hidden, from);
        struct linear l = load_linear(rows, vocab, hidden, from, to);
        struct tensor out = random_tensor(5, hidden, 1), out_at = gpu_tensor(&gpu, &out);
        gpu.ops->embedding(gpu.device, &out_at, gpu_put(&gpu, ids, sizeof ids), &l);
        gpu_get_tensor(&gpu, &out, &out_at);
        round_floats(rows, (size_t)vocab * (size_t)hidden, to);
        for (int i = 0; i < 5; i++)
            assert_same_bits((float *)out.data + i * out.stride, rows + ids[i] * hidden,
                             (size_t)hidden, "embedding");
        struct tensor x = random_tensor(vocab, hidden, 1), x_at = gpu_tensor(&gpu, &x);
        gpu.ops->gather_rows(gpu.device, &out_at, &x_at, gpu_put(&gpu, ids, sizeof ids));
        gpu_get_tensor(&gpu, &out, &out_at);
        for (int i = 0; i < 5; i++)
            assert_same_bits((float *)out.data + i * out.stride,
                             (float *)x.data + ids[i] * x.stride, (size_t)hidden, "gather_rows");
        gpu_release(&gpu);
        free(rows);
        free(out.data);
        free(x.data);
    }
}

/* The step fails, with the index in words, and the next one does not. */
/* A rank's rows of the vocabulary: zeros for ids of the others, and a fault for ids of nobody. */
static void embedding_of_a_rank(void **state)
{
    (void)state;
    struct status st;
    enum { ROWS = 10, HIDDEN = 33, BEGIN = 20, VOCAB = 47, NUM_IDS = 5 };
    static const int32_t ids[NUM_IDS] = { 20, 29, 30, 19, 46 };
    float *rows = random_floats(ROWS * HIDDEN, 1), none[HIDDEN] = { 0 };
    struct linear l = load_linear(rows, ROWS, HIDDEN, DTYPE_F32, DTYPE_F32);
    struct tensor out = random_tensor(NUM_IDS, HIDDEN, 1), out_at = gpu_tensor(&gpu, &out);
    l.vocab_begin = BEGIN;
    l.vocab_size = VOCAB;
    int32_t *ids_at = gpu_put(&gpu, ids, sizeof ids);
    gpu.ops->embedding(gpu.device, &out_at, ids_at, &l);
    gpu_get_tensor(&gpu, &out, &out_at);
    for (int i = 0; i < NUM_IDS; i++)
        assert_same_bits((float *)out.data + i * out.stride,
                         i < 2 ? rows + (ids[i] - BEGIN) * HIDDEN : none, HIDDEN,
                         "embedding of a rank");
    l.vocab_size = VOCAB - 1;
    gpu.ops->embedding(gpu.device, &out_at, ids_at, &l);
    assert_false(gpu.ops->sync(gpu.device, &st));
    assert_non_null(strstr(st.message, "index 46 of row 4 is not in [0, 46)"));
    gpu_release(&gpu);
    free(rows);
    free(out.data);
}

static void bad_indices(void **state)
{
    (void)state;
    struct status st;
    float rows[4 * 8] = { 1 };
    const int32_t ids[3] = { 1, 9, -1 };
    struct linear l = load_linear(rows, 4, 8, DTYPE_F32, DTYPE_BF16);
    struct tensor out = random_tensor(3, 8, 1), out_at = gpu_tensor(&gpu, &out);
    int32_t *ids_at = gpu_put(&gpu, ids, sizeof ids);
    gpu.ops->embedding(gpu.device, &out_at, ids_at, &l);
    assert_false(gpu.ops->sync(gpu.device, &st));
    assert_non_null(strstr(st.message, "embedding: index "));
    assert_non_null(strstr(st.message, "is not in [0, 4)"));
    gpu_get_tensor(&gpu, &out, &out_at);
    for (int i = 0; i < 8; i++)
        assert_true(((float *)out.data)[out.stride + i] == 0);
    struct tensor gathered_at = gpu_tensor(&gpu, &out);
    gpu.ops->gather_rows(gpu.device, &gathered_at, &out_at, ids_at);
    assert_false(gpu.ops->sync(gpu.device, &st));
    assert_non_null(strstr(st.message, "gather_rows: index "));
    gpu_sync(&gpu);
    gpu_release(&gpu);
    free(out.data);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elements),       cmocka_unit_test(gated_activations),
        cmocka_unit_test(norms),          cmocka_unit_test(rotation),
        cmocka_unit_test(embedding_rows), cmocka_unit_test(embedding_of_a_rank),
        cmocka_unit_test(bad_indices),
    };
    return gpu_run_tests(tests, workspace);
}
