/* test_model.c - opening a directory: options, defaults, what is refused and how it is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/config_helper.h"
#include "tests/engine/model/model_helper.h"

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A directory with the good config.json, changed, and nothing else. */
static void config_dir(char dir[64], const char *patch)
{
    strcpy(dir, "/tmp/inferd-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    json_t *config = patched_config(patch);
    char *text = json_dumps(config, 0);
    write_text(dir, "config.json", text);
    free(text);
    json_decref(config);
}

static void expect_refused(const char *path, const char *load_format, const char *dtype,
                           const char *words)
{
    struct model_options o = { .path = path, .load_format = load_format, .dtype = dtype };
    struct model *m = NULL;
    struct status st = { 0 };
    bool ok = model_open(&o, &m, &st);
    if (ok || !strstr(st.message, words) || strchr(st.message, '\n'))
        fail_msg("expected: %s\n  message: %s", words, ok ? "(taken)" : st.message);
}

static struct model *open_model(const char *path, const char *load_format, const char *dtype)
{
    struct model_options o = { .path = path, .load_format = load_format, .dtype = dtype };
    struct model *m = NULL;
    struct status st;
    if (!model_open(&o, &m, &st))
        fail_msg("%s: %s", path, st.message);
    return m;
}

static void test_dummy(void **state)
{
    char dir[64];
    (void)state;
    config_dir(dir, "{\"torch_dtype\":\"bfloat16\"}");
    struct model *m = open_model(dir, "dummy", "auto");
    assert_null(m->checkpoint);
    assert_int_equal(m->tensors.count, 0);
    assert_string_equal(m->weight_format->name, "bfloat16");
    assert_string_equal(m->path, dir);
    struct sampling_params defaults;
    sampling_params_defaults(&defaults);
    defaults.num_eos_token_ids = m->desc.num_eos_token_ids;
    defaults.eos_token_ids = m->desc.eos_token_ids;
    assert_memory_equal(&m->generation_defaults, &defaults, sizeof defaults);
    assert_int_equal(m->generation_max_new_tokens, 0);
    /* The embedding once; per layer q, k, v, o, gate, up, down and two norms; one norm. */
    assert_int_equal(model_num_parameters(m),
                     512 * 64 + 5 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 172 + 2 * 64) + 64);
    model_close(m);
    m = open_model(dir, "dummy", "half");
    assert_string_equal(m->weight_format->name, "float16");
    model_close(m);
    remove_dir(dir);
}

static void test_parameters(void **state)
{
    char dir[64];
    (void)state;
    config_dir(dir, "{\"tie_word_embeddings\":false,\"attention_bias\":true,\"mlp_bias\":true}");
    struct model *m = open_model(dir, "dummy", "auto");
    int64_t biases = 64 + 32 + 32 + 64 + 172 + 172 + 64;
    assert_int_equal(model_num_parameters(m),
                     2 * 512 * 64 +
                         5 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 172 + 2 * 64 + biases) + 64);
    model_close(m);
    remove_dir(dir);
}

static void test_refused(void **state)
{
    char dir[64];
    (void)state;
    expect_refused("/tmp/no-such-directory-of-inferd", "auto", "auto", "No such file");
    config_dir(dir, "{}");
    char file[96];
    snprintf(file, sizeof file, "%s/config.json", dir);
    expect_refused(file, "auto", "auto", "is neither a directory nor a GGUF file");
    expect_refused(dir, "auto", "auto", "neither model.safetensors nor");
    expect_refused(dir, "safetensors", "auto", "neither model.safetensors nor");
    expect_refused(dir, "gguf", "auto", "there is no .gguf file in it");
    expect_refused(dir, "pickle", "auto", "load format 'pickle'");
    expect_refused(dir, "dummy", "int8", "dtype 'int8'");
    expect_refused(dir, "dummy", "int32", "dtype 'int32'");
    write_text(dir, "generation_config.json", "{\"top_p\":7}");
    expect_refused(dir, "dummy", "auto", "generation_config.json: top_p is 7");
    write_text(dir, "generation_config.json", "{");
    expect_refused(dir, "dummy", "auto", "generation_config.json: not valid JSON");
    write_text(dir, "config.json", "{\"architectures\":[],\"architectures\":[]}");
    expect_refused(dir, "dummy", "auto", "config.json: not valid JSON");
    write_text(dir, "config.json", "[1]");
    expect_refused(dir, "dummy", "auto", "config.json: the outermost value");
    assert_int_equal(unlink(file), 0);
    expect_refused(dir, "dummy", "auto", "config.json: cannot open");
    assert_int_equal(mkdir(file, 0700), 0);
    expect_refused(dir, "dummy", "auto", "config.json: not a regular file");
    assert_int_equal(rmdir(file), 0);
    assert_int_equal(mkfifo(file, 0600), 0);
    expect_refused(dir, "dummy", "auto", "config.json: not a regular file");
    remove_dir(dir);
}

static void test_generation_defaults(void **state)
{
    char dir[64];
    struct status st;
    (void)state;
    config_dir(dir, "{}");
    write_text(dir, "generation_config.json",
               "{\"temperature\":0.6,\"top_k\":20,\"max_new_tokens\":50,\"eos_token_id\":[7,2]}");
    struct model *m = open_model(dir, "dummy", "auto");
    assert_true(m->generation_defaults.temperature == 0.6f);
    assert_int_equal(m->generation_defaults.top_k, 20);
    assert_int_equal(m->generation_max_new_tokens, 50);
    assert_int_equal(m->desc.num_eos_token_ids, 2);
    assert_int_equal(m->desc.eos_token_ids[1], 7);
    assert_int_equal(m->generation_defaults.num_eos_token_ids, 2);
    assert_ptr_equal(m->generation_defaults.eos_token_ids, m->desc.eos_token_ids);
    assert_true(model_add_eos(m, 7, &st) && model_add_eos(m, 9, &st));
    assert_int_equal(m->generation_defaults.num_eos_token_ids, 3);
    assert_false(model_add_eos(m, m->desc.vocab_size, &st));
    model_close(m);
    remove_dir(dir);
}

static void test_tensors(void **state)
{
    char dir[64], path[96];
    (void)state;
    if (!make_tiny(dir, "--dtype bfloat16 --sharded")) {
        print_message("skip: there is no python3\n");
        skip();
    }
    struct model *m = open_model(dir, "auto", "auto");
    assert_non_null(m->checkpoint);
    assert_int_equal(m->tensors.count, 2 + 3 * 9);
    assert_string_equal(m->weight_format->name, "bfloat16");
    model_close(m);

    /* Without a dtype in config.json the tensors decide. */
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *config = load_json(path);
    json_object_del(config, "torch_dtype");
    assert_int_equal(json_dump_file(config, path, 0), 0);
    m = open_model(dir, "safetensors", "auto");
    assert_string_equal(m->weight_format->name, "bfloat16");
    model_close(m);

    json_object_set_new(config, "num_hidden_layers", json_integer(2));
    assert_int_equal(json_dump_file(config, path, 0), 0);
    expect_refused(dir, "auto", "auto", "tensor 'model.layers.2.");
    json_decref(config);
    remove_dir(dir);
}

static void test_max_len(void **state)
{
    static const struct {
        const char *patch;
        int32_t len;
    } cases[] = {
        { "{}", 256 },
        { "{\"max_position_embeddings\":\"-\"}", 2048 },
        { "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}", 640 },
        { "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":1000000}}", 16777216 },
        { "{\"rope_scaling\":{\"rope_type\":\"default\"}}", 256 },
        { "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
          "\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
          256 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct decoder_desc desc = desc_of(cases[i].patch);
        assert_int_equal(model_max_len(&desc), cases[i].len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dummy),   cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_generation_defaults),
        cmocka_unit_test(test_tensors), cmocka_unit_test(test_max_len),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
