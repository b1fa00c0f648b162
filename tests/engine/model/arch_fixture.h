/* arch_fixture.h - the tiny models of tests/golden/arch/: their checkpoints, and how far a
 * decoder's logits are from the golden ones. Include after cmocka.h. */
#ifndef INFERD_TESTS_ENGINE_MODEL_ARCH_FIXTURE_H
#define INFERD_TESTS_ENGINE_MODEL_ARCH_FIXTURE_H

#include "base/buf.h"
#include "tests/engine/model/model_helper.h"

#include <math.h>

#define GOLDENS "tests/golden/arch/"

enum { NUM_GREEDY = 32 };

/* Each has a file NAME.json there, made by tests/golden/make_arch_goldens.py. */
static const char *const arch_models[] = {
    "qwen2",
    "qwen2_yarn",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "granite",
    "smollm3",
    "starcoder2",
    "gpt_neox",
    "gpt_neox_serial",
    "gpt2",
    "llama_dynamic",
    "qwen2_moe",
    "qwen3_moe",
    "mixtral",
    "gpt_oss",
    "deepseek_v2",
    "deepseek_v2_lite",
    "deepseek_v3",
    "deepseek_v3_halves",
};
enum { NUM_ARCH_MODELS = sizeof arch_models / sizeof arch_models[0] };

/* random_integers of tests/fixtures/make_tiny.py: SplitMix64 from a hash (FNV-1a) of the name. */
static inline uint64_t seed_of(const char *name, uint64_t seed)
{
    uint64_t state = 0xcbf29ce484222325u ^ seed;
    for (; *name; name++)
        state = (state ^ (unsigned char)*name) * 0x100000001b3u;
    return state;
}

static inline int32_t next_integer(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (int32_t)((z ^ (z >> 31)) >> 40) - (1 << 23);
}

static inline size_t element_count(const json_t *shape)
{
    const json_t *size;
    size_t i, count = 1;
    json_array_foreach((json_t *)shape, i, size) count *= (size_t)json_integer_value(size);
    return count;
}

static inline void append_values(struct buf *out, const char *name, const json_t *spec)
{
    size_t count = element_count(json_array_get(spec, 0));
    double offset = json_number_value(json_array_get(spec, 1));
    int exponent = (int)json_integer_value(json_array_get(spec, 2));
    uint64_t state = seed_of(name, 1);
    for (size_t i = 0; i < count; i++) {
        float value = (float)(offset + ldexp(next_integer(&state), exponent - 23));
        buf_append(out, (const char *)&value, sizeof value);
    }
}

static inline void write_file(const char *dir, const char *name, const void *data, size_t size)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

static inline void write_weights(const char *dir, json_t *tensors)
{
    struct buf data, file;
    json_t *header = json_object(), *spec;
    const char *name;
    buf_init(&data, 1 << 26);
    buf_init(&file, 1 << 26);
    json_object_foreach(tensors, name, spec)
    {
        size_t begin = data.len;
        append_values(&data, name, spec);
        json_object_set_new(header, name,
                            json_pack("{s:s, s:O, s:[I, I]}", "dtype", "F32", "shape",
                                      json_array_get(spec, 0), "data_offsets", (json_int_t)begin,
                                      (json_int_t)data.len));
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t len = strlen(text);
    buf_append(&file, (const char *)&len, sizeof len);
    buf_append(&file, text, len);
    buf_append(&file, buf_str(&data), data.len);
    write_file(dir, "model.safetensors", buf_str(&file), file.len);
    free(text);
    json_decref(header);
    buf_free(&data);
    buf_free(&file);
}

static inline void write_config(const char *dir, const json_t *config)
{
    char *text = json_dumps(config, 0);
    write_file(dir, "config.json", text, strlen(text));
    free(text);
}

struct fixture {
    json_t *golden;
    char dir[64];
};

static inline json_t *load_golden(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s.json", folder, name);
    return load_json(path);
}

/* The model that a golden file describes, in a directory of its own. */
static inline void fixture_write(struct fixture *f)
{
    strcpy(f->dir, "/tmp/inferd-arch-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    write_weights(f->dir, json_object_get(f->golden, "tensors"));
    write_config(f->dir, json_array_get(json_object_get(f->golden, "configs"), 0));
}

static inline void fixture_open_in(struct fixture *f, const char *folder, const char *name)
{
    f->golden = load_golden(folder, name);
    fixture_write(f);
}

static inline void fixture_open(struct fixture *f, const char *name)
{
    fixture_open_in(f, GOLDENS, name);
}

/* Sets dimension `dim` of all tensors whose names end so. */
static inline void resize_tensors(json_t *tensors, const char *end, size_t dim, int32_t size)
{
    const char *name;
    json_t *spec;
    json_object_foreach(tensors, name, spec)
    {
        size_t len = strlen(name), tail = strlen(end);
        json_t *shape = json_array_get(spec, 0);
        if (len > tail && strcmp(name + len - tail, end) == 0 && dim < json_array_size(shape))
            json_array_set_new(shape, dim, json_integer(size));
    }
}

/* A DeepSeek with latents of other sizes, which is no golden model any more: kernels with tensor
 * cores take multiples of 8, and the golden ones have odd sizes. */
static inline void fixture_open_latent(struct fixture *f, const char *name, int32_t latent,
                                       int32_t rope)
{
    f->golden = load_golden(GOLDENS, name);
    json_t *config = json_array_get(json_object_get(f->golden, "configs"), 0);
    json_t *tensors = json_object_get(f->golden, "tensors");
    const json_int_t nope = json_integer_value(json_object_get(config, "qk_nope_head_dim"));
    const json_int_t heads = json_integer_value(json_object_get(config, "num_attention_heads"));
    const int32_t q_size = (int32_t)(heads * (nope + rope));
    json_object_set_new(config, "kv_lora_rank", json_integer(latent));
    json_object_set_new(config, "qk_rope_head_dim", json_integer(rope));
    json_object_set_new(config, "qk_head_dim", json_integer(nope + rope));
    json_object_set_new(config, "head_dim", json_integer(rope));
    resize_tensors(tensors, "kv_a_layernorm.weight", 0, latent);
    resize_tensors(tensors, "kv_a_proj_with_mqa.weight", 0, latent + rope);
    resize_tensors(tensors, "kv_a_proj_with_mqa.bias", 0, latent + rope);
    resize_tensors(tensors, "kv_b_proj.weight", 1, latent);
    resize_tensors(tensors, "q_b_proj.weight", 0, q_size);
    resize_tensors(tensors, "q_proj.weight", 0, q_size);
    fixture_write(f);
}

static inline void fixture_close(struct fixture *f)
{
    remove_dir(f->dir);
    json_decref(f->golden);
}

/* backend NULL: the CPU. */
static inline void fixture_rig(const char *model, struct rig *r, const struct backend *backend,
                               const char *isa, const json_t *prompt)
{
    int32_t served = (int32_t)json_integer_value(json_object_get(prompt, "served_len"));
    struct rig_options o = { .path = model,
                             .load_format = "auto",
                             .dtype = "auto",
                             .isa = isa,
                             .served_len = served,
                             .backend = backend };
    rig_open_options(r, &o);
}

/* Over all positions, in parts of the range of each row's logits. */
struct error {
    double max, rms;
};

static inline struct error logits_error(const struct tensor *logits, const json_t *expected)
{
    struct error all = { 0, 0 };
    assert_int_equal((int32_t)json_array_size(expected), logits->rows);
    for (int32_t t = 0; t < logits->rows; t++) {
        const json_t *row = json_array_get(expected, (size_t)t);
        double low = INFINITY, high = -INFINITY, max = 0, squares = 0;
        assert_int_equal((int32_t)json_array_size(row), logits->cols);
        for (int32_t i = 0; i < logits->cols; i++) {
            double value = json_number_value(json_array_get(row, (size_t)i));
            double got = (double)logits_row(logits, t)[i];
            assert_false(isnan(got));
            low = fmin(low, value);
            high = fmax(high, value);
            max = fmax(max, fabs(got - value));
            squares += (got - value) * (got - value);
        }
        assert_true(high > low);
        all.max = fmax(all.max, max / (high - low));
        all.rms += squares / ((high - low) * (high - low));
    }
    all.rms = sqrt(all.rms / ((double)logits->rows * logits->cols));
    return all;
}

/* The greatest one, of the model at that path; its greedy tokens must be the golden ones. */
static inline double prompt_error_on(const char *model, const json_t *prompt,
                                     const struct backend *backend, const char *isa,
                                     int32_t num_greedy)
{
    struct rig r;
    int32_t ids[RIG_MAX_LEN], expected[NUM_GREEDY], got[NUM_GREEDY];
    int32_t n = json_ints(json_object_get(prompt, "ids"), ids, RIG_MAX_LEN);
    assert_int_equal(json_ints(json_object_get(prompt, "greedy_ids"), expected, NUM_GREEDY),
                     NUM_GREEDY);
    fixture_rig(model, &r, backend, isa, prompt);
    const struct tensor *logits = rig_step(&r, &(struct rig_span){ 0, ids, n }, 1);
    double error = logits_error(logits, json_object_get(prompt, "logits")).max;
    rig_greedy(&r, 0, logits_row(logits, n - 1), got, num_greedy);
    assert_memory_equal(got, expected, (size_t)num_greedy * sizeof *got);
    rig_close(&r);
    return error;
}

static inline double prompt_error(const char *model, const json_t *prompt, const char *isa)
{
    return prompt_error_on(model, prompt, NULL, isa, NUM_GREEDY);
}

#endif
