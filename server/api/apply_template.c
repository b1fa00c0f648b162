/* apply_template.c - POST /apply-template: the prompt that a conversation becomes, as text. */
#include "server/api/api.h"
#include "server/api_error.h"
#include "server/body.h"
#include "server/chat_messages.h"

static bool render(struct exchange *x, const struct json_node *body, struct buf *text,
                   struct status *st)
{
    struct chat_input chat;
    const char *model;
    if (!body_model(body, x->app, &model, st) || !chat_input_read(body, &chat, st))
        return false;
    bool ok = chat_input_render(x->app, &chat, text, st);
    chat_input_free(&chat);
    return ok;
}

void api_apply_template(struct exchange *x)
{
    struct status st;
    struct body parsed;
    struct buf text, out;
    struct json_writer w;
    if (!body_parse(x, &parsed, &st)) {
        api_error_respond(x, &st);
        return;
    }
    struct json_node body = json_root(parsed.root);
    buf_init(&text, 0);
    if (render(x, &body, &text, &st)) {
        buf_init(&out, 0);
        json_writer_init(&w, &out);
        json_open_object(&w);
        json_key(&w, "prompt");
        json_put_text(&w, buf_str(&text), text.len);
        json_close_object(&w);
        exchange_respond(x, 200, "application/json", &out);
    } else {
        api_error_respond(x, &st);
    }
    buf_free(&text);
    body_release(x, &parsed);
}
