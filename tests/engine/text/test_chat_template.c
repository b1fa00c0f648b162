/* test_chat_template.c - where templates and special tokens come from, and what shape messages
 * reach them in. */
#include "engine/text/chat_template.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

struct folder {
    char path[64];
};

static int make_folder(void **state)
{
    struct folder *f = calloc(1, sizeof *f);
    strcpy(f->path, "/tmp/inferd-chat-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    *state = f;
    return 0;
}

static int remove_folder(void **state)
{
    static const char *const names[] = { "chat_template.jinja",
                                         "chat_template.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "additional_chat_templates/tool_use.jinja",
                                         "additional_chat_templates" };
    struct folder *f = *state;
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", f->path, names[i]);
        remove(path);
    }
    rmdir(f->path);
    free(f);
    return 0;
}

static void put(const struct folder *f, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static struct chat_template *load(const struct folder *f, const char *override)
{
    struct chat_template *t;
    struct status st = { 0 };
    if (!chat_template_load(f->path, override, &t, &st))
        fail_msg("%s", st.message);
    assert_non_null(t);
    return t;
}

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *json = text ? json_loads(text, JSON_DECODE_ANY, &error) : NULL;
    if (text && !json)
        fail_msg("%s: %s", text, error.text);
    return json;
}

struct input {
    const char *messages, *tools, *kwargs;
    bool prompt, go_on;
    enum chat_content_format format;
};

/* The text, or NULL with the error in `st`; to be freed. */
static char *render(const struct chat_template *t, const struct input *in, struct status *st)
{
    json_t *messages = parse(in->messages), *tools = parse(in->tools), *kwargs = parse(in->kwargs);
    json_t *before = json_deep_copy(messages);
    struct chat_template_options options = { in->prompt, in->go_on, kwargs, in->format, NULL };
    struct buf out;
    buf_init(&out, 0);
    memset(st, 0, sizeof *st);
    bool ok = chat_template_render(t, messages, tools, NULL, &options, &out, st);
    assert_true(json_equal(messages, before));
    json_decref(messages);
    json_decref(before);
    json_decref(tools);
    json_decref(kwargs);
    char *text = ok ? buf_take(&out) : NULL;
    buf_free(&out);
    return text;
}

static void expect(const char *source, const struct input *in, const char *want)
{
    struct folder none = { "/nonexistent" };
    struct status st;
    struct chat_template *t = load(&none, source);
    char *text = render(t, in, &st);
    if (!text || strcmp(text, want) != 0)
        fail_msg("%s\nexpected: %s\ngot: %s", source, want, text ? text : st.message);
    free(text);
    chat_template_free(t);
}

static void expect_error(const char *source, const struct input *in, const char *param,
                         const char *part)
{
    struct folder none = { "/nonexistent" };
    struct status st;
    struct chat_template *t = load(&none, source);
    char *text = render(t, in, &st);
    if (text || st.code != STATUS_INVALID || strcmp(st.param, param) != 0 ||
        !strstr(st.message, part))
        fail_msg("%s: got %s (%s)", source, text ? text : st.message, st.param);
    chat_template_free(t);
}

static void expect_load_error(const struct folder *f, const char *override, const char *part)
{
    struct chat_template *t;
    struct status st = { 0 };
    assert_false(chat_template_load(f->path, override, &t, &st));
    assert_null(t);
    if (!strstr(st.message, part))
        fail_msg("expected '%s' in: %s", part, st.message);
}

static void expect_from(const struct folder *f, const char *tools, const char *want)
{
    struct status st;
    struct chat_template *t = load(f, NULL);
    char *text = render(t, &(struct input){ .messages = "[]", .tools = tools }, &st);
    if (!text)
        fail_msg("%s", st.message);
    assert_string_equal(text, want);
    free(text);
    chat_template_free(t);
}

/* --- sources ------------------------------------------------------------------------------------
 */

static void a_model_may_have_no_template(void **state)
{
    struct chat_template *t;
    struct status st;
    struct folder *f = *state;
    assert_true(chat_template_load(f->path, NULL, &t, &st));
    assert_null(t);
    put(f, "tokenizer_config.json",
        "{\"chat_template\": null, \"model_max_length\": "
        "1000000000000000019884624838656}");
    assert_true(chat_template_load(f->path, NULL, &t, &st));
    assert_null(t);
    chat_template_free(t);
}

static void files_are_taken_by_rank(void **state)
{
    struct folder *f = *state;
    char extra[256];
    put(f, "tokenizer_config.json", "{\"chat_template\": \"config\"}");
    expect_from(f, NULL, "config");
    put(f, "chat_template.json", "{\"chat_template\": \"json\"}");
    expect_from(f, NULL, "json");
    put(f, "chat_template.jinja", "jinja\n");
    expect_from(f, NULL, "jinja");
    expect_from(f, "[]", "jinja");
    snprintf(extra, sizeof extra, "%s/additional_chat_templates", f->path);
    assert_int_equal(mkdir(extra, 0700), 0);
    put(f, "additional_chat_templates/tool_use.jinja", "tools");
    expect_from(f, "[]", "tools");
    expect_from(f, NULL, "jinja");
}

static void a_list_of_templates_is_chosen_from(void **state)
{
    struct folder *f = *state;
    put(f, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"plain\"},"
        " {\"name\": \"tool_use\", \"template\": \"tools\"},"
        " {\"name\": \"rag\", \"template\": \"{% broken\"}]}");
    expect_from(f, NULL, "plain");
    expect_from(f, "[]", "tools");
    put(f, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}");
    expect_load_error(f, NULL, "no chat template is named 'default'");
    put(f, "tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\"}]}");
    expect_load_error(f, NULL, "chat_template[0]");
    put(f, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"x\"},"
        " {\"name\": \"default\", \"template\": \"y\"}]}");
    expect_load_error(f, NULL, "two chat templates");
    put(f, "tokenizer_config.json", "{\"chat_template\": 5}");
    expect_load_error(f, NULL, "must be a string or a list");
}

static void broken_files_are_named(void **state)
{
    struct folder *f = *state;
    put(f, "tokenizer_config.json", "{\"chat_template\": \"a\\n{% if %}\"}");
    expect_load_error(f, NULL, "tokenizer_config.json");
    expect_load_error(f, NULL, "template line 2");
    put(f, "tokenizer_config.json", "{");
    expect_load_error(f, NULL, "tokenizer_config.json");
    put(f, "tokenizer_config.json", "{}");
    put(f, "chat_template.jinja", "{{");
    expect_load_error(f, NULL, "chat_template.jinja");
    put(f, "chat_template.jinja", "x\xff");
    expect_load_error(f, NULL, "UTF-8");
}

static void the_override_is_a_path_or_the_text(void **state)
{
    struct folder *f = *state;
    char path[256];
    struct status st;
    struct input in = { .messages = "[]" };
    put(f, "chat_template.jinja", "own");
    put(f, "chat_template.json", "{{ 'from a file' }}");
    snprintf(path, sizeof path, "%s/chat_template.json", f->path);
    struct chat_template *t = load(f, path);
    char *text = render(t, &in, &st);
    assert_string_equal(text, "from a file");
    free(text);
    chat_template_free(t);
    t = load(f, "{{ 'inline' }}\\n\\u00e9 é{{ '\\\\n' }}|");
    text = render(t, &in, &st);
    assert_string_equal(text, "inline\né é\n|");
    free(text);
    chat_template_free(t);
    expect_load_error(f, "no/such/file.jinja", "neither a file");
    expect_load_error(f, f->path, "neither a file");
    expect_load_error(f, "{{ 1 + }}", "--chat-template");
}

static void special_tokens_are_variables(void **state)
{
    struct folder *f = *state;
    put(f, "chat_template.jinja",
        "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}|{{ image_token }}|"
        "{{ additional_special_tokens }}|{{ add_bos_token is defined }}");
    put(f, "tokenizer_config.json",
        "{\"bos_token\": {\"content\": \"<b>\", \"lstrip\": false}, \"eos_token\": \"<e>\","
        " \"unk_token\": null, \"add_bos_token\": true, \"added_tokens_decoder\": {},"
        " \"additional_special_tokens\": [\"<x>\", {\"content\": \"<y>\"}],"
        " \"extra_special_tokens\": {\"image_token\": \"<img>\"}}");
    expect_from(f, NULL, "<b>|<e>|||<img>|['<x>', '<y>']|False");
    put(f, "special_tokens_map.json", "{\"eos_token\": \"<map>\", \"pad_token\": \"<p>\"}");
    expect_from(f, NULL, "<b>|<e>||<p>|<img>|['<x>', '<y>']|False");
    put(f, "tokenizer_config.json", "{\"bos_token\": \"<b>\", \"eos_token\": \"<e>\"}");
    expect_from(f, NULL, "<b>|<map>||<p>|||False");
}

/* --- messages -----------------------------------------------------------------------------------
 */

static const char show_content[] =
    "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}";
static const char two_parts[] =
    "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, \"b\"]}]";
static const char plain_text[] = "[{\"role\": \"user\", \"content\": \"ab\"}]";

static void parts_are_joined_for_templates_that_want_text(void **state)
{
    (void)state;
    expect(show_content, &(struct input){ .messages = two_parts }, "[user:a\nb]");
    expect(show_content, &(struct input){ .messages = plain_text }, "[user:ab]");
    expect(show_content,
           &(struct input){ .messages = "[{\"role\": \"assistant\", \"content\": null},"
                                        " {\"role\": \"assistant\"}]" },
           "[assistant:][assistant:]");
    expect(show_content, &(struct input){ .messages = two_parts, .format = CHAT_CONTENT_OPENAI },
           "[user:[{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': 'b'}]]");
}

static void parts_are_kept_for_templates_that_loop_over_them(void **state)
{
    (void)state;
    static const char *const loops[] = {
        "{% for m in messages %}{% for p in m['content'] %}<{{ p.text }}>{% endfor %}{% endfor %}",
        "{% for m in messages[0:] %}{% set c = m.get('content') %}{% for p in c | "
        "selectattr('type', 'equalto', 'text') %}<{{ p.text }}>{% endfor %}{% endfor %}",
        "{% set ms = messages %}{% set m = ms[0] %}{% for p in m.content %}<{{ p['text'] }}>"
        "{% endfor %}",
        "{% macro show(c) %}{% for p in c %}<{{ p.text }}>{% endfor %}{% endmacro %}"
        "{% for m in messages %}{{ show(m.content) }}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof loops / sizeof loops[0]; i++) {
        expect(loops[i], &(struct input){ .messages = two_parts }, "<a><b>");
        expect(loops[i], &(struct input){ .messages = plain_text }, "<ab>");
    }
    expect(loops[0], &(struct input){ .messages = two_parts, .format = CHAT_CONTENT_STRING },
           "<><><>");
    static const char both[] =
        "{% for m in messages %}{% if m.content is string %}text:{{ m.content }}{% else %}"
        "{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}";
    expect(both, &(struct input){ .messages = two_parts }, "<a><b>");
    expect(both, &(struct input){ .messages = plain_text }, "text:ab");
    struct folder none = { "/nonexistent" };
    struct chat_template *t = load(&none, both);
    assert_true(chat_template_wants_parts(t, false));
    chat_template_free(t);
    t = load(&none, show_content);
    assert_false(chat_template_wants_parts(t, true));
    chat_template_free(t);
}

static void messages_at_fault_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *messages, *param, *part;
    } cases[] = {
        { "{}", "messages", "must be an array" },
        { "[5]", "messages[0]", "must be an object" },
        { "[{}]", "messages[0].role", "must be a string" },
        { "[{\"role\": \"user\", \"content\": 5}]", "messages[0].content", "must be a string" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]",
          "messages[0].content[0]", "text only" },
        { "[{\"role\": \"user\", \"content\": [{}]}]", "messages[0].content[0]", "'type'" },
        { "[{\"role\": \"a\", \"tool_calls\": {}}]", "messages[0].tool_calls", "array" },
        { "[{\"role\": \"a\", \"tool_calls\": [1]}]", "messages[0].tool_calls[0]", "object" },
        { "[{\"role\": \"a\", \"tool_calls\": [{\"function\": 1}]}]",
          "messages[0].tool_calls[0].function", "object" },
        { "[{\"role\": \"a\", \"tool_calls\": [{\"function\": {\"arguments\": \"{\"}}]}]",
          "messages[0].tool_calls[0].function.arguments", "JSON" },
        { "[{\"role\": \"a\", \"tool_calls\": [{\"function\": {\"arguments\": 5}}]}]",
          "messages[0].tool_calls[0].function.arguments", "JSON" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_error(show_content, &(struct input){ .messages = cases[i].messages }, cases[i].param,
                     cases[i].part);
    expect_error("{{ raise_exception('no system role') }}", &(struct input){ .messages = "[]" }, "",
                 "no system role");
}

static void arguments_of_tool_calls_are_objects(void **state)
{
    (void)state;
    static const char text[] = "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\":"
                               " {\"name\": \"f\", \"arguments\": \"{\\\"a\\\": [1, 2]}\"}}]}]";
    static const char object[] = "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\":"
                                 " {\"name\": \"f\", \"arguments\": {\"a\": [1, 2]}}}]}]";
    static const char empty[] = "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\":"
                                " {\"name\": \"f\", \"arguments\": \"\"}}]}]";
    static const char keys[] =
        "{% for m in messages %}{% for c in m.tool_calls %}"
        "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}"
        "{% endfor %}{% endfor %}";
    static const char sum[] = "{% for m in messages %}{% for c in m.tool_calls %}"
                              "{{ c.function.name + c.function.arguments }}"
                              "{% endfor %}{% endfor %}";
    expect(keys, &(struct input){ .messages = text }, "a=[1, 2]");
    expect(keys, &(struct input){ .messages = object }, "a=[1, 2]");
    expect(keys, &(struct input){ .messages = empty }, "");
    expect(sum, &(struct input){ .messages = text }, "f{\"a\": [1, 2]}");
    expect(sum, &(struct input){ .messages = object }, "f{\"a\": [1, 2]}");
    expect(sum, &(struct input){ .messages = empty }, "f{}");
}

static void fields_are_passed_on_and_nulls_are_not(void **state)
{
    (void)state;
    static const char template[] =
        "{% for m in messages %}{{ m.name }},{{ m.tool_calls is defined }},{{ m.refusal is "
        "defined }},{{ m.reasoning_content }},{{ m.thinking }};{% endfor %}{{ tools }}{{ documents "
        "}}";
    expect(template,
           &(struct input){ .messages = "[{\"role\": \"a\", \"name\": \"n\", \"tool_calls\": null,"
                                        " \"refusal\": null, \"reasoning\": \"r\"},"
                                        " {\"role\": \"a\", \"reasoning_content\": \"x\","
                                        " \"thinking\": \"y\"}]",
                            .tools = "[1]" },
           "n,False,False,r,r;,False,False,x,y;[1]None");
}

static void kwargs_are_variables(void **state)
{
    (void)state;
    static const char template[] =
        "{{ enable_thinking }}{{ add_generation_prompt }}{{ bos_token }}";
    expect(template,
           &(struct input){ .messages = "[]",
                            .prompt = true,
                            .kwargs = "{\"enable_thinking\": false, \"bos_token\": \"B\"}" },
           "FalseTrueB");
    expect(template, &(struct input){ .messages = "[]" }, "False");
    expect_error(template, &(struct input){ .messages = "[]", .kwargs = "{\"messages\": []}" },
                 "chat_template_kwargs", "'messages'");
    expect_error(template, &(struct input){ .messages = "[]", .kwargs = "[]" },
                 "chat_template_kwargs", "object");
}

static void the_final_message_can_be_continued(void **state)
{
    (void)state;
    static const char keeps[] =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}";
    static const char trims[] =
        "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}";
    static const char parts[] = "{% for m in messages %}{% for p in m.content %}<{{ p.text }}>"
                                "{% endfor %}{% endfor %}";
    static const char messages[] = "[{\"role\": \"user\", \"content\": \"hi\"},"
                                   " {\"role\": \"assistant\", \"content\": \" Sure:  \"}]";
    expect(keeps, &(struct input){ .messages = messages, .go_on = true },
           "<user>hi</s>\n<assistant> Sure:  ");
    expect(trims, &(struct input){ .messages = messages, .go_on = true },
           "<user>hi</s><assistant>Sure:");
    expect(parts, &(struct input){ .messages = two_parts, .go_on = true }, "<a><b");
    expect_error(keeps, &(struct input){ .messages = "[]", .go_on = true },
                 "continue_final_message", "no message");
    expect_error(keeps, &(struct input){ .messages = messages, .go_on = true, .prompt = true },
                 "continue_final_message", "cannot be combined");
    expect_error("{% for m in messages %}{{ m.content | upper }}{% endfor %}",
                 &(struct input){ .messages = messages, .go_on = true }, "continue_final_message",
                 "does not show the last message");
    expect_error("{{ messages | length }}", &(struct input){ .messages = messages, .go_on = true },
                 "continue_final_message", "does not read the content");
}

/* Clients send arguments as text; the published templates expect objects, or text. */
static void published_templates_take_arguments_as_text(void **state)
{
    (void)state;
    static const char *const names[] = { "Qwen-Qwen2.5-7B-Instruct", "GLM-4.7-Flash",
                                         "meetkai-functionary-medium-v3.1", "Qwen3-Coder",
                                         "mistralai-Mistral-Nemo-Instruct-2407" };
    static const char tokens[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";
    struct folder none = { "/nonexistent" };
    json_t *cases = json_load_file("../shared/chat-templates/cases.json", 0, NULL);
    if (!cases) {
        print_message("skipped: ../shared/chat-templates is absent\n");
        skip();
    }
    json_t *c = json_object_get(cases, "tools_called");
    json_t *call = json_array_get(
        json_object_get(json_array_get(json_object_get(c, "messages"), 2), "tool_calls"), 0);
    json_t *function = json_object_get(call, "function");
    char *tools = json_dumps(json_object_get(c, "tools"), 0);
    char *as_object = json_dumps(json_object_get(c, "messages"), 0);
    char *arguments = json_dumps(json_object_get(function, "arguments"), 0);
    json_object_set_new(function, "arguments", json_string(arguments));
    char *as_text = json_dumps(json_object_get(c, "messages"), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        struct status st;
        snprintf(path, sizeof path, "../shared/chat-templates/%s.jinja", names[i]);
        struct chat_template *t = load(&none, path);
        char *want = render(
            t, &(struct input){ as_object, tools, tokens, true, false, CHAT_CONTENT_AUTO }, &st);
        char *got = render(
            t, &(struct input){ as_text, tools, tokens, true, false, CHAT_CONTENT_AUTO }, &st);
        if (!want || !got)
            fail_msg("%s: %s", names[i], st.message);
        assert_string_equal(got, want);
        free(want);
        free(got);
        chat_template_free(t);
    }
    free(tools);
    free(as_object);
    free(as_text);
    free(arguments);
    json_decref(cases);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_model_may_have_no_template),
        IN_FOLDER(files_are_taken_by_rank),
        IN_FOLDER(a_list_of_templates_is_chosen_from),
        IN_FOLDER(broken_files_are_named),
        IN_FOLDER(the_override_is_a_path_or_the_text),
        IN_FOLDER(special_tokens_are_variables),
        cmocka_unit_test(parts_are_joined_for_templates_that_want_text),
        cmocka_unit_test(parts_are_kept_for_templates_that_loop_over_them),
        cmocka_unit_test(messages_at_fault_are_named),
        cmocka_unit_test(arguments_of_tool_calls_are_objects),
        cmocka_unit_test(fields_are_passed_on_and_nulls_are_not),
        cmocka_unit_test(kwargs_are_variables),
        cmocka_unit_test(the_final_message_can_be_continued),
        cmocka_unit_test(published_templates_take_arguments_as_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
