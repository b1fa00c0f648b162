/* tokenize.c - POST /tokenize and /detokenize: what the tokenizer makes of a text, a conversation
 * or a list of ids. */
#include "server/api/api.h"
#include "server/body.h"
#include "server/chat_messages.h"
#include "server/prompts.h"

#include <string.h>

/* The text to tokenize: the prompt, or the conversation as the template renders it. */
static bool read_text(struct exchange *x, const struct json_node *body, struct buf *text,
                      bool *add_special_tokens, struct status *st)
{
    struct json_node prompt = json_member(body, "prompt");
    struct json_node messages = json_member(body, "messages");
    struct json_node special = json_member(body, "add_special_tokens");
    struct chat_input chat;
    const char *given = NULL;
    size_t len = 0;
    if (messages.value) {
        if (!chat_input_read(body, x->app, &chat, st))
            return false;
        *add_special_tokens = chat.add_special_tokens;
        bool ok = chat_input_render(x->app, &chat, text, st);
        chat_input_free(&chat);
        return ok;
    }
    *add_special_tokens = true;
    if (!json_read_string(&prompt, &given, &len, st) ||
        !json_read_bool(&special, add_special_tokens, st))
        return false;
    if (!given)
        return json_invalid(&prompt, st, "missing_required_parameter",
                            "is missing (or 'messages')");
    buf_append(text, given, len);
    return true;
}

static void put_pieces(const struct tokenizer *t, const struct token_list *list,
                       struct json_writer *w)
{
    json_open_array(w);
    for (size_t i = 0; i < list->len; i++)
        json_put_string(w, tokenizer_id_to_piece(t, list->ids[i]));
    json_close_array(w);
}

static bool tokenize(struct exchange *x, const struct json_node *body, struct status *st)
{
    const struct server *s = x->app;
    const struct engine_info *info = engine_info(s->engine);
    struct json_node strings = json_member(body, "return_token_strs");
    struct token_list list = { 0 };
    struct buf text, out;
    const char *model;
    bool add_special_tokens, with_strings = false;
    buf_init(&text, 0);
    bool ok = body_model(body, s, &model, st) && json_read_bool(&strings, &with_strings, st) &&
              read_text(x, body, &text, &add_special_tokens, st) &&
              tokenizer_encode(info->tokenizer, buf_str(&text), text.len, add_special_tokens,
                               text.len + 16, &list, st);
    buf_free(&text);
    if (ok) {
        struct json_writer w;
        buf_init(&out, 0);
        json_writer_init(&w, &out);
        json_open_object(&w);
        json_key(&w, "count");
        json_put_int(&w, (int64_t)list.len);
        json_key(&w, "max_model_len");
        json_put_int(&w, info->max_model_len);
        json_key(&w, "tokens");
        generation_put_ids(&w, list.ids, (int32_t)list.len);
        json_key(&w, "token_strs");
        if (with_strings)
            put_pieces(info->tokenizer, &list, &w);
        else
            json_put_null(&w);
        json_close_object(&w);
        exchange_respond(x, 200, "application/json", &out);
    }
    token_list_free(&list);
    return ok;
}

void api_tokenize(struct exchange *x)
{
    body_answer(x, tokenize);
}

static bool detokenize(struct exchange *x, const struct json_node *body, struct status *st)
{
    const struct server *s = x->app;
    struct json_node tokens = json_member(body, "tokens");
    const int32_t *ids;
    int32_t count = 0;
    const char *model;
    if (!body_model(body, s, &model, st))
        return false;
    if (!tokens.value)
        return json_invalid(&tokens, st, "missing_required_parameter", "is missing");
    if (!prompts_read_ids(x, &tokens, &ids, &count, st))
        return false;
    struct buf text, out;
    struct json_writer w;
    buf_init(&text, 0);
    tokenizer_decode(engine_info(s->engine)->tokenizer, ids, (size_t)count, false, &text);
    buf_init(&out, 0);
    json_writer_init(&w, &out);
    json_open_object(&w);
    json_key(&w, "prompt");
    json_put_text(&w, buf_str(&text), text.len);
    json_close_object(&w);
    buf_free(&text);
    exchange_respond(x, 200, "application/json", &out);
    return true;
}

void api_detokenize(struct exchange *x)
{
    body_answer(x, detokenize);
}
