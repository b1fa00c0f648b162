/* test_gguf_tokenizer.c - tokenizers from GGUF metadata: byte-level BPE and SentencePiece's BPE on
 * vocabularies small enough to merge by hand, and what is refused. tests/golden/
 * check_gguf_tokenizers.py compares real ones with llama.cpp and the tokenizers library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/engine/text/gguf_fixture.h"

#include <math.h>
#include <string.h>

/* a 0, b 1, Ġ 2, ab 3, Ġab 4, 1 5, 11 6, ' 7, S 8, 'S 9, Ċ 10; then what is cut out of texts. */
static const char GPT2[] = "{\"model\": \"gpt2\", \"pre\": \"gpt-2\","
                           " \"tokens\": [\"a\", \"b\", \"Ġ\", \"ab\", \"Ġab\", \"1\", \"11\", "
                           "\"'\", \"S\", \"'S\", \"Ċ\","
                           "   \"<|im_start|>\", \"<|im_end|>\", \"<user>\", \"<ab>\"],"
                           " \"types\": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 1, 4, 5],"
                           " \"merges\": [\"a b\", \"Ġ ab\", \"1 1\", \"' S\"],"
                           " \"bos_id\": 11, \"eos_id\": 12}";

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *root = json_loads(text, 0, &error);
    if (!root)
        fail_msg("%s", error.text);
    return root;
}

/* Takes the reference. */
static bool load_json(json_t *root, struct tokenizer **out, struct status *st)
{
    struct gguf_fixture f;
    gguf_fixture_read(root, &f);
    bool ok = gguf_tokenizer_load(&f.vocab, out, st);
    gguf_fixture_free(&f);
    json_decref(root);
    return ok;
}

static struct tokenizer *load(json_t *root)
{
    struct tokenizer *t;
    struct status st = { 0 };
    if (!load_json(root, &t, &st))
        fail_msg("%s", st.message);
    return t;
}

static void check_ids(const struct tokenizer *t, const char *text, bool special,
                      const int32_t *expected, size_t count)
{
    struct token_list ids = { 0 };
    struct status st = { 0 };
    assert_true(tokenizer_encode(t, text, strlen(text), special, SIZE_MAX, &ids, &st));
    assert_int_equal(ids.len, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(ids.ids[i], expected[i]);
    token_list_free(&ids);
}

#define CHECK_IDS(t, text, special, ...)                                                           \
    check_ids(t, text, special, (const int32_t[]){ __VA_ARGS__ },                                  \
              sizeof(const int32_t[]){ __VA_ARGS__ } / sizeof(int32_t))

static void check_text(const struct tokenizer *t, bool skip, const char *expected,
                       const int32_t *ids, size_t count)
{
    struct buf out;
    buf_init(&out, 0);
    tokenizer_decode(t, ids, count, skip, &out);
    assert_string_equal(buf_str(&out), expected);
    buf_free(&out);
}

static void gpt2_merges_words(void **state)
{
    (void)state;
    struct tokenizer *t = load(parse(GPT2));
    CHECK_IDS(t, "ab ab", false, 3, 4);
    CHECK_IDS(t, "111", false, 6, 5);
    CHECK_IDS(t, "a\nb", false, 0, 10, 1);
    /* "'S" is two words to GPT-2, in whose pattern only small letters follow the sign. */
    CHECK_IDS(t, "'S", false, 7, 8);
    assert_int_equal(tokenizer_vocab_size(t), 15);
    assert_int_equal(tokenizer_bos_id(t), 11);
    assert_int_equal(tokenizer_eos_id(t), 12);
    tokenizer_free(t);
}

static void gpt2_cuts_special_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = load(parse(GPT2));
    CHECK_IDS(t, "<|im_start|>ab<user>ab", false, 11, 3, 13, 3);
    /* Typed as a word, but known to end a turn. */
    CHECK_IDS(t, "ab<|im_end|>", false, 3, 12);
    /* No BOS where the file does not ask for one. */
    CHECK_IDS(t, "ab", true, 3);
    assert_true(tokenizer_is_special(t, 11));
    assert_true(tokenizer_is_special(t, 12));
    assert_false(tokenizer_is_special(t, 13));
    check_text(t, true, "ab<user> ab", (const int32_t[]){ 11, 3, 13, 4, 12 }, 5);
    check_text(t, false, "<|im_start|>ab", (const int32_t[]){ 11, 3 }, 2);
    tokenizer_free(t);
}

static void pre_names_cut_differently(void **state)
{
    (void)state;
    json_t *root = parse(GPT2);
    json_object_set_new(root, "pre", json_string("smollm"));
    struct tokenizer *t = load(root);
    CHECK_IDS(t, "11", false, 5, 5);
    tokenizer_free(t);
    root = parse(GPT2);
    json_object_set_new(root, "pre", json_string("qwen2"));
    t = load(root);
    CHECK_IDS(t, "11'S", false, 5, 5, 9);
    tokenizer_free(t);
    /* Llama 3 takes a whole word that is a piece, merges or not, and begins texts with BOS. */
    root = parse(GPT2);
    json_object_set_new(root, "pre", json_string("llama-bpe"));
    json_array_clear(json_object_get(root, "merges"));
    t = load(root);
    CHECK_IDS(t, "ab", true, 11, 3);
    tokenizer_free(t);
    root = parse(GPT2);
    json_object_del(root, "pre");
    t = load(root);
    CHECK_IDS(t, "ab ab", false, 3, 4);
    tokenizer_free(t);
}

/* <unk> <s> </s>, the bytes (3 .. 258), then ▁ 259, a 260, b 261, c 262, ab 263, bc 264, ▁a 265,
 * abc 266. ab and bc have one score: the left one goes first. */
static json_t *llama_vocab(void)
{
    static const struct {
        const char *text;
        double score;
    } words[] = { { "\xE2\x96\x81", -20 },
                  { "a", -21 },
                  { "b", -22 },
                  { "c", -23 },
                  { "ab", -5 },
                  { "bc", -5 },
                  { "\xE2\x96\x81"
                    "a",
                    -7 },
                  { "abc", -30 } };
    json_t *tokens = json_pack("[s, s, s]", "<unk>", "<s>", "</s>");
    json_t *scores = json_pack("[i, i, i]", 0, 0, 0), *types = json_pack("[i, i, i]", 2, 3, 3);
    for (int b = 0; b < 256; b++) {
        json_array_append_new(tokens, json_sprintf("<0x%02X>", b));
        json_array_append_new(scores, json_integer(0));
        json_array_append_new(types, json_integer(6));
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        json_array_append_new(tokens, json_string(words[i].text));
        json_array_append_new(scores, json_real(words[i].score));
        json_array_append_new(types, json_integer(1));
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "model", "llama", "tokens", tokens, "scores", scores,
                     "types", types);
}

static void llama_merges_by_score(void **state)
{
    (void)state;
    struct tokenizer *t = load(llama_vocab());
    /* " abc": ab (-5) is left of bc (-5) and before ▁a (-7); abc (-30) joins what is left. */
    CHECK_IDS(t, "abc", true, 1, 259, 266);
    CHECK_IDS(t, "a", false, 265);
    CHECK_IDS(t, "", true, 1);
    /* Not in the vocabulary: bytes. */
    CHECK_IDS(t, "a\xC3\xA9", false, 265, 3 + 0xC3, 3 + 0xA9);
    /* A space behind a special token, too. */
    CHECK_IDS(t, "a</s>a", false, 265, 2, 265);
    check_text(t, true, "abc \xC3\xA9",
               (const int32_t[]){ 1, 259, 266, 259, 3 + 0xC3, 3 + 0xA9, 2 }, 7);
    tokenizer_free(t);
}

static void llama_without_prefix(void **state)
{
    (void)state;
    json_t *root = llama_vocab();
    json_object_set_new(root, "add_space_prefix", json_false());
    json_object_set_new(root, "add_bos", json_false());
    json_object_set_new(root, "add_eos", json_true());
    struct tokenizer *t = load(root);
    CHECK_IDS(t, "a a", true, 260, 265, 2);
    check_text(t, true, " a", (const int32_t[]){ 265 }, 1);
    tokenizer_free(t);
}

static void phi3_strips_behind_tokens(void **state)
{
    (void)state;
    json_t *root = llama_vocab();
    json_object_set_new(root, "name", json_string("Phi-3 mini"));
    json_array_append_new(json_object_get(root, "tokens"), json_string("<|end|>"));
    json_array_append_new(json_object_get(root, "scores"), json_integer(0));
    json_array_append_new(json_object_get(root, "types"), json_integer(3));
    struct tokenizer *t = load(root);
    CHECK_IDS(t, "a<|end|>\n a", false, 265, 267, 265);
    CHECK_IDS(t, "a<s>\n", false, 265, 1, 259, 3 + 0x0A);
    tokenizer_free(t);
}

static void refuse(json_t *root, const char *what)
{
    struct tokenizer *t;
    struct status st = { 0 };
    assert_false(load_json(root, &t, &st));
    assert_null(t);
    if (!strstr(st.message, what) || !strstr(st.message, "test.gguf"))
        fail_msg("\"%s\" lacks \"%s\"", st.message, what);
}

static json_t *gpt2_with(const char *key, json_t *value)
{
    json_t *root = parse(GPT2);
    if (value)
        json_object_set_new(root, key, value);
    else
        json_object_del(root, key);
    return root;
}

static json_t *llama_with(const char *key, json_t *value)
{
    json_t *root = llama_vocab();
    if (value)
        json_object_set_new(root, key, value);
    else
        json_object_del(root, key);
    return root;
}

static void refusals(void **state)
{
    (void)state;
    refuse(gpt2_with("pre", json_string("gpt-9")), "\"gpt-9\" is not one of: default gpt-2");
    refuse(gpt2_with("model", json_string("rwkv")), "\"rwkv\" is not one of: gpt2 llama");
    refuse(gpt2_with("model", NULL), "no tokenizer.ggml.model");
    refuse(gpt2_with("tokens", NULL), "no tokenizer.ggml.tokens");
    refuse(gpt2_with("merges", NULL), "no tokenizer.ggml.merges");
    refuse(gpt2_with("merges", parse("[\"ab\"]")), "merge 0 is not two pieces");
    refuse(gpt2_with("merges", parse("[\"a b\", \"a x\"]")), "merge 1: \"x\" is not in");
    refuse(gpt2_with("merges", parse("[\"b a\"]")), "merge 0: \"ba\" is not in");
    refuse(gpt2_with("types", parse("[1, 2]")), "2 entries for 15 tokens");
    refuse(gpt2_with("scores", parse("[1, 2]")), "2 entries for 15 tokens");
    refuse(gpt2_with("tokens", parse("[\"a\", \"b\", \"a\"]")), "token 2, \"a\", is there twice");
    json_t *root = gpt2_with("add_bos", json_true());
    json_object_del(root, "bos_id");
    refuse(root, "tokenizer.ggml.bos_token_id is -1");
    root = gpt2_with("add_eos", json_true());
    json_object_set_new(root, "eos_id", json_integer(15));
    refuse(root, "tokenizer.ggml.eos_token_id is 15");
    refuse(llama_with("scores", NULL), "no tokenizer.ggml.scores");
}

static void refuse_vocab(const struct gguf_vocab *v, const char *what)
{
    struct tokenizer *t;
    struct status st = { 0 };
    assert_false(gguf_tokenizer_load(v, &t, &st));
    if (!strstr(st.message, what))
        fail_msg("\"%s\" lacks \"%s\"", st.message, what);
}

/* What JSON cannot say. */
static void refusals_of_bytes(void **state)
{
    (void)state;
    json_t *root = llama_vocab();
    struct gguf_fixture f;
    gguf_fixture_read(root, &f);
    f.scores[5] = NAN;
    refuse_vocab(&f.vocab, "the score of token 5 is not a number");
    f.scores[5] = 0;
    f.tokens[4] = (struct gguf_text){ "\xFF", 1 };
    refuse_vocab(&f.vocab, "token 4 is not UTF-8");
    f.tokens[4] = (struct gguf_text){ NULL, 0 };
    refuse_vocab(&f.vocab, "token 4 has 0 bytes");
    gguf_fixture_free(&f);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_merges_words),
        cmocka_unit_test(gpt2_cuts_special_tokens),
        cmocka_unit_test(pre_names_cut_differently),
        cmocka_unit_test(llama_merges_by_score),
        cmocka_unit_test(llama_without_prefix),
        cmocka_unit_test(phi3_strips_behind_tokens),
        cmocka_unit_test(refusals),
        cmocka_unit_test(refusals_of_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
