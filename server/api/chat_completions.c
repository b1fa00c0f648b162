/* chat_completions.c - POST /v1/chat/completions: messages in, a message out. */
#include "server/api/api.h"
#include "server/chat_messages.h"
#include "server/logprobs.h"
#include "server/prompts.h"
#include "server/sse.h"

#include <string.h>

/* With echo the last message's text comes before the answer's. */
struct chat_format_data {
    const char *echo;
    size_t echo_len;
};

static const char *role_of(const struct generation *g)
{
    return g->server->config->response_role;
}

static void put_token_ids(const struct generation *g, const struct choice *c, int32_t from,
                          struct json_writer *w)
{
    const struct request *r = c->request;
    if (!g->input.params->return_token_ids)
        return;
    json_key(w, "token_ids");
    generation_put_ids(w, r->token_ids + r->num_prompt_tokens + from, c->num_tokens - from);
}

static void put_prompt_ids(const struct generation *g, struct json_writer *w)
{
    if (!g->input.params->return_token_ids)
        return;
    json_key(w, "prompt_token_ids");
    generation_put_ids(w, g->input.prompts[0].ids, g->input.prompts[0].num_ids);
}

/* --- stream -------------------------------------------------------------------------------------
 */

static void open_chunk(const struct generation *g, const struct choice *c, struct buf *out,
                       struct json_writer *w)
{
    sse_begin(out);
    json_writer_init(w, out);
    generation_open_body(g, g->input.format->chunk_object, w);
    json_key(w, "choices");
    json_open_array(w);
    json_open_object(w);
    json_key(w, "index");
    json_put_int(w, c->index);
    json_key(w, "delta");
    json_open_object(w);
}

static void close_chunk(const struct generation *g, const struct choice *c, int32_t num_tokens,
                        struct json_writer *w)
{
    json_close_object(w); /* the choice */
    json_close_array(w);
    generation_put_chunk_usage(g, c, num_tokens, w);
    json_close_object(w);
    sse_end(w->out);
}

/* The role alone, then with echo the last message: both before any token. */
static void write_beginning(const struct generation *g, const struct choice *c, struct buf *out)
{
    const struct chat_format_data *data = g->input.format_data;
    struct json_writer w;
    for (int part = 0; part < (data->echo ? 2 : 1); part++) {
        open_chunk(g, c, out, &w);
        if (part == 0) {
            json_key(&w, "role");
            json_put_string(&w, role_of(g));
        }
        json_key(&w, "content");
        json_put_text(&w, part == 0 ? "" : data->echo, part == 0 ? 0 : data->echo_len);
        json_close_object(&w);
        json_key(&w, "logprobs");
        json_put_null(&w);
        json_key(&w, "finish_reason");
        json_put_null(&w);
        if (part == 0 && c->index == 0)
            put_prompt_ids(g, &w);
        close_chunk(g, c, 0, &w);
    }
}

static void write_chunk(const struct generation *g, struct choice *c, struct buf *out)
{
    const struct generation_params *params = g->input.params;
    struct json_writer w;
    if (!c->begun)
        write_beginning(g, c, out);
    c->begun = true;
    bool tells = params->sampling.num_logprobs >= 0 || params->return_token_ids;
    if (c->text.len == c->text_sent && c->reason == FINISH_NONE && !tells)
        return;
    open_chunk(g, c, out, &w);
    json_key(&w, "content");
    json_put_text(&w, buf_str(&c->text) + c->text_sent, c->text.len - c->text_sent);
    json_close_object(&w);
    json_key(&w, "logprobs");
    if (params->sampling.num_logprobs >= 0)
        logprobs_put_chat(g, c, c->num_tokens_sent, c->num_tokens, &w);
    else
        json_put_null(&w);
    generation_put_finish(&w, c);
    put_token_ids(g, c, c->num_tokens_sent, &w);
    close_chunk(g, c, c->num_tokens, &w);
}

/* --- whole --------------------------------------------------------------------------------------
 */

static void put_message(const struct generation *g, const struct choice *c, struct json_writer *w)
{
    const struct chat_format_data *data = g->input.format_data;
    struct buf text;
    buf_init(&text, 0);
    if (data->echo)
        buf_append(&text, data->echo, data->echo_len);
    buf_append(&text, buf_str(&c->text), c->text.len);
    json_key(w, "message");
    json_open_object(w);
    json_key(w, "role");
    json_put_string(w, role_of(g));
    json_key(w, "content");
    json_put_text(w, buf_str(&text), text.len);
    json_key(w, "refusal");
    json_put_null(w);
    json_key(w, "tool_calls");
    json_open_array(w);
    json_close_array(w);
    json_close_object(w);
    buf_free(&text);
}

static void put_choice(const struct generation *g, const struct choice *c, struct json_writer *w)
{
    json_open_object(w);
    json_key(w, "index");
    json_put_int(w, c->index);
    put_message(g, c, w);
    json_key(w, "logprobs");
    if (g->input.params->sampling.num_logprobs >= 0)
        logprobs_put_chat(g, c, 0, c->num_tokens, w);
    else
        json_put_null(w);
    generation_put_finish(w, c);
    put_token_ids(g, c, 0, w);
    json_close_object(w);
}

static void write_body(const struct generation *g, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    generation_open_body(g, "chat.completion", &w);
    json_key(&w, "choices");
    json_open_array(&w);
    for (int32_t i = 0; i < g->num_choices; i++)
        put_choice(g, &g->choices[i], &w);
    json_close_array(&w);
    generation_put_usage(g, &w);
    logprobs_put_prompt(g, &g->choices[0], &w);
    put_prompt_ids(g, &w);
    json_close_object(&w);
}

static const struct generation_format chat_format = {
    .id_prefix = "chatcmpl-",
    .prompt_param = "messages",
    .chunk_object = "chat.completion.chunk",
    .chunk = write_chunk,
    .body = write_body,
};

/* --- the request --------------------------------------------------------------------------------
 */

static void keep_echo(struct exchange *x, const struct chat_input *chat,
                      struct chat_format_data *data)
{
    const struct server *s = x->app;
    struct buf text;
    buf_init(&text, 0);
    if (chat_input_last_text(chat, s->config->response_role, &text)) {
        data->echo = arena_strndup(&x->arena, buf_str(&text), text.len);
        data->echo_len = text.len;
    }
    buf_free(&text);
}

static bool encode(struct exchange *x, const struct json_node *body, const struct chat_input *chat,
                   struct generation_input *in, struct status *st)
{
    struct json_node messages = json_member(body, "messages");
    struct prompt *prompt = arena_alloc(&x->arena, sizeof *prompt);
    struct buf text;
    buf_init(&text, 0);
    bool ok = chat_input_render(x->app, chat, &text, st) &&
              prompts_encode(x, buf_str(&text), text.len, chat->add_special_tokens, false,
                             &messages, prompt, st);
    buf_free(&text);
    in->prompts = prompt;
    in->num_prompts = 1;
    return ok;
}

static bool read_messages(struct exchange *x, const struct json_node *body,
                          struct generation_input *in, struct generation_params *params,
                          struct status *st)
{
    struct chat_format_data *data = arena_alloc(&x->arena, sizeof *data);
    struct chat_input chat;
    in->format_data = data;
    if (!chat_input_read(body, x->app, &chat, st))
        return false;
    if (params->echo)
        keep_echo(x, &chat, data);
    bool ok = chat_input_check_tools(body, &chat, st) && encode(x, body, &chat, in, st);
    chat_input_free(&chat);
    return ok;
}

void api_chat_completions(struct exchange *x)
{
    generation_serve(x, GENERATION_CHAT, &chat_format, read_messages);
}
