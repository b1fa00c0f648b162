/* completions.c - POST /v1/completions: prompts in, text out. */
#include "server/api/api.h"
#include "server/logprobs.h"
#include "server/prompts.h"
#include "server/sse.h"

/* OpenAI's and vLLM's default. */
enum { DEFAULT_MAX_TOKENS = 16 };

/* What one choice shows: all of it, or in a stream what is new. */
struct view {
    bool first; /* begins with the prompt, where echo is set */
    int32_t from, to;
    size_t text_from;
};

static void put_text(const struct generation *g, const struct choice *c, const struct view *v,
                     struct json_writer *w)
{
    struct buf text;
    buf_init(&text, 0);
    if (v->first && g->input.params->echo)
        buf_append(&text, c->prompt->text, c->prompt->text_len);
    buf_append(&text, buf_str(&c->text) + v->text_from, c->text.len - v->text_from);
    json_key(w, "text");
    json_put_text(w, buf_str(&text), text.len);
    buf_free(&text);
}

static void put_choice(const struct generation *g, struct choice *c, const struct view *v,
                       struct json_writer *w)
{
    const struct generation_params *params = g->input.params;
    json_open_object(w);
    json_key(w, "index");
    json_put_int(w, c->index);
    put_text(g, c, v, w);
    json_key(w, "logprobs");
    if (params->sampling.num_logprobs >= 0)
        logprobs_put_completion(g, c, v->first && params->echo, v->from, v->to, w);
    else
        json_put_null(w);
    generation_put_finish(w, c);
    if (params->return_token_ids) {
        const struct request *r = c->request;
        if (v->first) {
            json_key(w, "prompt_token_ids");
            generation_put_ids(w, r->token_ids, r->num_prompt_tokens);
        }
        json_key(w, "token_ids");
        generation_put_ids(w, r->token_ids + r->num_prompt_tokens + v->from, v->to - v->from);
    }
    if (!params->stream)
        logprobs_put_prompt(g, c, w);
    json_close_object(w);
}

static void write_chunk(const struct generation *g, struct choice *c, struct buf *out)
{
    struct json_writer w;
    struct view v = { .first = !c->begun,
                      .from = c->num_tokens_sent,
                      .to = c->num_tokens,
                      .text_from = c->text_sent };
    c->begun = true;
    sse_begin(out);
    json_writer_init(&w, out);
    generation_open_body(g, "text_completion", &w);
    json_key(&w, "choices");
    json_open_array(&w);
    put_choice(g, c, &v, &w);
    json_close_array(&w);
    generation_put_chunk_usage(g, c, c->num_tokens, &w);
    json_close_object(&w);
    sse_end(out);
}

static void write_body(const struct generation *g, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    generation_open_body(g, "text_completion", &w);
    json_key(&w, "choices");
    json_open_array(&w);
    for (int32_t i = 0; i < g->num_choices; i++) {
        struct view v = { .first = true, .to = g->choices[i].num_tokens };
        put_choice(g, &g->choices[i], &v, &w);
    }
    json_close_array(&w);
    generation_put_usage(g, &w);
    json_close_object(&w);
}

static const struct generation_format completion_format = {
    .id_prefix = "cmpl-",
    .prompt_param = "prompt",
    .chunk_object = "text_completion",
    .chunk = write_chunk,
    .body = write_body,
};

/* Without max_tokens the default applies, cut to the room that the longest prompt leaves. */
static void default_max_tokens(const struct server *s, struct generation_params *params,
                               const struct prompt *prompts, int32_t count)
{
    if (params->max_tokens >= 0)
        return;
    params->max_tokens = DEFAULT_MAX_TOKENS;
    if (params->sampling.min_tokens > params->max_tokens)
        params->max_tokens = params->sampling.min_tokens;
    for (int32_t i = 0; i < count; i++) {
        int32_t room = engine_info(s->engine)->max_model_len - prompts[i].num_ids;
        if (room >= 1 && room < params->max_tokens)
            params->max_tokens = room;
    }
}

static bool read_prompts(struct exchange *x, const struct json_node *body,
                         struct generation_input *in, struct generation_params *params,
                         struct status *st)
{
    struct prompt *prompts;
    if (!prompts_read(x, body, params, &prompts, &in->num_prompts, st))
        return false;
    default_max_tokens(x->app, params, prompts, in->num_prompts);
    in->prompts = prompts;
    return true;
}

void api_completions(struct exchange *x)
{
    generation_serve(x, GENERATION_COMPLETION, &completion_format, read_prompts);
}
