/* test_gguf_parity.c - GGUF files of each family against transformers, and a model of each tensor
 * type against the same model with its weights dequantized to float32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "engine/model/gguf.h"
#include "tests/engine/model/arch_fixture.h"

/* Each has a file NAME.json in tests/golden/arch/, made by tests/golden/make_arch_goldens.py. */
static const char *const names[] = {
    "qwen3",          "phi3",           "gguf_llama",  "gguf_mixtral", "gguf_qwen2",
    "gguf_qwen2_moe", "gguf_qwen3_moe", "gguf_gemma2", "gguf_gemma3",
};
enum { NUM_NAMES = sizeof names / sizeof names[0] };

static bool has_python(void)
{
    bool there = system("python3 -c '' 2>/dev/null") == 0;
    if (!there)
        print_message("skipped: there is no python3 to write GGUF files with\n");
    return there;
}

/* SOURCE in Hugging Face's layout as SOURCE/NAME. */
static void make_gguf(const char *source, const char *name, const char *options, char path[128])
{
    char command[512];
    snprintf(path, 128, "%s/%s", source, name);
    snprintf(command, sizeof command, "python3 tests/fixtures/make_gguf.py %s %s %s", source, path,
             options);
    assert_int_equal(system(command), 0);
}

/* --- families -------------------------------------------------------------------------------- */

static void test_families(void **state)
{
    (void)state;
    if (!has_python())
        return;
    for (int i = 0; i < NUM_NAMES; i++) {
        struct fixture f;
        json_t *prompt;
        size_t p;
        char path[128];
        double worst = 0;
        fixture_open(&f, names[i]);
        make_gguf(f.dir, "model.gguf", i % 2 ? "--version 2" : "", path);
        json_array_foreach(json_object_get(f.golden, "prompts"), p, prompt)
        {
            worst = fmax(worst, prompt_error(path, prompt, "scalar"));
            worst = fmax(worst, prompt_error(path, prompt, "auto"));
        }
        print_message("%s: worst difference %.2g of the range\n", names[i], worst);
        assert_true(worst <= 1e-4);
        fixture_close(&f);
    }
}

/* --- types ----------------------------------------------------------------------------------- */

static void append_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static void append_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

/* The tensor's elements as float32, appended to `data`; its entry to `info`. */
static void append_tensor(struct buf *info, struct buf *data, const struct checkpoint_tensor *t)
{
    const struct quant_format *f =
        t->type->is_float ? quant_format_of_dtype(t->type->dtype) : t->type->format;
    int64_t count = 1;
    append_u64(info, strlen(t->name));
    buf_append(info, t->name, strlen(t->name));
    append_u32(info, (uint32_t)t->num_dims);
    for (int32_t i = t->num_dims - 1; i >= 0; i--) {
        append_u64(info, (uint64_t)t->shape[i]);
        count *= t->shape[i];
    }
    append_u32(info, 0);
    append_u64(info, data->len);
    float *values = xmalloc((size_t)count * sizeof *values);
    f->dequantize(f, values, t->data, 0, count);
    buf_append(data, values, (size_t)count * sizeof *values);
    while (data->len % 32 != 0)
        buf_append(data, "", 1);
    free(values);
}

/* Writes the GGUF at `path` again with every tensor in float32. */
static void write_twin(const char *dir, const char *path, char twin[128])
{
    enum { HEAD_BYTES = 24 };
    struct gguf *g;
    struct status st;
    struct arena arena;
    struct gguf_metadata keys = { .file = "twin" };
    struct buf file, info, data;
    if (!gguf_open(path, &g, &st))
        rig_fail(path, &st);
    const unsigned char *bytes = g->checkpoint->files[0].data;
    struct gguf_cursor at = { bytes + HEAD_BYTES, bytes + g->checkpoint->files[0].size_bytes };
    arena_init(&arena);
    assert_true(gguf_metadata_read(&keys, &at, g->metadata.count, &arena, &st));
    buf_init(&file, 1 << 28);
    buf_init(&info, 1 << 20);
    buf_init(&data, 1 << 28);
    buf_append(&file, bytes, (size_t)(at.at - bytes));
    for (size_t i = 0; i < g->checkpoint->num_tensors; i++)
        append_tensor(&info, &data, &g->checkpoint->tensors[i]);
    buf_append(&file, buf_str(&info), info.len);
    while (file.len % 32 != 0)
        buf_append(&file, "", 1);
    buf_append(&file, buf_str(&data), data.len);
    assert_false(file.overflow || data.overflow);
    snprintf(twin, 128, "%s/twin.gguf", dir);
    write_file(dir, "twin.gguf", buf_str(&file), file.len);
    gguf_metadata_free(&keys);
    arena_free(&arena);
    gguf_close(g);
    buf_free(&file);
    buf_free(&info);
    buf_free(&data);
}

enum { PROMPT_LEN = 23 };

/* The logits of one prompt, [PROMPT_LEN, vocab_size], to be freed. */
static float *run_prompt(const char *path, const char *isa, int32_t *vocab)
{
    struct rig r;
    int32_t ids[PROMPT_LEN];
    rig_open_with_kv(&r, path, "auto", "auto", isa, "float32");
    *vocab = r.model->desc.vocab_size;
    for (int32_t i = 0; i < PROMPT_LEN; i++)
        ids[i] = (i * 37 + 1) % *vocab;
    const struct tensor *logits = rig_step(&r, &(struct rig_span){ 0, ids, PROMPT_LEN }, 1);
    float *out = xmalloc((size_t)(PROMPT_LEN * *vocab) * sizeof *out);
    for (int32_t i = 0; i < PROMPT_LEN; i++)
        memcpy(out + i * *vocab, logits_row(logits, i), (size_t)*vocab * sizeof *out);
    rig_close(&r);
    return out;
}

/* Differences in parts of the range of a row's logits: the largest one, and how many rows have one
 * above FAR. */
#define FAR 0.06
struct twin_error {
    double worst;
    int32_t num_far;
};

static struct twin_error twin_error(const char *path, const char *twin, const char *isa)
{
    int32_t vocab;
    struct twin_error result = { 0 };
    float *got = run_prompt(path, isa, &vocab), *expected = run_prompt(twin, isa, &vocab);
    for (int32_t t = 0; t < PROMPT_LEN; t++) {
        double low = INFINITY, high = -INFINITY, error = 0;
        for (int32_t i = t * vocab; i < (t + 1) * vocab; i++) {
            assert_true(isfinite(got[i]) && isfinite(expected[i]));
            low = fmin(low, (double)expected[i]);
            high = fmax(high, (double)expected[i]);
            error = fmax(error, fabs((double)got[i] - (double)expected[i]));
        }
        assert_true(high > low);
        result.worst = fmax(result.worst, error / (high - low));
        result.num_far += error / (high - low) > FAR;
    }
    free(got);
    free(expected);
    return result;
}

/* The scalar kernels dequantize and must be within `bound`; the best ones may round x, and then be
 * farther away in `max_far` rows. */
static void check_types(const char *source, const char *types, double bound, int32_t max_far)
{
    char path[128], twin[128], options[160];
    snprintf(options, sizeof options, "--types %s", types);
    make_gguf(source, "q.gguf", options, path);
    write_twin(source, path, twin);
    struct twin_error scalar = twin_error(path, twin, "scalar"),
                      best = twin_error(path, twin, "auto");
    print_message("%s: %.2g of the range from float32 (scalar), %.2g, %d of %d rows far\n", types,
                  scalar.worst, best.worst, best.num_far, PROMPT_LEN);
    assert_true(scalar.worst <= bound && best.num_far <= max_far);
}

/* Alone, and several in one file: q, k and v, gate and up then differ in their types. Products with
 * bfloat16 weights round x to bfloat16, which the float32 twin does not. */
static void test_types(void **state)
{
    static const struct {
        const char *types;
        double bound;
    } cases[] = {
        { "F32", 0 },
        { "F16", 1e-6 },
        { "BF16", 2e-2 },
        { "Q4_0", 1e-6 },
        { "Q4_1", 1e-6 },
        { "Q5_0", 1e-6 },
        { "Q5_1", 1e-6 },
        { "Q8_0", 1e-6 },
        { "Q2_K", 1e-6 },
        { "Q3_K", 1e-6 },
        { "Q4_K", 1e-6 },
        { "Q5_K", 1e-6 },
        { "Q6_K", 1e-6 },
        { "IQ4_NL", 1e-6 },
        { "IQ4_XS", 1e-6 },
        { "MXFP4", 1e-6 },
        { "Q4_K,Q8_0,F16,Q6_K,Q5_0,F32,Q3_K,IQ4_NL", 1e-6 },
        { "Q4_1,BF16,Q2_K", 2e-2 },
    };
    (void)state;
    char dir[64];
    if (!has_python() ||
        !make_tiny(dir, "--hidden-size 256 --intermediate-size 256 --num-hidden-layers 2 "
                        "--vocab-size 300 --no-tie-word-embeddings"))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_types(dir, cases[i].types, cases[i].bound, 0);
    remove_dir(dir);
}

/* Where x is rounded, a token of equal chances may go to another expert. Experts that are not all
 * of one type are held in the model's dtype, here float16. */
static void test_types_of_experts(void **state)
{
    (void)state;
    struct fixture f;
    if (!has_python())
        return;
    fixture_open(&f, "gguf_qwen3_moe");
    check_types(f.dir, "Q8_0", 1e-6, PROMPT_LEN / 3);
    check_types(f.dir, "Q4_0,Q5_1,Q8_0,F16", 1e-3, PROMPT_LEN / 3);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_types_of_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
