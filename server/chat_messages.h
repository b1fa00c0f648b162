/* chat_messages.h - the conversation of a chat request, checked and brought into the shape that
 * chat templates expect: content as one text or as parts, arguments of tool calls as objects.
 * Fields that the API does not know (name, tool_call_id, reasoning_content, ...) are passed on. */
#ifndef INFERD_SERVER_CHAT_MESSAGES_H
#define INFERD_SERVER_CHAT_MESSAGES_H

#include "server/http.h"
#include "server/json.h"
#include "server/server.h"

/* What the prompt is rendered from; release with chat_input_free. */
struct chat_input {
    json_t *messages;  /* a new array */
    json_t *tools;     /* borrowed from the body, or NULL */
    json_t *documents; /* likewise */
    json_t *kwargs;    /* a new object, or NULL */
    bool add_generation_prompt, continue_final_message;
    bool add_special_tokens;
};

bool chat_input_read(const struct server *s, const struct json_node *body, struct chat_input *out,
                     struct status *st);
void chat_input_free(struct chat_input *in);
/* Renders the prompt's text with the model's template; a model without one is refused. */
bool chat_input_render(const struct server *s, const struct chat_input *in, struct buf *out,
                       struct status *st);
/* The text of the last message, where its role is `role`; for echo. Borrowed; NULL where not. */
const char *chat_input_last_text(const struct chat_input *in, const char *role, size_t *len);

#endif
