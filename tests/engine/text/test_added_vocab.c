/* test_added_vocab.c - ids of added tokens, and how their flags cut a text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/added_vocab.h"

#include <string.h>

struct fixture {
    struct vocab vocab;
    struct added_vocab added;
};

static void add(struct fixture *f, const char *content, struct added_token flags)
{
    struct status st = { 0 };
    flags.content = content;
    flags.len = (uint32_t)strlen(content);
    assert_true(added_vocab_put(&f->added, &flags, &st));
}

static int setup(void **state)
{
    static struct fixture f;
    struct status st = { 0 };
    memset(&f, 0, sizeof f);
    f.added = (struct added_vocab){ .vocab = &f.vocab, .model_size = 2, .max_id = -1 };
    vocab_put_model(&f.vocab, 0, "a", 1);
    vocab_put_model(&f.vocab, 1, "<s>", 3);
    add(&f, "<s>", (struct added_token){ .special = true });
    add(&f, "<l>", (struct added_token){ .lstrip = true });
    add(&f, "<r>", (struct added_token){ .rstrip = true });
    add(&f, "word", (struct added_token){ .single_word = true });
    add(&f, "<s>x", (struct added_token){ .special = false });
    add(&f, "n", (struct added_token){ .normalized = true });
    add(&f, "<l>", (struct added_token){ .lstrip = true }); /* nothing new */
    assert_true(added_vocab_finish(&f.added, NULL, &st));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    added_vocab_free(&f->added);
    vocab_free(&f->vocab);
    return 0;
}

static bool write_part(void *context, int32_t id, const char *text, size_t start, size_t end,
                       struct status *st)
{
    (void)st;
    struct buf *out = context;
    buf_printf(out, "%s", out->len ? "|" : "");
    if (id >= 0)
        buf_printf(out, "#%d", id);
    else
        buf_append(out, text + start, end - start);
    return true;
}

static void check(struct fixture *f, const struct token_trie *trie, const char *text,
                  const char *expected)
{
    struct buf out;
    struct status st = { 0 };
    buf_init(&out, 0);
    assert_true(added_vocab_cut(&f->added, trie, text, strlen(text), write_part, &out, &st));
    assert_string_equal(buf_str(&out), expected);
    buf_free(&out);
}

static void test_ids(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(vocab_find(&f->vocab, "<s>", 3), 1); /* the model's id */
    assert_int_equal(vocab_find(&f->vocab, "<l>", 3), 2); /* then behind all */
    assert_int_equal(vocab_find(&f->vocab, "n", 1), 6);
    assert_true(f->vocab.pieces[1].special);
    assert_false(f->vocab.pieces[2].special);
}

static void test_cutting(void **state)
{
    struct fixture *f = *state;
    const struct token_trie *raw = &f->added.raw;
    check(f, raw, "", "");
    check(f, raw, "plain", "plain");
    check(f, raw, "a<s>b", "a|#1|b");
    check(f, raw, "<s>x", "#5"); /* the longest */
    check(f, raw, "a  <l> b", "a|#2| b");
    check(f, raw, "a <r>\xE3\x80\x80 b", "a |#3|b");
    check(f, raw, "<r>  <l>", "#3|#2");
    check(f, raw, "word words sword word", "#4| words sword |#4");
    check(f, raw, "n", "n");
    check(f, &f->added.normalized, "ana", "a|#6|a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cutting, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
