/* test_quant_layout.c - every quantized layout of tests/golden/quant: its linears dequantize to
 * what an independent reader makes of them, to the bit; and the model computes what its float32
 * twin does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/model_helper.h"

#include <inttypes.h>
#include <math.h>

static const char *const cases[] = {
    "awq_g32",
    "gptq_4bit_g32_sym",
    "gptq_4bit_row",
    "gptq_4bit_g16_act_order",
    "gptq_4bit_g32_v2",
    "gptq_8bit_g32_act_order",
    "ct_w4a16_g32",
    "ct_w4a16_g32_asym",
    "ct_w8a16_channel",
    "ct_w8a8_int8",
    "ct_w8a8_int8_asym",
    "ct_fp8_static",
    "ct_fp8_dynamic",
    "ct_fp8_block",
    "fp8_block",
    "fp8_tensor",
    "fp8_block_deepseek",
    "bnb_nf4",
    "bnb_nf4_double",
    "mxfp4",
};
enum { NUM_CASES = sizeof cases / sizeof cases[0] };

/* Those whose activations are quantized as well; see tests/golden/make_w8a8_goldens.py. */
static const char *const rounding_cases[] = {
    "ct_w8a8_int8",
    "ct_fp8_static",
    "ct_fp8_dynamic",
    "fp8_tensor",
};
enum { NUM_ROUNDING = sizeof rounding_cases / sizeof rounding_cases[0] };

static bool rounds_activations(const char *name)
{
    for (int i = 0; i < NUM_ROUNDING; i++)
        if (strcmp(rounding_cases[i], name) == 0)
            return true;
    return false;
}

static uint64_t fnv1a(const void *data, size_t len)
{
    uint64_t state = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        state = (state ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return state;
}

static void golden_path(char *out, size_t size, const char *name, const char *file)
{
    snprintf(out, size, "tests/golden/quant/%s%s%s", name, file ? "/" : "", file ? file : "");
}

/* Of the matrix, or of all of a stack. */
static int32_t all_rows(const struct quant_source *s)
{
    return s->stack_size * s->rows;
}

/* The matrix, or the stack, its columns in their own order; free it. `pieces` reads it row by row.
 */
static float *dequantized(const struct quant_source *s, bool pieces)
{
    struct status st;
    size_t row_bytes = quant_row_bytes(s->format, s->cols), cols = (size_t)s->cols;
    int32_t num_rows = all_rows(s);
    unsigned char *rows = malloc((size_t)num_rows * row_bytes);
    float *out = malloc((size_t)num_rows * cols * sizeof *out), *row = malloc(cols * sizeof *row);
    int32_t *order = malloc(cols * sizeof *order);
    if (s->scheme->layout->check_values && !s->scheme->layout->check_values(s, &st))
        fail_msg("%s", st.message);
    if (pieces) { /* even rows, then odd ones */
        int32_t even = (num_rows + 1) / 2;
        s->scheme->layout->read_rows(s, rows, 0, even, 2);
        s->scheme->layout->read_rows(s, rows + (size_t)even * row_bytes, 1, num_rows - even, 2);
    } else {
        s->scheme->layout->read_rows(s, rows, 0, num_rows, 1);
    }
    for (int32_t c = 0; c < s->cols; c++)
        order[c] = c;
    if (s->has_order && !quant_source_order(s, order, &st))
        fail_msg("%s", st.message);
    for (int32_t r = 0; r < num_rows; r++) {
        int32_t at = pieces ? r / 2 + (r % 2 ? (num_rows + 1) / 2 : 0) : r;
        s->format->dequantize(s->format, row, rows + (size_t)at * row_bytes, 0, s->cols);
        for (int32_t c = 0; c < s->cols; c++)
            out[(size_t)r * cols + (size_t)order[c]] = row[c];
    }
    free(order);
    free(row);
    free(rows);
    return out;
}

static void check_linear(const char *name, const struct quant_source *s, const json_t *expected)
{
    char hash[20];
    size_t bytes = (size_t)all_rows(s) * (size_t)s->cols * sizeof(float);
    float *values = dequantized(s, false), *again = dequantized(s, true);
    const json_t *first = json_object_get(expected, "first");
    for (size_t i = 0; i < json_array_size(first); i++)
        if ((double)values[i] != json_number_value(json_array_get(first, i)))
            fail_msg("%s: %s[0][%zu] is %.9g, should be %.9g", name, s->name, i, (double)values[i],
                     json_number_value(json_array_get(first, i)));
    snprintf(hash, sizeof hash, "%016" PRIx64, fnv1a(values, bytes));
    assert_string_equal(hash, json_string_value(json_object_get(expected, "fnv1a")));
    assert_memory_equal(values, again, bytes);
    free(values);
    free(again);
}

static struct model *open_case(const char *name)
{
    char path[128];
    struct status st;
    struct model *m = NULL;
    golden_path(path, sizeof path, name, NULL);
    struct model_options options = { .path = path, .load_format = "auto", .dtype = "float32" };
    if (!model_open(&options, &m, &st))
        fail_msg("%s: %s", name, st.message);
    return m;
}

/* Whether the tensor has an entry before this one. */
static bool seen_before(const struct model *m, size_t entry)
{
    for (size_t i = 0; i < entry; i++)
        if (m->tensors.entries[i].tensor == m->tensors.entries[entry].tensor)
            return true;
    return false;
}

static void test_rows_are_the_references(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_CASES; i++) {
        char path[128];
        size_t found = 0;
        struct model *m = open_case(cases[i]);
        golden_path(path, sizeof path, cases[i], "expected.json");
        json_t *expected = load_json(path);
        for (size_t e = 0; e < m->tensors.count; e++) {
            const struct quant_source *s = m->tensors.entries[e].quant;
            const char *linear = s ? strstr(s->name, "layers.0.") : NULL;
            if (!linear || seen_before(m, e))
                continue;
            const json_t *one = json_object_get(expected, linear + strlen("layers.0."));
            assert_non_null(one);
            check_linear(cases[i], s, one);
            found++;
        }
        assert_int_equal(found, json_object_size(expected));
        json_decref(expected);
        model_close(m);
    }
}

/* --- the float32 twin --------------------------------------------------------------------------
 */

struct twin {
    json_t *header;
    FILE *data;
    size_t offset;
};

static void twin_add(struct twin *t, const char *name, const float *values, const int64_t *dims,
                     int32_t num_dims)
{
    size_t bytes = sizeof *values;
    json_t *shape = json_array();
    for (int32_t i = 0; i < num_dims; i++) {
        json_array_append_new(shape, json_integer(dims[i]));
        bytes *= (size_t)dims[i];
    }
    json_object_set_new(t->header, name,
                        json_pack("{s:s,s:o,s:[I,I]}", "dtype", "F32", "shape", shape,
                                  "data_offsets", (json_int_t)t->offset,
                                  (json_int_t)(t->offset + bytes)));
    assert_int_equal(fwrite(values, 1, bytes, t->data), bytes);
    t->offset += bytes;
}

static void twin_add_plain(struct twin *t, const struct checkpoint_tensor *tensor)
{
    size_t count = tensor->size_bytes / dtype_size(tensor->type->dtype);
    float *values = malloc(count * sizeof *values);
    void *aligned = malloc(tensor->size_bytes);
    memcpy(aligned, tensor->data, tensor->size_bytes);
    dtype_convert(values, DTYPE_F32, aligned, tensor->type->dtype, count);
    twin_add(t, tensor->name, values, tensor->shape, tensor->num_dims);
    free(aligned);
    free(values);
}

/* A linear; those of a stack with columns before rows, as float checkpoints have them. */
static void twin_add_linear(struct twin *t, const struct quant_source *s)
{
    char name[160];
    size_t rows = (size_t)s->rows, cols = (size_t)s->cols, matrix = rows * cols;
    float *values = dequantized(s, false), *turned = malloc(matrix * sizeof *turned);
    bool stacked = strstr(s->name, ".experts.") != NULL;
    for (int32_t i = 0; stacked && i < s->stack_size; i++) {
        float *at = values + (size_t)i * matrix;
        for (size_t k = 0; k < matrix; k++)
            turned[k % cols * rows + k / cols] = at[k];
        memcpy(at, turned, matrix * sizeof *turned);
    }
    snprintf(name, sizeof name, "%s%s", s->name, stacked ? "" : ".weight");
    if (stacked)
        twin_add(t, name, values, (int64_t[]){ s->stack_size, s->cols, s->rows }, 3);
    else
        twin_add(t, name, values, (int64_t[]){ s->rows, s->cols }, 2);
    free(turned);
    free(values);
}

/* dir/model.safetensors and dir/config.json, without a trace of the quantization. */
static void write_twin(const char *dir, const char *name)
{
    char path[160];
    struct model *m = open_case(name);
    struct twin t = { json_object(), tmpfile(), 0 };
    for (size_t e = 0; e < m->tensors.count; e++) {
        const struct tensor_map_entry *entry = &m->tensors.entries[e];
        if (seen_before(m, e))
            continue;
        if (entry->quant)
            twin_add_linear(&t, entry->quant);
        else
            twin_add_plain(&t, entry->tensor);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "wb");
    char *header = json_dumps(t.header, 0), *data = malloc(t.offset);
    uint64_t len = strlen(header);
    rewind(t.data);
    assert_int_equal(fread(data, 1, t.offset, t.data), t.offset);
    fwrite(&len, 1, 8, f);
    fwrite(header, 1, len, f);
    fwrite(data, 1, t.offset, f);
    fclose(f);
    fclose(t.data);
    free(header);
    free(data);
    json_decref(t.header);
    golden_path(path, sizeof path, name, "config.json");
    json_t *config = load_json(path);
    json_object_del(config, "quantization_config");
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    model_close(m);
}

enum { PROMPT = 24 };

static float *all_logits(const char *path, const char *isa, int32_t chunk)
{
    struct rig r;
    int32_t ids[PROMPT];
    for (int32_t i = 0; i < PROMPT; i++)
        ids[i] = (i * 7 + 3) % 64;
    rig_open(&r, path, "auto", "float32", isa);
    int32_t vocab = r.model->desc.vocab_size;
    float *out = malloc((size_t)(PROMPT * vocab) * sizeof *out);
    for (int32_t at = 0; at < PROMPT; at += chunk) {
        const struct tensor *logits = rig_step(&r, &(struct rig_span){ 0, ids + at, chunk }, 1);
        for (int32_t i = 0; i < chunk; i++)
            memcpy(out + (size_t)(at + i) * (size_t)vocab, logits_row(logits, i),
                   (size_t)vocab * sizeof *out);
    }
    rig_close(&r);
    return out;
}

static double worst_of(const float *a, const float *b)
{
    double worst = 0;
    for (int32_t k = 0; k < PROMPT * 64; k++)
        worst = fmax(worst, fabs((double)a[k] - (double)b[k]));
    return worst;
}

/* Kernels made for a format leave out the rounding of its values to the dtype of the scale, which
 * is up to 2^-9 of each for bfloat16; the others give the very same bits. That for MXFP4 rounds
 * activations to 8 bits; without it no more than the order of sums differs. Where the checkpoint
 * says so they are rounded by all: the next test knows to what. */
static void test_models_agree_with_their_twins(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_CASES; i++) {
        char dir[64] = "/tmp/inferd-twin-XXXXXX", path[128];
        assert_non_null(mkdtemp(dir));
        write_twin(dir, cases[i]);
        golden_path(path, sizeof path, cases[i], NULL);
        float *twin = all_logits(dir, "auto", PROMPT), *whole = all_logits(path, "auto", PROMPT);
        float *single = all_logits(path, "auto", 1);
        bool mxfp4 = strcmp(cases[i], "mxfp4") == 0;
        bool rounds = mxfp4 || rounds_activations(cases[i]);
        float *scalar = mxfp4 ? all_logits(path, "scalar", PROMPT) : NULL;
        double worst = worst_of(twin, whole), largest = 0;
        for (int32_t k = 0; k < PROMPT * 64; k++)
            largest = fmax(largest, fabs((double)twin[k]));
        if (mxfp4)
            print_message("%-24s off by %.2g without\n", cases[i], worst_of(twin, scalar));
        assert_true(!mxfp4 || worst_of(twin, scalar) <= 1e-5 * largest);
        print_message("%-24s logits up to %5.2f, off by %.2g\n", cases[i], largest, worst);
        assert_true(largest > 1);
        assert_true(worst <= (rounds ? 0.02 : 0.002) * largest);
        assert_memory_equal(whole, single, (size_t)(PROMPT * 64) * sizeof *whole);
        free(twin);
        free(whole);
        free(single);
        free(scalar);
        remove_dir(dir);
    }
}

/* Bits of inputs that lie between two codes turn a few of them over: a 127th or an 8th of one
 * element of a row. */
static void test_activations_are_rounded_as_the_checkpoint_says(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_ROUNDING; i++) {
        char path[128];
        const char *row;
        json_t *values;
        double worst = 0, largest = 0;
        golden_path(path, sizeof path, rounding_cases[i], "logits.json");
        json_t *golden = load_json(path);
        golden_path(path, sizeof path, rounding_cases[i], NULL);
        for (int32_t scalar = 0; scalar < 2; scalar++) {
            float *logits = all_logits(path, scalar ? "scalar" : "auto", PROMPT);
            json_object_foreach(json_object_get(golden, "logits"), row, values)
            {
                for (size_t k = 0; k < 64; k++) {
                    double want = json_number_value(json_array_get(values, k));
                    worst = fmax(worst, fabs(want - (double)logits[(size_t)atoi(row) * 64 + k]));
                    largest = fmax(largest, fabs(want));
                }
            }
            free(logits);
        }
        print_message("%-24s logits up to %5.2f, off by %.2g\n", rounding_cases[i], largest, worst);
        assert_true(largest > 1);
        assert_true(worst <= 0.0005 * largest);
        json_decref(golden);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_the_references),
        cmocka_unit_test(test_models_agree_with_their_twins),
        cmocka_unit_test(test_activations_are_rounded_as_the_checkpoint_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
