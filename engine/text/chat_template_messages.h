/* chat_template_messages.h - a conversation in the shape that templates expect. */
#ifndef INFERD_ENGINE_TEXT_CHAT_TEMPLATE_MESSAGES_H
#define INFERD_ENGINE_TEXT_CHAT_TEMPLATE_MESSAGES_H

#include "base/buf.h"
#include "base/status.h"
#include "engine/text/jinja.h"
#include <jansson.h>

/* What a template does with content and with tool calls; found once, when it is loaded. */
struct chat_template_traits {
    bool loops_over_parts;  /* `for part in message.content` */
    bool takes_plain_text;  /* it asks whether content is a string */
    bool arguments_as_text; /* it fails on arguments that are objects, but not on text */
};

struct chat_template_traits chat_template_detect(const struct jinja_template *t);

/* A new array: the messages normalised. `as_parts`: content is given as a list of parts. */
bool chat_messages_normalize(const json_t *messages, const struct chat_template_traits *traits,
                             bool as_parts, json_t **out, struct status *st);

/* Puts a mark behind the text of the last message, so that chat_messages_cut finds it. `text`
 * gets a copy of that text. `messages` is changed. */
bool chat_messages_mark_final(json_t *messages, struct buf *text, struct status *st);
/* Cuts the rendered prompt behind the last message's text; `text` as mark_final gave it. */
bool chat_messages_cut(struct buf *rendered, const struct buf *text, struct status *st);

#endif
