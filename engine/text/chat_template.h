/* chat_template.h - messages and tools to prompt text, through the model's Jinja templates.
 *
 * Immutable after chat_template_load and safe on any thread. */
#ifndef INFERD_ENGINE_TEXT_CHAT_TEMPLATE_H
#define INFERD_ENGINE_TEXT_CHAT_TEMPLATE_H

#include "base/buf.h"
#include "base/status.h"
#include <jansson.h>

struct chat_template;

struct chat_template_options {
    bool add_generation_prompt;
    bool continue_final_message;
    json_t *kwargs; /* chat_template_kwargs, or NULL */
};

/* `override`: --chat-template, a path or the text itself; NULL: the model's own files. *out is NULL
 * (and the result true) when the model has none. */
bool chat_template_load(const char *model_dir, const char *override, struct chat_template **out,
                        struct status *st);
void chat_template_free(struct chat_template *t);
bool chat_template_render(const struct chat_template *t, json_t *messages, json_t *tools,
                          json_t *documents, const struct chat_template_options *options,
                          struct buf *out, struct status *st);

#endif
