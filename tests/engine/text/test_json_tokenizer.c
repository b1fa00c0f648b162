/* test_json_tokenizer.c - small tokenizers of every kind against what the tokenizers library made
 * of the same texts (tests/fixtures/make_tokenizers.py), and files that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/detokenizer.h"
#include "engine/text/json_tokenizer.h"
#include "tests/engine/text/text_fixture.h"

#include <jansson.h>
#include <pthread.h>

#define FIXTURES "tests/fixtures/tokenizers/"

static const char *const NAMES[] = { "bpe_bytes", "bpe_chars",     "bpe_suffix", "bpe_prefix",
                                     "unigram",   "unigram_bytes", "wordpiece",  "wordlevel" };
enum { NUM_NAMES = sizeof NAMES / sizeof *NAMES };

static json_t *load_goldens(const char *name)
{
    char path[160];
    snprintf(path, sizeof path, FIXTURES "%s/goldens.json", name);
    json_t *rows = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(rows) > 10);
    return rows;
}

static struct tokenizer *load_fixture(const char *name)
{
    char dir[160];
    snprintf(dir, sizeof dir, FIXTURES "%s", name);
    return fixture_load(dir);
}

static void check_ids(const struct tokenizer *t, const json_t *row, const char *key, bool special)
{
    const json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, key);
    struct token_list got = { 0 };
    struct status st = { 0 };
    if (!tokenizer_encode(t, json_string_value(text), json_string_length(text), special, SIZE_MAX,
                          &got, &st))
        fail_msg("%s", st.message);
    assert_int_equal(got.len, json_array_size(ids));
    for (size_t i = 0; i < got.len; i++)
        assert_int_equal(got.ids[i], json_integer_value(json_array_get(ids, i)));
    token_list_free(&got);
}

static void check_text(const struct tokenizer *t, const json_t *row, const char *key, bool skip)
{
    const json_t *ids = json_object_get(row, "ids"), *text = json_object_get(row, key);
    size_t count = json_array_size(ids);
    int32_t *list = calloc(count + 1, sizeof *list);
    for (size_t i = 0; i < count; i++)
        list[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    struct buf whole, deltas;
    buf_init(&whole, 0);
    buf_init(&deltas, 0);
    tokenizer_decode(t, list, count, skip, &whole);
    assert_int_equal(whole.len, json_string_length(text));
    assert_memory_equal(buf_str(&whole), json_string_value(text), whole.len);
    struct detokenizer *d = detokenizer_new(t, NULL, 0, skip);
    for (size_t i = 0; i < count; i++)
        detokenizer_push(d, list[i], &deltas);
    detokenizer_finish(d, &deltas);
    assert_int_equal(deltas.len, whole.len);
    assert_memory_equal(buf_str(&deltas), buf_str(&whole), whole.len);
    detokenizer_free(d);
    buf_free(&whole);
    buf_free(&deltas);
    free(list);
}

static void check_rows(const struct tokenizer *t, const json_t *rows)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        check_ids(t, row, "ids", true);
        check_ids(t, row, "plain_ids", false);
        check_text(t, row, "decoded", false);
        check_text(t, row, "skipped", true);
    }
}

static void test_goldens(void **state)
{
    (void)state;
    for (int n = 0; n < NUM_NAMES; n++) {
        struct tokenizer *t = load_fixture(NAMES[n]);
        json_t *rows = load_goldens(NAMES[n]);
        check_rows(t, rows);
        check_rows(t, rows); /* what the first pass learnt about words must not change the second */
        json_decref(rows);
        tokenizer_free(t);
    }
}

struct job {
    const struct tokenizer *t;
    const json_t *rows;
};

static void *run_job(void *arg)
{
    const struct job *job = arg;
    for (int i = 0; i < 20; i++) {
        for (size_t r = 0; r < json_array_size(job->rows); r++)
            check_ids(job->t, json_array_get(job->rows, r), "ids", true);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct tokenizer *t = load_fixture("bpe_bytes");
    json_t *rows = load_goldens("bpe_bytes");
    struct job job = { t, rows };
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &job), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    json_decref(rows);
    tokenizer_free(t);
}

/* tokenizer_config.json decides over a Llama class's BOS, and names tokens the file lacks. */
static void test_config_rules(void **state)
{
    (void)state;
    fixture_make_dir();
    fixture_write_text(
        "tokenizer.json",
        "{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"<unk>\": 0, \"<s>\": 1, "
        "\"</s>\": 2, \"a\": 3}, \"unk_token\": \"<unk>\"}, \"pre_tokenizer\": "
        "{\"type\": \"Whitespace\"}}");
    struct tokenizer *t = fixture_load(fixture_dir);
    assert_encodes(t, "a", true, 3);
    assert_int_equal(tokenizer_bos_id(t), -1);
    tokenizer_free(t);
    fixture_write_text("tokenizer_config.json",
                       "{\"tokenizer_class\": \"LlamaTokenizerFast\", \"add_eos_token\": true, "
                       "\"pad_token\": \"<pad>\", \"bos_token\": {\"content\": \"<s>\"}}");
    t = fixture_load(fixture_dir);
    assert_encodes(t, "a", true, 1, 3, 2);
    assert_encodes(t, "a<pad>a", false, 3, 4, 3);
    assert_int_equal(tokenizer_bos_id(t), 1);
    assert_int_equal(tokenizer_eos_id(t), 2);
    assert_int_equal(tokenizer_piece_to_id(t, "<pad>"), 4);
    assert_true(tokenizer_is_special(t, 4));
    tokenizer_free(t);
    fixture_write_text("tokenizer_config.json",
                       "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"add_bos_token\": true,"
                       " \"eos_token\": \"</s>\", \"added_tokens_decoder\": {\"3\": {\"content\": "
                       "\"a\", \"special\": true}}}");
    t = fixture_load(fixture_dir);
    assert_encodes(t, "a", true, 3);
    assert_decodes(t, true, "", 3, 2);
    assert_int_equal(tokenizer_bos_id(t), -1);
    assert_int_equal(tokenizer_eos_id(t), 2);
    tokenizer_free(t);
    fixture_remove_dir();
}

#define WITH(part) "{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0}}, " part "}"

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file, *why;
    } cases[] = {
        { "", "line 1" },
        { "[1]", "not a JSON object" },
        { "{}", "there is no \"model\"" },
        { "{\"model\": {\"type\": \"Oracle\"}}", "Oracle" },
        { "{\"model\": {\"type\": \"BPE\", \"merges\": []}}", "vocab" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}",
          "merge 0: \"b\" is not in the vocabulary" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}",
          "merge 0 is not two pieces" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [], \"dropout\": "
          "0.1}}",
          "dropout" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}", "id -1" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 99999999}, \"merges\": []}}",
          "99999999" },
        { "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0]], \"unk_id\": 1}}",
          "unk_id 1" },
        { "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\"]]}}", "score" },
        { WITH("\"normalizer\": {\"type\": \"Shuffle\"}"), "normalizer \"Shuffle\"" },
        { WITH("\"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}"),
          "pre-tokenizer \"UnicodeScripts\"" },
        { WITH("\"decoder\": {\"type\": \"CTC\"}"), "decoder \"CTC\"" },
        { WITH("\"post_processor\": {\"type\": \"X\"}"), "post-processor \"X\"" },
        { WITH("\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
               "\"Y\"}]}"),
          "pre-tokenizer \"Y\"" },
        { WITH("\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}}"),
          "regular expression" },
        { WITH("\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"x\"}, "
               "\"behavior\": \"Chopped\"}"),
          "Chopped" },
        { WITH("\"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"AAAA\"}"),
          "charsmap" },
        { WITH("\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Fuse\"}, "
               "{\"type\": \"ByteFallback\"}]}"),
          "ByteFallback" },
        { WITH("\"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"a\", 7], \"sep\": "
               "[\"a\", 0]}"),
          "id 7" },
    };
    fixture_make_dir();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t;
        struct status st = { 0 };
        fixture_write_text("tokenizer.json", cases[i].file);
        assert_false(tokenizer_load(fixture_dir, &t, &st));
        if (!strstr(st.message, cases[i].why) || !strstr(st.message, "tokenizer.json"))
            fail_msg("\"%s\" does not say \"%s\"", st.message, cases[i].why);
    }
    fixture_remove_dir();
}

/* Every prefix of a real file: an error, never a crash. */
static void test_truncated(void **state)
{
    (void)state;
    FILE *f = fopen(FIXTURES "bpe_chars/tokenizer.json", "rb");
    assert_non_null(f);
    char text[32768];
    size_t len = fread(text, 1, sizeof text, f);
    fclose(f);
    for (size_t n = 0; n + 2 < len; n += 61) {
        struct tokenizer *t;
        struct status st = { 0 };
        assert_false(json_tokenizer_parse(text, n, NULL, &t, &st));
        assert_int_equal(st.code, STATUS_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),      cmocka_unit_test(test_threads),
        cmocka_unit_test(test_config_rules), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
