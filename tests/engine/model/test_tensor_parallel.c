/* test_tensor_parallel.c - a model on several ranks gives what it gives on one: the goldens of
 * every architecture, quantized weights of every kind, the same bits at every rank and however a
 * prompt is cut; and what cannot be divided is refused with the sizes that can be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/arch_fixture.h"
#include "tests/engine/model/model_helper.h"
#include "base/alloc.h"
#include "base/thread.h"

#include <dirent.h>
#include <math.h>
#include <unistd.h>

#define PARALLEL "tests/golden/parallel/" /* made by tests/golden/make_parallel_shapes.py */
/* Both made by tests/golden/make_quant_goldens.py, the second for several ranks. */
#define QUANT          "tests/golden/quant/"
#define PARALLEL_QUANT "tests/golden/parallel_quant/"

enum { MAX_RANKS = 4, MAX_NAMES = 64, MAX_PROMPT = 96, MAX_VOCAB = 96 };

/* --- ranks ------------------------------------------------------------------------------------ */

/* What all ranks do, each in a thread of its own, and what came of it at one of them. */
struct job {
    struct rig rig;
    pthread_t thread;
    const int32_t *ids;
    int32_t num_ids;
    int32_t chunk;        /* tokens of a step; 0: all at once */
    const int32_t *other; /* not NULL: some steps carry tokens of this sequence too */
    int32_t num_other;
    float *logits;      /* [num_ids, vocab] */
    int32_t num_greedy; /* tokens wanted afterwards */
    int32_t greedy[NUM_GREEDY];
};

static struct job jobs[MAX_RANKS];

/* The prompt, chunk by chunk, perhaps in company; then greedy tokens. No check is made here: a
 * failed one must not leave the other ranks waiting. */
static void *job_main(void *arg)
{
    struct job *j = arg;
    int32_t vocab = j->rig.model->desc.vocab_size, other_at = 0;
    const struct tensor *logits = NULL;
    int32_t last = 0;
    rig_reset(&j->rig);
    for (int32_t at = 0, count; at < j->num_ids; at += count) {
        count = j->chunk > 0 && j->chunk < j->num_ids - at ? j->chunk : j->num_ids - at;
        int32_t others = j->other ? 1 + at % 5 : 0;
        others = others < j->num_other - other_at ? others : j->num_other - other_at;
        struct rig_span spans[2] = { { 2, j->other + other_at, others },
                                     { 1, j->ids + at, count } };
        logits = others > 0 ? rig_step(&j->rig, spans, 2) : rig_step(&j->rig, spans + 1, 1);
        for (int32_t i = 0; i < count; i++)
            memcpy(j->logits + (int64_t)(at + i) * vocab, logits_row(logits, others + i),
                   (size_t)vocab * sizeof(float));
        last = others + count - 1;
        other_at += others;
    }
    rig_greedy(&j->rig, 1, logits_row(logits, last), j->greedy, j->num_greedy);
    return NULL;
}

static void open_ranks(int32_t num_ranks, const struct rig_options *options)
{
    struct comm *comms[MAX_RANKS];
    struct status st;
    assert_true(comm_local_open(comms, num_ranks, &st));
    for (int32_t i = 0; i < num_ranks; i++) {
        struct rig_options own = *options;
        own.comm = comms[i];
        rig_open_options(&jobs[i].rig, &own);
        jobs[i].logits = xcalloc(MAX_PROMPT * MAX_VOCAB, sizeof(float));
        assert_true(jobs[i].rig.model->desc.vocab_size <= MAX_VOCAB);
        assert_int_equal(jobs[i].rig.weights->size.bytes, jobs[0].rig.weights->size.bytes);
    }
}

static void close_ranks(int32_t num_ranks)
{
    for (int32_t i = 0; i < num_ranks; i++) {
        rig_close(&jobs[i].rig);
        free(jobs[i].logits);
    }
}

/* Jobs 1 and up become copies of job 0; afterwards all must have the same results. */
static void run_ranks(int32_t num_ranks)
{
    struct status st;
    int32_t vocab = jobs[0].rig.model->desc.vocab_size;
    size_t bytes = (size_t)jobs[0].num_ids * (size_t)vocab * sizeof(float);
    assert_true(jobs[0].num_ids <= MAX_PROMPT);
    for (int32_t i = 0; i < num_ranks; i++) {
        struct job *j = &jobs[i];
        j->ids = jobs[0].ids;
        j->num_ids = jobs[0].num_ids;
        j->chunk = jobs[0].chunk;
        j->other = jobs[0].other;
        j->num_other = jobs[0].num_other;
        j->num_greedy = jobs[0].num_greedy;
        assert_true(thread_start(&j->thread, "rank", job_main, j, &st));
    }
    for (int32_t i = 0; i < num_ranks; i++)
        pthread_join(jobs[i].thread, NULL);
    for (int32_t i = 1; i < num_ranks; i++) {
        assert_memory_equal(jobs[i].logits, jobs[0].logits, bytes);
        assert_memory_equal(jobs[i].greedy, jobs[0].greedy, sizeof jobs[0].greedy);
    }
}

static void set_prompt(const int32_t *ids, int32_t num_ids)
{
    jobs[0].ids = ids;
    jobs[0].num_ids = num_ids;
    jobs[0].chunk = 0;
    jobs[0].other = NULL;
    jobs[0].num_other = 0;
    jobs[0].num_greedy = NUM_GREEDY;
}

/* The largest difference between two rows, in parts of the range of the first. */
static double row_error(const float *expected, const float *got, int32_t n)
{
    double low = INFINITY, high = -INFINITY, error = 0;
    for (int32_t i = 0; i < n; i++) {
        low = fmin(low, expected[i]);
        high = fmax(high, expected[i]);
        error = fmax(error, fabs((double)expected[i] - got[i]));
        error = isnan(got[i]) ? INFINITY : error;
    }
    assert_true(high > low);
    return error / (high - low);
}

/* --- all files of a folder -------------------------------------------------------------------- */

static char names[MAX_NAMES][40];

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* What ends with `ending`, without it. */
static int32_t list_names(const char *folder, const char *ending)
{
    int32_t count = 0;
    size_t end = strlen(ending);
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        size_t len = strlen(e->d_name);
        if (len <= end || strcmp(e->d_name + len - end, ending) != 0 || e->d_name[0] == '.')
            continue;
        assert_true(count < MAX_NAMES && len < sizeof names[0]);
        snprintf(names[count++], sizeof names[0], "%.*s", (int)(len - end), e->d_name);
    }
    closedir(dir);
    qsort(names, (size_t)count, sizeof names[0], by_name);
    return count;
}

/* --- the goldens of transformers -------------------------------------------------------------- */

static double golden_error(const struct fixture *f, const json_t *prompt, int32_t num_ranks)
{
    static int32_t ids[MAX_PROMPT];
    int32_t greedy[NUM_GREEDY], vocab;
    float row[MAX_VOCAB];
    double worst = 0;
    struct rig_options o = { .path = f->dir,
                             .load_format = "auto",
                             .dtype = "auto",
                             .isa = "auto",
                             .served_len = (int32_t)json_integer_value(
                                 json_object_get(prompt, "served_len")) };
    const json_t *logits = json_object_get(prompt, "logits");
    set_prompt(ids, json_ints(json_object_get(prompt, "ids"), ids, MAX_PROMPT));
    json_ints(json_object_get(prompt, "greedy_ids"), greedy, NUM_GREEDY);
    open_ranks(num_ranks, &o);
    vocab = jobs[0].rig.model->desc.vocab_size;
    run_ranks(num_ranks);
    for (int32_t i = 0; i < jobs[0].num_ids; i++) {
        const json_t *expected = json_array_get(logits, (size_t)i);
        for (int32_t k = 0; k < vocab; k++)
            row[k] = (float)json_number_value(json_array_get(expected, (size_t)k));
        worst = fmax(worst, row_error(row, jobs[0].logits + (int64_t)i * vocab, vocab));
    }
    assert_memory_equal(jobs[0].greedy, greedy, sizeof greedy);
    close_ranks(num_ranks);
    return worst;
}

/* What is refused must say which sizes are not. */
static bool can_divide(const struct rig_options *o, int32_t size, struct status *st)
{
    struct model_options options = {
        .path = o->path, .load_format = "auto", .dtype = o->dtype, .quantization = o->quantization
    };
    struct model *m;
    if (!model_open(&options, &m, st))
        rig_fail(o->path, st);
    bool ok = tensor_parallel_check(m, size, st);
    model_close(m);
    assert_true(ok || strstr(st->message, "; sizes that work: 1"));
    return ok;
}

static bool golden_on_ranks(const char *name, int32_t num_ranks)
{
    struct fixture f;
    struct status st;
    json_t *prompt;
    size_t p;
    double worst = 0;
    fixture_open(&f, name);
    bool divides =
        can_divide(&(struct rig_options){ .path = f.dir, .dtype = "auto" }, num_ranks, &st);
    json_array_foreach(json_object_get(f.golden, "prompts"), p, prompt)
    {
        if (divides)
            worst = fmax(worst, golden_error(&f, prompt, num_ranks));
    }
    if (divides)
        print_message("%s: worst difference %.2g of the range on %d ranks\n", name, worst,
                      num_ranks);
    else
        print_message("%s: %s\n", name, st.message);
    assert_true(worst <= 1e-4);
    fixture_close(&f);
    return divides;
}

/* Where the sizes are even enough; the others are refused, and all architectures run in the next
 * test. */
static void test_goldens(void **state)
{
    (void)state;
    int32_t count = list_names(GOLDENS, ".json"), on_two = 0, on_four = 0;
    for (int32_t i = 0; i < count; i++) {
        on_two += golden_on_ranks(names[i], 2);
        on_four += golden_on_ranks(names[i], 4);
    }
    print_message("of %d goldens %d run on 2 ranks and %d on 4\n", count, on_two, on_four);
    assert_true(on_two >= 20);
}

/* --- against one rank ------------------------------------------------------------------------- */

enum { PROMPT_LEN = 45, OTHER_LEN = 33 };

static int32_t prompt_ids[PROMPT_LEN], other_ids[OTHER_LEN];

static void make_prompts(int32_t vocab)
{
    for (int32_t i = 0; i < PROMPT_LEN; i++)
        prompt_ids[i] = (i * 37 + i * i % 11 + 1) % vocab;
    for (int32_t i = 0; i < OTHER_LEN; i++)
        other_ids[i] = (i * 91 + 5) % vocab;
}

/* Whole, then in chunks and in company: to the bit the same. */
static void check_same_bits(int32_t num_ranks, const float *whole, size_t bytes)
{
    static const int32_t chunks[] = { 7, 1, 16, 40 };
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        jobs[0].chunk = chunks[i];
        jobs[0].other = i % 2 == 0 ? other_ids : NULL;
        jobs[0].num_other = i % 2 == 0 ? OTHER_LEN : 0;
        jobs[0].num_greedy = 0;
        run_ranks(num_ranks);
        assert_memory_equal(jobs[0].logits, whole, bytes);
    }
}

static double error_on_ranks(const struct rig_options *o, int32_t num_ranks, const float *one,
                             const int32_t *greedy)
{
    open_ranks(num_ranks, o);
    int32_t vocab = jobs[0].rig.model->desc.vocab_size;
    size_t bytes = PROMPT_LEN * (size_t)vocab * sizeof(float);
    double worst = 0;
    set_prompt(prompt_ids, PROMPT_LEN);
    run_ranks(num_ranks);
    for (int32_t i = 0; i < PROMPT_LEN; i++)
        worst = fmax(
            worst, row_error(one + (int64_t)i * vocab, jobs[0].logits + (int64_t)i * vocab, vocab));
    assert_memory_equal(jobs[0].greedy, greedy, NUM_GREEDY * sizeof *greedy);
    float *whole = xmalloc(bytes);
    memcpy(whole, jobs[0].logits, bytes);
    check_same_bits(num_ranks, whole, bytes);
    free(whole);
    close_ranks(num_ranks);
    return worst;
}

/* Where each row of activations has a scale of its own, so has each rank's part of it: it is
 * rounded more finely than the whole. */
static double allowed(const struct model *m)
{
    const struct quant_config *q = m->quant;
    for (size_t i = 0; q && i < q->num_schemes; i++)
        if (q->schemes[i].input != INPUT_QUANT_NONE && !q->schemes[i].input_static)
            return 0.05;
    return 1e-4;
}

/* How many of the sizes 2 and 4 it ran on; what cannot be divided is refused. */
static int32_t compare_with_one_rank(const char *name, const struct rig_options *o)
{
    static float one[PROMPT_LEN * MAX_VOCAB];
    int32_t greedy[NUM_GREEDY], sizes_run = 0;
    open_ranks(1, o);
    int32_t vocab = jobs[0].rig.model->desc.vocab_size;
    const double bound = allowed(jobs[0].rig.model);
    make_prompts(vocab);
    set_prompt(prompt_ids, PROMPT_LEN);
    run_ranks(1);
    memcpy(one, jobs[0].logits, PROMPT_LEN * (size_t)vocab * sizeof *one);
    memcpy(greedy, jobs[0].greedy, sizeof greedy);
    close_ranks(1);
    for (int32_t size = 2; size <= MAX_RANKS; size *= 2) {
        struct status st;
        if (!can_divide(o, size, &st)) {
            print_message("%s: %s\n", name, st.message);
            continue;
        }
        double worst = error_on_ranks(o, size, one, greedy);
        print_message("%s: worst difference %.2g on %d ranks\n", name, worst, size);
        assert_true(worst <= bound);
        sizes_run++;
    }
    return sizes_run;
}

static void test_every_architecture(void **state)
{
    (void)state;
    int32_t count = list_names(PARALLEL, ".json");
    assert_true(count >= 23);
    for (int32_t i = 0; i < count; i++) {
        struct fixture f;
        fixture_open_in(&f, PARALLEL, names[i]);
        struct rig_options o = {
            .path = f.dir, .load_format = "auto", .dtype = "float32", .isa = "auto"
        };
        assert_int_equal(compare_with_one_rank(names[i], &o), 2);
        fixture_close(&f);
    }
}

/* --- quantized weights ------------------------------------------------------------------------ */

static int32_t compare_checkpoint(const char *path, const char *quantization, const char *isa)
{
    struct rig_options o = { .path = path,
                             .load_format = "auto",
                             .dtype = "float32",
                             .isa = isa,
                             .quantization = quantization };
    char name[160];
    snprintf(name, sizeof name, "%s%s%s", path, quantization ? " " : "",
             quantization ? quantization : "");
    return compare_with_one_rank(name, &o);
}

static int32_t compare_folder(const char *folder)
{
    int32_t count = list_names(folder, ""), sizes_run = 0;
    assert_true(count > 0);
    for (int32_t i = 0; i < count; i++) {
        char path[128];
        snprintf(path, sizeof path, "%.60s%.39s", folder, names[i]);
        sizes_run += compare_checkpoint(path, NULL, "auto");
    }
    return sizes_run;
}

/* Each layout of a quant_method. Groups of the small ones are cut by 4 ranks, if not by 2. */
static void test_quantized_checkpoints(void **state)
{
    (void)state;
    assert_true(compare_folder(QUANT) >= 8);
    assert_int_equal(compare_folder(PARALLEL_QUANT), 2 * 6);
}

/* What is quantized while it is loaded, and GGUF files: shares hold the numbers of the whole. */
static void test_quantized_at_load_and_gguf(void **state)
{
    static const char *const types[] = { "Q5_1", "MXFP4", "Q8_0,Q4_0,F32,Q4_1,IQ4_NL,F16" };
    static const char *const blocks_of_256[] = { "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS" };
    char dir[64], path[128], command[400];
    (void)state;
    if (!make_tiny(dir, "--hidden-size 256 --intermediate-size 512 --num-hidden-layers 1 "
                        "--num-attention-heads 8 --num-key-value-heads 2 --vocab-size 90"))
        return;
    assert_int_equal(compare_checkpoint(dir, "int4", "auto"), 2);
    assert_int_equal(compare_checkpoint(dir, "fp8", "auto"), 2);
    assert_int_equal(compare_checkpoint(dir, "int8", "auto"), 1); /* its groups are of 128 */
    snprintf(path, sizeof path, "%s/q.gguf", dir);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        snprintf(command, sizeof command, "python3 tests/fixtures/make_gguf.py %s %s --types %s",
                 dir, path, types[i]);
        assert_int_equal(system(command), 0);
        print_message("%s: ", types[i]);
        /* Others round x, and then the last bits of a sum may move it by a step. */
        assert_int_equal(compare_checkpoint(path, NULL, "scalar"), 2);
    }
    for (size_t i = 0; i < sizeof blocks_of_256 / sizeof blocks_of_256[0]; i++) {
        snprintf(command, sizeof command, "python3 tests/fixtures/make_gguf.py %s %s --types %s",
                 dir, path, blocks_of_256[i]);
        assert_int_equal(system(command), 0);
        struct status st;
        assert_false(can_divide(&(struct rig_options){ .path = path, .dtype = "auto" }, 2, &st));
        assert_non_null(strstr(st.message, "no multiple of the 256 that"));
    }
    remove_dir(dir);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void set_int(json_t *config, const char *key, json_int_t value)
{
    json_object_set_new(config, key, json_integer(value));
}

/* A Llama of these sizes on `size` ranks, without weights. */
static void check_refused(const char *keys, int32_t size, const char *message)
{
    char dir[] = "/tmp/inferd-tp-XXXXXX";
    struct status st;
    json_error_t error;
    json_t *config = json_loads(keys, 0, &error), *value;
    const char *key;
    json_t *all =
        json_pack("{s:[s], s:s}", "architectures", "LlamaForCausalLM", "model_type", "llama");
    assert_non_null(config);
    set_int(all, "vocab_size", 100);
    set_int(all, "hidden_size", 64);
    set_int(all, "intermediate_size", 96);
    set_int(all, "num_hidden_layers", 1);
    set_int(all, "num_attention_heads", 8);
    set_int(all, "num_key_value_heads", 4);
    set_int(all, "head_dim", 8);
    json_object_set_new(all, "rms_norm_eps", json_real(1e-5));
    set_int(all, "max_position_embeddings", 64);
    json_object_foreach(config, key, value) json_object_set(all, key, value);
    assert_non_null(mkdtemp(dir));
    write_config(dir, all);
    struct model_options options = { .path = dir, .load_format = "dummy", .dtype = "auto" };
    struct model *m;
    assert_true(model_open(&options, &m, &st));
    assert_int_equal(tensor_parallel_check(m, size, &st), message == NULL);
    if (message) {
        assert_string_equal(st.message, message);
        assert_string_equal(st.param, "tensor_parallel_size");
        assert_int_equal(st.code, STATUS_INVALID);
    }
    model_close(m);
    remove_dir(dir);
    json_decref(config);
    json_decref(all);
}

static void test_refusals(void **state)
{
    (void)state;
    check_refused("{}", 1, NULL);
    check_refused("{}", 8, NULL);
    check_refused("{}", 3,
                  "--tensor-parallel-size 3: num_attention_heads 8 is no multiple of it; sizes "
                  "that work: 1, 2, 4, 8");
    check_refused("{\"num_key_value_heads\": 1}", 4, NULL);
    check_refused("{\"num_attention_heads\": 12, \"num_key_value_heads\": 4}", 6,
                  "--tensor-parallel-size 6: num_key_value_heads 4 is neither a multiple nor a "
                  "divisor of it; sizes that work: 1, 2, 4, 12");
    check_refused("{\"intermediate_size\": 98}", 4,
                  "--tensor-parallel-size 4: intermediate_size 98 is no multiple of it; sizes that "
                  "work: 1, 2");
    check_refused("{\"vocab_size\": 9}", 8,
                  "--tensor-parallel-size 8: vocab_size 9 is too small for it; sizes that work: "
                  "1, 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_every_architecture),
        cmocka_unit_test(test_quantized_checkpoints),
        cmocka_unit_test(test_quantized_at_load_and_gguf),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
