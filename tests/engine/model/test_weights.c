/* test_weights.c - planned bytes are taken bytes, values arrive converted, dummies repeat. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "tests/engine/model/model_helper.h"

#include <math.h>

struct loaded {
    struct model *model;
    struct device *device;
    struct comm *comm;
    struct weights *weights;
    struct weights_size planned;
    size_t reported, reports;
};

static void count_progress(void *arg, size_t done, size_t total)
{
    struct loaded *l = arg;
    assert_true(done <= total);
    l->reported = done == total ? total : 0;
    l->reports++;
}

static void load_quantized(struct loaded *l, const char *path, const char *load_format,
                           const char *dtype, const char *quantization)
{
    struct status st;
    struct model_options mo = {
        .path = path, .load_format = load_format, .dtype = dtype, .quantization = quantization
    };
    struct device_options dev = { .num_threads = 1, .isa = "auto" };
    memset(l, 0, sizeof *l);
    l->comm = comm_self_open();
    if (!model_open(&mo, &l->model, &st) || !backend_cpu.open(&l->device, &dev, &st) ||
        !weights_plan(l->model, l->device, &l->planned, &st) ||
        !weights_load(l->model, l->device, l->comm, count_progress, l, &l->weights, &st))
        rig_fail(path, &st);
}

static void load(struct loaded *l, const char *path, const char *load_format, const char *dtype)
{
    load_quantized(l, path, load_format, dtype, NULL);
}

static void unload(struct loaded *l)
{
    weights_free(l->weights, l->device);
    backend_cpu.close(l->device);
    l->comm->close(l->comm);
    model_close(l->model);
}

/* One row of the embedding, by the op that reads it. */
static void embedding_row(struct loaded *l, int32_t id, float *out)
{
    struct tensor t = tensor_view(out, DTYPE_F32, 1, l->model->desc.hidden_size);
    struct status st;
    backend_cpu.embedding(l->device, &t, &id, &l->weights->embedding);
    assert_true(backend_cpu.sync(l->device, &st));
}

static void check_plan(const char *dir, const char *load_format, const char *dtype)
{
    struct loaded l;
    load(&l, dir, load_format, dtype);
    assert_int_equal(l.planned.bytes, l.weights->size.bytes);
    assert_int_equal(l.weights->arena.size_bytes, l.planned.bytes);
    assert_int_equal((uintptr_t)l.weights->arena.data % 64, 0);
    assert_true(l.planned.bytes >=
                (size_t)model_num_parameters(l.model) * dtype_size(l.model->weight_format->dtype));
    assert_true(l.reports >= 1 && l.reported > 0);
    assert_ptr_equal(l.weights->head, l.model->desc.tie_word_embeddings ? &l.weights->embedding
                                                                        : &l.weights->lm_head);
    /* Everything lies in the arena, the last piece reaching its end. */
    const char *begin = l.weights->arena.data, *end = begin + l.planned.bytes;
    const struct linear *down = &l.weights->layers[l.model->desc.num_hidden_layers - 1].down;
    assert_true((const char *)down->packed >= begin &&
                (const char *)down->packed + down->packed_bytes <= end);
    assert_true((const char *)l.weights->final_norm.weight < end);
    unload(&l);
}

static void test_plan_is_load(void **state)
{
    static const char *const options[] = { "", "--preset untied", "--preset biases",
                                           "--preset head_dim --dtype float16",
                                           "--dtype bfloat16 --sharded" };
    static const char *const dtypes[] = { "auto", "float32", "bfloat16", "float16" };
    (void)state;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        char dir[64];
        if (!make_tiny(dir, options[i])) {
            print_message("skip: there is no python3\n");
            skip();
        }
        for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
            check_plan(dir, "auto", dtypes[d]);
            check_plan(dir, "dummy", dtypes[d]);
        }
        remove_dir(dir);
    }
}

/* Every pair of stored and wanted dtype: the value is that of one rounding. */
static void test_conversion(void **state)
{
    static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16 };
    (void)state;
    for (int from = 0; from < 3; from++) {
        char dir[64], options[64];
        snprintf(options, sizeof options, "--dtype %s", dtype_name(dtypes[from]));
        if (!make_tiny(dir, options)) {
            print_message("skip: there is no python3\n");
            skip();
        }
        for (int to = 0; to < 3; to++) {
            struct loaded l;
            load(&l, dir, "auto", dtype_name(dtypes[to]));
            const struct checkpoint_tensor *t =
                checkpoint_find(l.model->checkpoint, "model.embed_tokens.weight");
            for (int32_t id = 0; id < 512; id += 73) {
                float stored[48], expected[48], got[48];
                uint16_t rounded[48];
                dtype_convert(stored, DTYPE_F32,
                              t->data + (size_t)id * 48 * (size_t)t->type->size_bytes,
                              t->type->dtype, 48);
                memcpy(expected, stored, sizeof expected);
                if (dtypes[to] != DTYPE_F32) {
                    dtype_convert(rounded, dtypes[to], stored, DTYPE_F32, 48);
                    dtype_convert(expected, DTYPE_F32, rounded, dtypes[to], 48);
                }
                embedding_row(&l, id, got);
                assert_memory_equal(got, expected, sizeof got);
            }
            unload(&l);
        }
        remove_dir(dir);
    }
}

/* An embedding of more than 4 MiB is packed in several pieces: rows around the seam, and the last.
 */
static void test_pieces(void **state)
{
    static const int32_t ids[] = { 0, 21823, 21824, 29999 };
    char dir[64];
    struct loaded l;
    (void)state;
    if (!make_tiny(dir, "--vocab-size 30000 --num-hidden-layers 1")) {
        print_message("skip: there is no python3\n");
        skip();
    }
    load(&l, dir, "auto", "auto");
    const struct checkpoint_tensor *t =
        checkpoint_find(l.model->checkpoint, "model.embed_tokens.weight");
    assert_true(t->size_bytes > 5 << 20);
    for (int i = 0; i < 4; i++) {
        float got[48];
        embedding_row(&l, ids[i], got);
        assert_memory_equal(got, t->data + (size_t)ids[i] * sizeof got, sizeof got);
    }
    unload(&l);
    remove_dir(dir);
}

/* A header whose length is odd leaves every tensor unaligned. */
static void test_unaligned_file(void **state)
{
    char dir[64], path[96];
    struct loaded l;
    float aligned[48], unaligned[48], norm = 0;
    (void)state;
    if (!make_tiny(dir, "")) {
        print_message("skip: there is no python3\n");
        skip();
    }
    load(&l, dir, "auto", "auto");
    embedding_row(&l, 99, aligned);
    norm = l.weights->layers[1].input_norm.weight[7];
    unload(&l);

    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    size_t size = (size_t)info.st_size;
    unsigned char *file = malloc(size + 1);
    FILE *f = fopen(path, "rb");
    assert_int_equal(fread(file, 1, size, f), size);
    fclose(f);
    size_t header = (size_t)file[0] | (size_t)file[1] << 8 | (size_t)file[2] << 16;
    memmove(file + 8 + header + 1, file + 8 + header, size - 8 - header);
    file[8 + header] = ' ';
    file[0]++;
    assert_true(file[0] != 0);
    f = fopen(path, "wb");
    assert_int_equal(fwrite(file, 1, size + 1, f), size + 1);
    fclose(f);
    free(file);

    load(&l, dir, "auto", "auto");
    embedding_row(&l, 99, unaligned);
    assert_memory_equal(aligned, unaligned, sizeof aligned);
    assert_true(l.weights->layers[1].input_norm.weight[7] == norm);
    unload(&l);
    remove_dir(dir);
}

/* Linears of layers are held in fewer bytes, planned to the byte; the embedding is not. */
static void test_quantized_at_load(void **state)
{
    static const struct {
        const char *name, *format;
        double bytes; /* of a weight, about */
    } kinds[] = { { "fp8", "fp8_g32_float16", 1.1 },
                  { "int8", "int8_g128_float16", 1.1 },
                  { "int4", "int4_g32_min_float16", 0.7 } };
    char dir[64];
    (void)state;
    if (!make_tiny(dir, "--hidden-size 128 --num-attention-heads 4 --dtype bfloat16")) {
        print_message("skip: there is no python3\n");
        skip();
    }
    for (int i = 0; i < 3; i++)
        for (int dummy = 0; dummy < 2; dummy++) {
            struct loaded l, plain;
            const char *format = dummy ? "dummy" : "auto";
            load_quantized(&l, dir, format, "auto", kinds[i].name);
            load(&plain, dir, format, "auto");
            assert_int_equal(l.planned.bytes, l.weights->size.bytes);
            const struct linear *o = &l.weights->layers[0].o;
            assert_string_equal(o->format->name, kinds[i].format);
            assert_string_equal(l.weights->embedding.format->name, "bfloat16");
            assert_true((double)o->packed_bytes <
                        kinds[i].bytes * (double)o->in_features * (double)o->out_features);
            assert_true(l.weights->size.decode_bytes < plain.weights->size.decode_bytes);
            float a[128], b[128];
            embedding_row(&l, 7, a);
            embedding_row(&plain, 7, b);
            assert_memory_equal(a, b, sizeof a);
            struct tensor x = tensor_view(a, DTYPE_F32, 1, 128);
            float from_plain[128], from_quantized[128], largest = 0, worst = 0;
            struct tensor y = tensor_view(from_plain, DTYPE_F32, 1, 128);
            struct tensor z = tensor_view(from_quantized, DTYPE_F32, 1, 128);
            struct workspace_desc ws = { .max_num_tokens = 1, .max_in_features = 512 };
            struct status st;
            assert_true(backend_cpu.reserve_workspace(l.device, &ws, &st));
            backend_cpu.linear(l.device, &y, &x, &plain.weights->layers[0].o);
            backend_cpu.linear(l.device, &z, &x, o);
            for (int k = 0; k < 128; k++) {
                largest = fmaxf(largest, fabsf(from_plain[k]));
                worst = fmaxf(worst, fabsf(from_plain[k] - from_quantized[k]));
            }
            print_message("%s: off by %.4f of the greatest\n", kinds[i].name,
                          (double)(worst / largest));
            assert_true(worst > 0 && worst < 0.15f * largest);
            unload(&l);
            unload(&plain);
        }
    remove_dir(dir);
}

/* --- dummy weights --------------------------------------------------------------------------- */

/* Two loads are the same to the bit; rows differ; logits are finite and not all alike. */
static void test_dummy_repeats(void **state)
{
    char dir[64];
    struct rig a, b;
    (void)state;
    if (!make_tiny(dir, "--preset biases --num-hidden-layers 40 --hidden-size 512 "
                        "--num-attention-heads 8")) {
        print_message("skip: there is no python3\n");
        skip();
    }
    rig_open(&a, dir, "dummy", "bfloat16", "auto");
    rig_open(&b, dir, "dummy", "bfloat16", "auto");
    assert_memory_equal(a.weights->arena.data, b.weights->arena.data, a.weights->size.bytes);
    int32_t ids[20];
    for (int32_t i = 0; i < 20; i++)
        ids[i] = i * 7;
    const struct tensor *logits = rig_step(&a, &(struct rig_span){ 0, ids, 20 }, 1);
    double sum = 0, squares = 0;
    for (int32_t i = 0; i < 20; i++) {
        for (int32_t k = 0; k < logits->cols; k++) {
            double x = logits_row(logits, i)[k];
            assert_true(isfinite(x));
            sum += x;
            squares += x * x;
        }
    }
    double n = 20.0 * logits->cols, deviation = sqrt(squares / n - sum / n * sum / n);
    print_message("dummy logits: deviation %.3g\n", deviation);
    assert_true(deviation > 0.1 && deviation < 10);
    rig_close(&a);
    rig_close(&b);
    remove_dir(dir);
}

/* Fast enough for a real size: the 1.2B-parameter shape is left to the bench; a tenth of it here.
 */
static void test_dummy_speed(void **state)
{
    char dir[64];
    struct loaded l;
    (void)state;
    if (!make_tiny(dir, "--preset untied")) {
        print_message("skip: there is no python3\n");
        skip();
    }
    char path[96];
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *config = load_json(path);
    json_object_set_new(config, "hidden_size", json_integer(2048));
    json_object_set_new(config, "intermediate_size", json_integer(8192));
    json_object_set_new(config, "num_attention_heads", json_integer(32));
    json_object_set_new(config, "num_key_value_heads", json_integer(8));
    json_object_set_new(config, "num_hidden_layers", json_integer(2));
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    uint64_t start = clock_now_ns();
    load(&l, dir, "dummy", "bfloat16");
    double seconds = clock_seconds_between(start, clock_now_ns());
    print_message("dummy: %.0f million parameters in %.2f s\n",
                  (double)model_num_parameters(l.model) / 1e6, seconds);
    assert_true(seconds < 20);
    unload(&l);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_is_load),
        cmocka_unit_test(test_conversion),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_unaligned_file),
        cmocka_unit_test(test_quantized_at_load),
        cmocka_unit_test(test_dummy_repeats),
        cmocka_unit_test(test_dummy_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
