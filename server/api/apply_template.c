/* apply_template.c - POST /apply-template: the prompt that a conversation becomes, as text. */
#include "server/api/api.h"
#include "server/body.h"
#include "server/chat_messages.h"

static bool apply_template(struct exchange *x, const struct json_node *body, struct status *st)
{
    struct chat_input chat;
    const char *model;
    struct buf text, out;
    struct json_writer w;
    if (!body_model(body, x->app, &model, st) || !chat_input_read(body, x->app, &chat, st))
        return false;
    buf_init(&text, 0);
    bool ok = chat_input_render(x->app, &chat, &text, st);
    chat_input_free(&chat);
    if (ok) {
        buf_init(&out, 0);
        json_writer_init(&w, &out);
        json_open_object(&w);
        json_key(&w, "prompt");
        json_put_text(&w, buf_str(&text), text.len);
        json_close_object(&w);
        exchange_respond(x, 200, "application/json", &out);
    }
    buf_free(&text);
    return ok;
}

void api_apply_template(struct exchange *x)
{
    body_answer(x, apply_template);
}
