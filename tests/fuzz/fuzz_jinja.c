/* fuzz_jinja.c - any text as a chat template, rendered over a conversation: it ends within its
 * limits, with UTF-8 text or an error that says something. */
#include "base/utf8.h"
#include "engine/text/chat_template_messages.h"
#include "engine/text/jinja.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be terse.\"}, {\"role\": \"user\","
    " \"content\": \"O\\u00f9 est \\u6771\\u4eac? \\ud83d\\uddfc\"}, {\"role\": \"assistant\","
    " \"content\": \"\", \"tool_calls\": [{\"id\": \"call00001\", \"function\": {\"name\": \"f\","
    " \"arguments\": {\"a\": [1, 2.5, null, true], \"b\": {}}}}]}], \"tools\": [{\"function\":"
    " {\"name\": \"f\", \"parameters\": {\"x\": 1e-7}}}], \"word\": \"hello\", \"n\": 7,"
    " \"pi\": 3.25, \"numbers\": [3, 1, 2], \"nested\": [[1, 2], [3, [4, 5]]], \"nothing\": null,"
    " \"table\": {\"b\": 1, \"a\": [1, \"x\"], \"c\": {\"d\": \"e\"}}, \"yes\": true,"
    " \"people\": [{\"name\": \"Ann\", \"age\": 30}, {\"name\": \"bob\"}]}";

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_error(const struct status *st)
{
    check(st->code == STATUS_INVALID && utf8_valid(st->message, strlen(st->message)));
}

static void render(const struct jinja_template *t, const json_t *variables)
{
    static const int64_t now = 1767323045;
    const struct jinja_render_options options = {
        .now_unix_s = &now,
        .limits = { .max_steps = 200000, .max_memory_bytes = 32 << 20, .max_output_bytes = 1 << 20 }
    };
    struct status st = { 0 };
    struct buf out;
    buf_init(&out, 0);
    if (jinja_render(t, variables, &options, &out, &st))
        check(out.len <= 1 << 20 && utf8_valid(buf_str(&out), out.len));
    else
        check_error(&st);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json_t *variables;
    struct status st = { 0 };
    struct jinja_template *t;
    if (!variables)
        variables = json_loads(conversation, 0, NULL);
    if (!jinja_parse((const char *)data, size, &t, &st)) {
        check_error(&st);
        return 0;
    }
    render(t, variables);
    if (size < 512)
        chat_template_detect(t);
    jinja_free(t);
    return 0;
}
