/* test_wordpiece.c - longest piece first, and words that are unknown as a whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/wordpiece.h"

#include <string.h>

static const char *const PIECES[] = { "[UNK]", "un", "##aff", "##able", "##a", "aff", "\xC3\xA9" };

static struct vocab make_vocab(int from)
{
    struct vocab v = { .size = 0 };
    for (int i = from; i < 7; i++)
        vocab_put_model(&v, i, PIECES[i], strlen(PIECES[i]));
    return v;
}

static void check(const char *spec_text, bool whole, const char *word, size_t n, const int32_t *ids)
{
    struct vocab v = make_vocab(0);
    struct wordpiece *m;
    struct status st = { 0 };
    struct token_list got = { 0 };
    struct token_sink sink = { &got, SIZE_MAX, false };
    json_t *spec = json_loads(spec_text, 0, NULL);
    assert_true(wordpiece_load(spec, &v, whole, &m, &st));
    assert_true(wordpiece_encode(m, word, strlen(word), &sink, &st));
    assert_int_equal(got.len, n);
    assert_memory_equal(got.ids, ids, n * sizeof *ids);
    token_list_free(&got);
    wordpiece_free(m);
    json_decref(spec);
    vocab_free(&v);
}

static void test_pieces(void **state)
{
    (void)state;
    check("{}", false, "unaffable", 3, (int32_t[]){ 1, 2, 3 });
    check("{}", false, "una", 2, (int32_t[]){ 1, 4 });
    check("{}", false, "unx", 1, (int32_t[]){ 0 });
    check("{}", false, "\xC3\xA9", 1, (int32_t[]){ 6 });
    check("{\"max_input_chars_per_word\": 2}", false, "una", 1, (int32_t[]){ 0 });
    check("{\"continuing_subword_prefix\": \"#\"}", false, "una", 1, (int32_t[]){ 0 });
    check("{}", true, "aff", 1, (int32_t[]){ 5 });
    check("{}", true, "affa", 1, (int32_t[]){ 0 });
}

static void test_no_unknown(void **state)
{
    (void)state;
    struct vocab v = make_vocab(1);
    struct wordpiece *m;
    struct status st = { 0 };
    struct token_list got = { 0 };
    struct token_sink sink = { &got, SIZE_MAX, false };
    json_t *spec = json_object();
    assert_true(wordpiece_load(spec, &v, false, &m, &st));
    assert_false(wordpiece_encode(m, "x", 1, &sink, &st));
    assert_non_null(strstr(st.message, "unk_token"));
    token_list_free(&got);
    wordpiece_free(m);
    json_decref(spec);
    vocab_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_no_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
