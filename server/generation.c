/* generation.c - submit, wait, answer. The connection's thread sleeps on one condition variable
 * for all its choices; every 50 ms it looks whether its client is still there. */
#include "server/generation.h"
#include "base/clock.h"
#include "base/log.h"
#include "server/api_error.h"
#include "server/sse.h"

#include <stdio.h>
#include <string.h>

enum { CLIENT_CHECK_MS = 50 };

enum event { EVENT_NEWS, EVENT_SILENCE, EVENT_GONE };

/* --- submit -------------------------------------------------------------------------------------
 */

/* What the answer may take at most: what was asked for, the format's default, the room that the
 * model leaves, and the model's own cap. */
static bool resolve_max_tokens(const struct generation *g, const struct prompt *p, int32_t *out,
                               struct status *st)
{
    const struct engine_info *info = engine_info(g->server->engine);
    const struct generation_params *params = g->input.params;
    int32_t cap = info->generation_max_new_tokens;
    int64_t wanted = params->max_tokens;
    if (!engine_check_length(g->server->engine, p->num_ids, (int32_t)(wanted < 0 ? 1 : wanted), st))
        return status_detail(st, st->param[0] ? NULL : g->input.format->prompt_param, NULL);
    if (wanted < 0)
        wanted = info->max_model_len - p->num_ids;
    if (cap > 0 && wanted > cap)
        wanted = cap;
    if (params->sampling.min_tokens > wanted) {
        status_set(st, STATUS_INVALID,
                   "'min_tokens' is %lld, but this prompt leaves room for only %lld tokens",
                   (long long)params->sampling.min_tokens, (long long)wanted);
        return status_detail(st, "min_tokens", "integer_above_max_value");
    }
    *out = (int32_t)wanted;
    return true;
}

static struct request *make_request(struct generation *g, const struct choice *c,
                                    int32_t max_tokens, int32_t number)
{
    const struct generation_params *params = g->input.params;
    const struct prompt *p = c->prompt;
    sampling_lists_ref(params->lists);
    struct request *r = request_new(p->ids, p->num_ids, max_tokens, &params->sampling,
                                    params->lists, sampling_lists_unref);
    if (!r) {
        sampling_lists_unref(params->lists);
        return NULL;
    }
    snprintf(r->id, sizeof r->id, "%s", g->id);
    r->arrival_ns = g->x->arrival_ns;
    double timeout_s = g->server->config->request_timeout;
    if (timeout_s > 0)
        r->deadline_ns = r->arrival_ns + (uint64_t)(timeout_s * 1e9);
    r->cache_salt = params->cache_salt;
    /* Without a stream or a stop string nobody needs to look at single tokens. */
    r->wakes_at_end_only = !params->stream && params->num_stop == 0;
    r->seed = params->sampling.seed != -1 ? (uint64_t)params->sampling.seed + (uint64_t)number
                                          : server_draw_seed(g->server);
    return r;
}

static bool make_choice(struct generation *g, struct choice *c, int32_t max_tokens,
                        struct status *st)
{
    const struct generation_params *params = g->input.params;
    c->request = make_request(g, c, max_tokens, c->index % params->n);
    if (!c->request)
        return status_set(st, STATUS_OVERLOADED, "there is no memory for this request now");
    if (c != g->choices)
        request_wake_with(c->request, g->choices[0].request);
    struct output_processor_options options = {
        .prompt_ids = c->prompt->ids,
        .num_prompt_ids = (size_t)c->prompt->num_ids,
        .stop = params->stop,
        .num_stop = params->num_stop,
        .include_stop_str_in_output = params->sampling.include_stop_str_in_output,
        .skip_special_tokens = params->sampling.skip_special_tokens,
        .min_tokens = (int32_t)params->sampling.min_tokens,
    };
    c->processor = output_processor_new(engine_info(g->server->engine)->tokenizer, &options);
    return true;
}

static bool check_memory(size_t bytes_each, int32_t count, size_t *total, struct status *st)
{
    if (bytes_each > LIMIT_REQUEST_BYTES / (size_t)count ||
        (*total += bytes_each * (size_t)count) > LIMIT_REQUEST_BYTES) {
        status_set(st, STATUS_INVALID,
                   "the answer could take over %d bytes of ids and log-probabilities; lower n, "
                   "max_tokens or logprobs",
                   LIMIT_REQUEST_BYTES);
        return status_detail(st, "max_tokens", "request_too_large");
    }
    return true;
}

static bool make_choices(struct generation *g, struct status *st)
{
    const struct generation_params *params = g->input.params;
    size_t total = 0;
    for (int32_t i = 0; i < g->input.num_prompts; i++) {
        const struct prompt *p = &g->input.prompts[i];
        int32_t max_tokens = 0;
        if (!resolve_max_tokens(g, p, &max_tokens, st) ||
            !check_memory(request_bytes(p->num_ids, max_tokens, &params->sampling), params->n,
                          &total, st))
            return false;
        g->num_prompt_tokens += p->num_ids;
        for (int32_t k = 0; k < params->n; k++) {
            struct choice *c = &g->choices[g->num_choices];
            c->prompt = p;
            c->index = g->num_choices++;
            if (!make_choice(g, c, max_tokens, st))
                return false;
        }
    }
    return true;
}

static bool submit(struct generation *g, struct status *st)
{
    struct request **requests =
        arena_array(&g->x->arena, (size_t)g->num_choices, sizeof(struct request *));
    for (int32_t i = 0; i < g->num_choices; i++)
        requests[i] = g->choices[i].request;
    return engine_submit(g->server->engine, requests, g->num_choices, st);
}

/* --- taking in what the engine has published ----------------------------------------------------
 */

static void finish_choice(struct generation *g, struct choice *c, enum finish_reason reason,
                          int32_t stop)
{
    c->reason = reason;
    if (stop >= 0) {
        c->reason = FINISH_STOP;
        c->stop_string = g->input.params->stop[stop];
        request_stop(c->request);
    }
    if (reason == FINISH_ERROR && stop < 0 && g->error.code == STATUS_OK)
        g->error = c->request->error;
    if (reason == FINISH_ERROR && stop < 0 && g->error.code == STATUS_OK)
        status_set(&g->error, STATUS_INTERNAL, "the engine failed on this request");
    g->num_finished++;
}

/* The text of an EOS or stop token is not part of the answer, but the token counts. */
static bool is_hidden(const struct choice *c, int32_t position, int32_t count,
                      enum finish_reason reason)
{
    return reason == FINISH_STOP && position == count - 1 &&
           !c->request->params.include_stop_str_in_output;
}

static bool take_in(struct generation *g, struct choice *c)
{
    struct request *r = c->request;
    enum finish_reason reason =
        request_finish_reason(r); /* before the count, which is then final */
    int32_t count = request_num_output_tokens(r);
    int32_t stop = -1;
    bool news = reason != FINISH_NONE || count > c->num_tokens;
    while (c->num_tokens < count && stop < 0) {
        if (!is_hidden(c, c->num_tokens, count, reason))
            stop = output_processor_push(
                c->processor, r->token_ids[r->num_prompt_tokens + c->num_tokens], &c->text);
        c->num_tokens++;
    }
    if (stop < 0 && reason != FINISH_NONE)
        stop = output_processor_finish(c->processor, &c->text);
    if (stop >= 0 || reason != FINISH_NONE)
        finish_choice(g, c, reason, stop);
    return news;
}

static bool take_in_all(struct generation *g)
{
    bool news = false;
    for (int32_t i = 0; i < g->num_choices; i++)
        if (g->choices[i].reason == FINISH_NONE)
            news |= take_in(g, &g->choices[i]);
    return news;
}

static enum event wait_for_news(struct generation *g)
{
    struct request *leader = g->choices[0].request;
    for (;;) {
        uint32_t seen = request_group_publications(leader);
        if (take_in_all(g))
            return EVENT_NEWS;
        if (exchange_gone(g->x))
            return EVENT_GONE;
        if (clock_now_ns() >= g->keepalive_ns)
            return EVENT_SILENCE;
        request_group_wait(leader, seen, CLIENT_CHECK_MS);
    }
}

static void cancel_rest(struct generation *g)
{
    for (int32_t i = 0; i < g->num_choices; i++)
        if (g->choices[i].reason == FINISH_NONE && g->choices[i].request)
            request_cancel(g->choices[i].request);
}

/* --- the report and the end ---------------------------------------------------------------------
 */

static double seconds_or_zero(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? clock_seconds_between(from_ns, to_ns) : 0;
}

/* The engine sees choices one by one; that they belong together is known only here. */
static void observe_choices(struct metrics *m, int32_t n, int32_t longest)
{
    metrics_observe(&m->request_params_n, n);
    metrics_observe(&m->request_max_num_generation_tokens, longest);
}

/* The engine writes its times before it publishes what they belong to, so they are read only where
 * a token, or the end, has been seen. */
static void report(struct generation *g)
{
    struct exchange_report *out = &g->x->report;
    uint64_t last_ns = 0;
    int32_t longest = 0, n = g->input.params->n;
    out->num_prompt_tokens = g->num_prompt_tokens;
    for (int32_t i = 0; i < g->num_choices; i++) {
        struct choice *c = &g->choices[i];
        out->num_output_tokens += c->num_tokens;
        longest = i % n == 0 || c->num_tokens > longest ? c->num_tokens : longest;
        if (i % n == n - 1)
            observe_choices(engine_metrics(g->server->engine), n, longest);
        if (request_finish_reason(c->request) != FINISH_NONE && c->request->finished_ns > last_ns)
            last_ns = c->request->finished_ns;
    }
    const struct request *r = g->choices[0].request;
    if (request_num_output_tokens(r) > 0 || request_finish_reason(r) != FINISH_NONE) {
        out->num_cached_tokens = r->num_cached_tokens;
        out->queue_s = seconds_or_zero(r->arrival_ns, r->scheduled_ns);
        out->prefill_s = seconds_or_zero(r->scheduled_ns, r->first_token_ns);
        out->decode_s = seconds_or_zero(r->first_token_ns, last_ns ? last_ns : clock_now_ns());
    }
}

static void release_choices(struct generation *g)
{
    cancel_rest(g);
    for (int32_t i = 0; i < g->num_choices; i++) {
        struct choice *c = &g->choices[i];
        output_processor_free(c->processor);
        request_unref(c->request);
        buf_free(&c->text);
    }
    sampling_lists_unref(g->input.params->lists);
}

static void release_stream(void *state)
{
    struct generation *g = state;
    report(g);
    release_choices(g);
}

/* --- the two ways to answer ---------------------------------------------------------------------
 */

static void restart_keepalive(struct generation *g)
{
    double interval_s = g->server->config->sse_keepalive_interval;
    g->keepalive_ns = g->input.params->stream && interval_s > 0
                          ? clock_now_ns() + (uint64_t)(interval_s * 1e9)
                          : UINT64_MAX;
}

static bool has_something_to_show(const struct generation *g, const struct choice *c)
{
    if (c->end_sent)
        return false;
    if (c->reason != FINISH_NONE || c->text.len > c->text_sent)
        return true;
    /* Without text yet a token is shown only by what else a chunk tells about it. */
    return c->num_tokens > c->num_tokens_sent && (g->input.params->sampling.num_logprobs >= 0 ||
                                                  g->input.params->return_token_ids || !c->begun);
}

static void show(struct generation *g, struct choice *c, struct buf *out)
{
    if (!has_something_to_show(g, c))
        return;
    g->input.format->chunk(g, c, out);
    c->num_tokens_sent = c->num_tokens;
    c->text_sent = c->text.len;
    c->end_sent = c->reason != FINISH_NONE;
}

static void put_usage_event(const struct generation *g, struct buf *out)
{
    struct json_writer w;
    sse_begin(out);
    json_writer_init(&w, out);
    generation_open_body(g, g->input.format->chunk_object, &w);
    json_key(&w, "choices");
    json_open_array(&w);
    json_close_array(&w);
    generation_put_usage(g, &w);
    json_close_object(&w);
    sse_end(out);
}

static bool next_events(void *state, struct buf *out)
{
    struct generation *g = state;
    switch (wait_for_news(g)) {
    case EVENT_GONE:
        return false;
    case EVENT_SILENCE:
        sse_keepalive(out);
        restart_keepalive(g);
        return true;
    case EVENT_NEWS:
        break;
    }
    if (g->error.code != STATUS_OK) {
        sse_error(out, &g->error);
        sse_done(out);
        return false;
    }
    for (int32_t i = 0; i < g->num_choices; i++)
        show(g, &g->choices[i], out);
    if (out->len > 0)
        restart_keepalive(g);
    if (g->num_finished < g->num_choices)
        return true;
    if (g->input.params->include_usage)
        put_usage_event(g, out);
    sse_done(out);
    return false;
}

static void answer_whole(struct generation *g)
{
    struct status gone;
    enum event event = EVENT_NEWS;
    while (g->num_finished < g->num_choices && g->error.code == STATUS_OK && event != EVENT_GONE)
        event = wait_for_news(g);
    report(g);
    if (g->error.code != STATUS_OK) {
        api_error_respond(g->x, &g->error);
    } else if (event == EVENT_GONE) {
        status_set(&gone, STATUS_CANCELLED, "the client has left");
        api_error_respond(g->x, &gone);
    } else {
        struct buf body;
        buf_init(&body, 0);
        g->input.format->body(g, &body);
        exchange_respond(g->x, 200, "application/json", &body);
    }
    release_choices(g);
}

void generation_run(struct exchange *x, const struct generation_input *input)
{
    struct status st;
    struct generation *g = arena_alloc(&x->arena, sizeof *g);
    g->x = x;
    g->server = x->app;
    g->input = *input;
    g->created_unix_s = clock_unix_s();
    snprintf(g->id, sizeof g->id, "%s%s", input->format->id_prefix, x->id);
    g->choices = arena_array(&x->arena, (size_t)input->num_prompts * (size_t)input->params->n,
                             sizeof *g->choices);
    restart_keepalive(g);
    if (!make_choices(g, &st) || !submit(g, &st)) {
        api_error_respond(x, &st);
        release_choices(g);
        return;
    }
    if (!input->params->stream) {
        answer_whole(g);
        return;
    }
    struct exchange_stream stream = { .next = next_events, .release = release_stream, .state = g };
    exchange_respond_stream(x, SSE_CONTENT_TYPE, &stream);
}

/* --- for formats --------------------------------------------------------------------------------
 */

const char *generation_finish_reason(const struct choice *c)
{
    switch (c->reason) {
    case FINISH_NONE:
        return NULL;
    case FINISH_STOP:
        return "stop";
    case FINISH_LENGTH:
        return "length";
    default:
        return "abort";
    }
}

void generation_put_finish(struct json_writer *w, const struct choice *c)
{
    json_key(w, "finish_reason");
    json_put_string(w, generation_finish_reason(c));
    json_key(w, "stop_reason");
    if (c->reason == FINISH_STOP && c->stop_string)
        json_put_string(w, c->stop_string);
    else if (c->reason == FINISH_STOP && c->request->stop_token_id >= 0)
        json_put_int(w, c->request->stop_token_id);
    else
        json_put_null(w);
}

static void put_usage(const struct generation *g, struct json_writer *w, int64_t prompt,
                      int64_t completion, int64_t cached)
{
    json_key(w, "usage");
    json_open_object(w);
    json_key(w, "prompt_tokens");
    json_put_int(w, prompt);
    json_key(w, "total_tokens");
    json_put_int(w, prompt + completion);
    json_key(w, "completion_tokens");
    json_put_int(w, completion);
    json_key(w, "prompt_tokens_details");
    if (g->server->config->enable_prompt_tokens_details) {
        json_open_object(w);
        json_key(w, "cached_tokens");
        json_put_int(w, cached);
        json_close_object(w);
    } else {
        json_put_null(w);
    }
    json_close_object(w);
}

/* The engine has written it before the first token it published. */
static int64_t cached_tokens(const struct choice *c)
{
    return c->num_tokens > 0 || c->reason != FINISH_NONE ? c->request->num_cached_tokens : 0;
}

void generation_put_usage(const struct generation *g, struct json_writer *w)
{
    int64_t completion = 0, cached = 0;
    for (int32_t i = 0; i < g->num_choices; i++) {
        const struct choice *c = &g->choices[i];
        completion += c->num_tokens;
        if (c->index % g->input.params->n == 0)
            cached += cached_tokens(c);
    }
    put_usage(g, w, g->num_prompt_tokens, completion, cached);
}

void generation_put_chunk_usage(const struct generation *g, const struct choice *c,
                                int32_t num_tokens, struct json_writer *w)
{
    if (g->input.params->continuous_usage_stats) {
        put_usage(g, w, c->prompt->num_ids, num_tokens, cached_tokens(c));
    } else if (g->input.params->include_usage) {
        json_key(w, "usage");
        json_put_null(w);
    }
}

void generation_open_body(const struct generation *g, const char *object, struct json_writer *w)
{
    json_open_object(w);
    json_key(w, "id");
    json_put_string(w, g->id);
    json_key(w, "object");
    json_put_string(w, object);
    json_key(w, "created");
    json_put_int(w, g->created_unix_s);
    json_key(w, "model");
    json_put_string(w, g->input.model);
    json_key(w, "system_fingerprint");
    json_put_null(w);
}

void generation_put_ids(struct json_writer *w, const int32_t *ids, int32_t count)
{
    json_open_array(w);
    for (int32_t i = 0; i < count; i++)
        json_put_int(w, ids[i]);
    json_close_array(w);
}
