/* chat_messages.h - the conversation of a chat request, checked, and its way to the prompt's text.
 *
 * Fields of messages that the API does not know (name, tool_call_id, reasoning_content, ...) are
 * passed on to the template. */
#ifndef INFERD_SERVER_CHAT_MESSAGES_H
#define INFERD_SERVER_CHAT_MESSAGES_H

#include "server/json.h"
#include "server/server.h"

/* What the prompt is rendered from. Valid as long as the body; release with chat_input_free. */
struct chat_input {
    json_t *messages, *tools, *documents; /* borrowed from the body; the latter two may be NULL */
    json_t *kwargs;                       /* a new object, or NULL */
    struct chat_template *chat_template;  /* that the request brings, or NULL */
    bool add_generation_prompt, continue_final_message;
    bool add_special_tokens;
};

bool chat_input_read(const struct json_node *body, const struct server *s, struct chat_input *out,
                     struct status *st);
/* Refuses a request for an answer that this server could not give, for its tools or tool_choice. */
bool chat_input_check_tools(const struct json_node *body, const struct chat_input *in,
                            struct status *st);
void chat_input_free(struct chat_input *in);
/* Renders the prompt's text with the request's template or the model's; without any it is refused.
 */
bool chat_input_render(const struct server *s, const struct chat_input *in, struct buf *out,
                       struct status *st);
/* Appends the text of the last message where its role is `role`, for echo; else false. */
bool chat_input_last_text(const struct chat_input *in, const char *role, struct buf *out);

#endif
