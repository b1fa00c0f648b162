/* test_arch_parity.c - every architecture against transformers: a tiny model with weights drawn
 * from its tensors' names, the logits at every position, 32 greedy tokens; and the same bits
 * whether a prompt comes whole, in chunks or in company. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/model_helper.h"
#include "base/alloc.h"
#include "base/buf.h"

#include <math.h>

#define GOLDENS "tests/golden/arch/"

/* Each has a file NAME.json there, made by tests/golden/make_arch_goldens.py. */
static const char *const names[] = {
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
enum { NUM_NAMES = sizeof names / sizeof names[0], MAX_VOCAB = 96, NUM_GREEDY = 32 };

/* --- the checkpoint -------------------------------------------------------------------------- */

/* random_integers of tests/fixtures/make_tiny.py: SplitMix64 from a hash (FNV-1a) of the name. */
static uint64_t seed_of(const char *name, uint64_t seed)
{
    uint64_t state = 0xcbf29ce484222325u ^ seed;
    for (; *name; name++)
        state = (state ^ (unsigned char)*name) * 0x100000001b3u;
    return state;
}

static int32_t next_integer(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (int32_t)((z ^ (z >> 31)) >> 40) - (1 << 23);
}

static size_t element_count(const json_t *shape)
{
    const json_t *size;
    size_t i, count = 1;
    json_array_foreach((json_t *)shape, i, size) count *= (size_t)json_integer_value(size);
    return count;
}

static void append_values(struct buf *out, const char *name, const json_t *spec)
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

static void write_file(const char *dir, const char *name, const void *data, size_t size)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

static void write_weights(const char *dir, json_t *tensors)
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

static void write_config(const char *dir, const json_t *config)
{
    char *text = json_dumps(config, 0);
    write_file(dir, "config.json", text, strlen(text));
    free(text);
}

struct fixture {
    json_t *golden;
    char dir[64];
};

static void fixture_open(struct fixture *f, const char *name)
{
    char path[96];
    snprintf(path, sizeof path, GOLDENS "%s.json", name);
    f->golden = load_json(path);
    strcpy(f->dir, "/tmp/inferd-arch-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    write_weights(f->dir, json_object_get(f->golden, "tensors"));
    write_config(f->dir, json_array_get(json_object_get(f->golden, "configs"), 0));
}

static void fixture_close(struct fixture *f)
{
    remove_dir(f->dir);
    json_decref(f->golden);
}

static void fixture_rig(const struct fixture *f, struct rig *r, const char *isa,
                        const json_t *prompt)
{
    int32_t served = (int32_t)json_integer_value(json_object_get(prompt, "served_len"));
    struct rig_options o = { f->dir, "auto", "auto", isa, NULL, served };
    rig_open_options(r, &o);
}

/* --- parity ---------------------------------------------------------------------------------- */

/* The largest error over all positions, in parts of the range of the row's logits. */
static double logits_error(const struct tensor *logits, const json_t *expected)
{
    double worst = 0;
    assert_int_equal((int32_t)json_array_size(expected), logits->rows);
    for (int32_t t = 0; t < logits->rows; t++) {
        const json_t *row = json_array_get(expected, (size_t)t);
        double low = INFINITY, high = -INFINITY, error = 0;
        assert_int_equal((int32_t)json_array_size(row), logits->cols);
        for (int32_t i = 0; i < logits->cols; i++) {
            double value = json_number_value(json_array_get(row, (size_t)i));
            double got = (double)logits_row(logits, t)[i];
            assert_false(isnan(got));
            low = fmin(low, value);
            high = fmax(high, value);
            error = fmax(error, fabs(got - value));
        }
        assert_true(high > low);
        worst = fmax(worst, error / (high - low));
    }
    return worst;
}

static double prompt_error(const struct fixture *f, const json_t *prompt, const char *isa)
{
    struct rig r;
    int32_t ids[RIG_MAX_LEN], expected[NUM_GREEDY], got[NUM_GREEDY];
    int32_t n = json_ints(json_object_get(prompt, "ids"), ids, RIG_MAX_LEN);
    assert_int_equal(json_ints(json_object_get(prompt, "greedy_ids"), expected, NUM_GREEDY),
                     NUM_GREEDY);
    fixture_rig(f, &r, isa, prompt);
    const struct tensor *logits = rig_step(&r, &(struct rig_span){ 0, ids, n }, 1);
    double error = logits_error(logits, json_object_get(prompt, "logits"));
    rig_greedy(&r, 0, logits_row(logits, n - 1), got, NUM_GREEDY);
    assert_memory_equal(got, expected, sizeof got);
    rig_close(&r);
    return error;
}

/* Every spelling of the configuration, on the plain kernels and on the best ones. */
static void test_parity(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_NAMES; i++) {
        struct fixture f;
        json_t *config, *prompt;
        size_t c, p;
        double worst = 0;
        fixture_open(&f, names[i]);
        json_array_foreach(json_object_get(f.golden, "configs"), c, config)
        {
            write_config(f.dir, config);
            json_array_foreach(json_object_get(f.golden, "prompts"), p, prompt)
            {
                worst = fmax(worst, prompt_error(&f, prompt, "scalar"));
                worst = fmax(worst, prompt_error(&f, prompt, "auto"));
            }
            assert_int_equal(p, 2);
        }
        print_message("%s: worst difference %.2g of the range, %zu spellings\n", names[i], worst,
                      c);
        assert_true(worst <= 1e-4);
        fixture_close(&f);
    }
}

/* --- the same bits --------------------------------------------------------------------------- */

enum { SAME_LEN = 61, OTHER_LEN = 37 };

/* The prompt cut into pieces of `chunk`; with `other`, most steps also carry a piece of another
 * sequence, in front of it. */
static void check_chunks(struct rig *r, const int32_t *ids, const float *expected, int32_t chunk,
                         const int32_t *other)
{
    int32_t vocab = r->model->desc.vocab_size, other_at = 0;
    rig_reset(r);
    for (int32_t at = 0; at < SAME_LEN; at += chunk) {
        int32_t count = SAME_LEN - at < chunk ? SAME_LEN - at : chunk;
        int32_t others = other ? 1 + at % 5 : 0, first = 0;
        if (others > OTHER_LEN - other_at)
            others = OTHER_LEN - other_at;
        struct rig_span mine = { 1, ids + at, count };
        struct rig_span spans[2] = { { 2, other + other_at, others }, mine };
        if (others > 0)
            first = others;
        const struct tensor *logits = others > 0 ? rig_step(r, spans, 2) : rig_step(r, &mine, 1);
        for (int32_t i = 0; i < count; i++)
            assert_memory_equal(logits_row(logits, first + i), expected + (int64_t)(at + i) * vocab,
                                (size_t)vocab * sizeof(float));
        other_at += others;
    }
}

static void check_same_bits(const struct fixture *f, const char *isa, const char *dtype)
{
    static const int32_t chunks[] = { SAME_LEN, 1, 7, 16, 40 };
    struct rig r;
    int32_t ids[SAME_LEN], other[OTHER_LEN];
    struct rig_options o = { f->dir, "auto", dtype, isa, NULL, 0 };
    rig_open_options(&r, &o);
    int32_t vocab = r.model->desc.vocab_size;
    for (int32_t i = 0; i < SAME_LEN; i++)
        ids[i] = (i * 37 + 1) % vocab;
    for (int32_t i = 0; i < OTHER_LEN; i++)
        other[i] = (i * 91 + 5) % vocab;
    const struct tensor *whole = rig_step(&r, &(struct rig_span){ 0, ids, SAME_LEN }, 1);
    float *expected = xmalloc((size_t)SAME_LEN * (size_t)vocab * sizeof *expected);
    for (int32_t i = 0; i < SAME_LEN; i++)
        memcpy(expected + (int64_t)i * vocab, logits_row(whole, i), (size_t)vocab * sizeof(float));
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        check_chunks(&r, ids, expected, chunks[i], NULL);
        check_chunks(&r, ids, expected, chunks[i], other);
    }
    free(expected);
    rig_close(&r);
}

static void test_same_bits(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_NAMES; i++) {
        struct fixture f;
        fixture_open(&f, names[i]);
        check_same_bits(&f, "scalar", "float32");
        check_same_bits(&f, "auto", "float32");
        check_same_bits(&f, "auto", "bfloat16");
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
