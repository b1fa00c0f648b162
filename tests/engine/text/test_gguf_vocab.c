/* test_gguf_vocab.c - which tokens of a GGUF vocabulary end an answer, and its chat templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/engine/text/gguf_fixture.h"

#include <string.h>

struct fixture {
    json_t *root;
    struct gguf_fixture f;
};

static struct fixture read_text(const char *text)
{
    json_error_t error;
    struct fixture x = { .root = json_loads(text, 0, &error) };
    if (!x.root)
        fail_msg("%s", error.text);
    gguf_fixture_read(x.root, &x.f);
    return x;
}

static void release(struct fixture *x)
{
    gguf_fixture_free(&x->f);
    json_decref(x->root);
}

/* Bit i of the result: id i is among them. */
static unsigned eog_mask(const char *text)
{
    struct fixture x = read_text(text);
    struct token_list ids = { 0 };
    unsigned mask = 0;
    gguf_vocab_eog_ids(&x.f.vocab, &ids);
    for (size_t i = 0; i < ids.len; i++) {
        assert_false(mask & 1u << ids.ids[i]); /* none twice */
        mask |= 1u << ids.ids[i];
    }
    token_list_free(&ids);
    release(&x);
    return mask;
}

static void ends_of_answers(void **state)
{
    (void)state;
    assert_int_equal(eog_mask("{\"tokens\": [\"a\", \"b\", \"<|im_end|>\", \"<|endoftext|>\"],"
                              " \"eos_id\": 2, \"eot_id\": 1}"),
                     1u << 1 | 1u << 2 | 1u << 3);
    assert_int_equal(eog_mask("{\"tokens\": [\"a\"], \"eos_id\": 7, \"eom_id\": -3}"), 0);
    assert_int_equal(
        eog_mask("{\"tokens\": [\"<|end|>\", \"<|return|>\", \"<|call|>\", \"<|start|>\"]}"),
        1u << 1 | 1u << 2);
    assert_int_equal(eog_mask("{\"tokens\": [\"<|end|>\", \"<|return|>\"]}"), 3);
    assert_int_equal(eog_mask("{\"tokens\": [\"</s>\", \"<|tool_response>\"]}"), 2);
}

static const char TEMPLATES[] =
    "{\"tokens\": [\"<s>\", \"</s>\"], \"bos_id\": 0, \"eos_id\": 1, \"unk_id\": 9,"
    " \"chat_template\": \"{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    "{{ unk_token is defined }}\","
    " \"chat_template_tool_use\": \"tools: {{ tools | length }}\"}";

static void render(const struct chat_template *t, json_t *tools, const char *expected)
{
    struct chat_template_options options = { .add_generation_prompt = false };
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
    struct status st = { 0 };
    struct buf out;
    buf_init(&out, 0);
    assert_true(chat_template_render(t, messages, tools, NULL, &options, &out, &st));
    assert_string_equal(buf_str(&out), expected);
    buf_free(&out);
    json_decref(messages);
}

static void chat_templates(void **state)
{
    (void)state;
    struct fixture x = read_text(TEMPLATES);
    struct chat_template *t;
    struct status st = { 0 };
    assert_true(gguf_chat_template_load(&x.f.vocab, NULL, &t, &st));
    json_t *tools = json_pack("[{}, {}]");
    render(t, NULL, "<s>hi</s>False");
    render(t, tools, "tools: 2");
    size_t len;
    assert_non_null(strstr(chat_template_text(t, false, &len), "bos_token"));
    assert_string_equal(chat_template_text(t, true, &len), "tools: {{ tools | length }}");
    assert_string_equal(chat_template_token(t, "bos_token"), "<s>");
    assert_null(chat_template_token(t, "unk_token"));
    chat_template_free(t);
    /* The operator's own knows the model's tokens, and stands in for both. */
    assert_true(gguf_chat_template_load(&x.f.vocab, "{{ bos_token }}!", &t, &st));
    render(t, tools, "<s>!");
    chat_template_free(t);
    json_decref(tools);
    x.f.vocab.chat_template = (struct gguf_text){ "{% if %}", 8 };
    assert_false(gguf_chat_template_load(&x.f.vocab, NULL, &t, &st));
    assert_non_null(strstr(st.message, "test.gguf"));
    x.f.vocab.chat_template = (struct gguf_text){ NULL, 0 };
    assert_true(gguf_chat_template_load(&x.f.vocab, NULL, &t, &st));
    assert_null(t);
    release(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_of_answers),
        cmocka_unit_test(chat_templates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
