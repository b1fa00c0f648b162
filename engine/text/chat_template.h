/* chat_template.h - messages and tools to prompt text, through the model's Jinja templates.
 *
 * Messages are brought into the shape that vLLM and transformers give a template: parts of text
 * joined or kept as parts, whichever the template reads; arguments of tool calls as objects;
 * reasoning under each name that templates know. Variables are messages, tools, documents,
 * add_generation_prompt, the model's special tokens (bos_token, ...) and the given kwargs.
 *
 * Immutable after chat_template_load and safe on any thread. A render uses up
 * to 512 KiB of stack; where a thread has less, templates may nest less deeply. */
#ifndef INFERD_ENGINE_TEXT_CHAT_TEMPLATE_H
#define INFERD_ENGINE_TEXT_CHAT_TEMPLATE_H

#include "base/buf.h"
#include "base/status.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct chat_template;

/* How a message's content reaches the template. AUTO: as parts if the template loops over them. */
enum chat_content_format { CHAT_CONTENT_AUTO, CHAT_CONTENT_STRING, CHAT_CONTENT_OPENAI };

struct chat_template_options {
    bool add_generation_prompt;
    bool continue_final_message; /* the prompt ends with the last message's text, still open */
    json_t *kwargs;              /* chat_template_kwargs, or NULL */
    enum chat_content_format content_format;
    const int64_t *now_unix_s; /* what strftime_now shows; NULL: the clock */
};

/* `override`: --chat-template, a path or the text itself; NULL: the model's own files, which are
 * chat_template.jinja, else chat_template.json, else tokenizer_config.json. *out is NULL (and the
 * result true) when the model has none. */
bool chat_template_load(const char *model_dir, const char *override, struct chat_template **out,
                        struct status *st);

/* Templates that come from elsewhere than a directory of files; texts need not end in a NUL. */
struct chat_template_source {
    const char *where; /* for messages */
    const char *plain; /* NULL: none */
    size_t plain_len;
    const char *tool_use; /* the one to take when tools are given; NULL: none */
    size_t tool_use_len;
    json_t *special_tokens; /* "bos_token" and the like -> text; copied */
};
/* The same from such a source. */
bool chat_template_from_source(const struct chat_template_source *source, const char *override,
                               struct chat_template **out, struct status *st);
/* A template given with a request, with the special tokens of the model's own (which may be NULL).
 */
bool chat_template_derive(const struct chat_template *model, const char *text, size_t len,
                          struct chat_template **out, struct status *st);
void chat_template_free(struct chat_template *t);
/* The text of the template that is taken with (or without) tools, as it was given, and its length.
 */
const char *chat_template_text(const struct chat_template *t, bool with_tools, size_t *len);
/* The text of "bos_token" or the like, owned by the template; NULL where the model has none. */
const char *chat_template_token(const struct chat_template *t, const char *name);

/* Appends the prompt. `messages` is an array of objects; `tools` and `documents` are arrays or
 * NULL; none of them is changed. Where the model has a template named "tool_use", it is taken when
 * `tools` is given. An error is STATUS_INVALID: it names the message or field at fault, or is the
 * template's own. */
bool chat_template_render(const struct chat_template *t, json_t *messages, json_t *tools,
                          json_t *documents, const struct chat_template_options *options,
                          struct buf *out, struct status *st);

/* Whether the template that is taken with (or without) tools loops over parts of content. */
bool chat_template_wants_parts(const struct chat_template *t, bool with_tools);

#endif
