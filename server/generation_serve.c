/* generation_serve.c - from the body of a generating endpoint to its run. */
#include "server/api_error.h"
#include "server/body.h"
#include "server/generation.h"

static bool read_body(struct exchange *x, enum generation_kind kind, const struct json_node *body,
                      struct generation_input *in, struct generation_params *params,
                      struct status *st)
{
    const struct server *s = x->app;
    const struct engine_info *info = engine_info(s->engine);
    const struct sampling_limits limits = { .defaults = info->sampling_defaults,
                                            .vocab_size = info->vocab_size,
                                            .max_logprobs = info->max_logprobs };
    params->tokens_as_token_ids = s->config->return_tokens_as_token_ids;
    return body_model(body, s, &in->model, st) &&
           sampling_fields_read(body, kind, &limits, &x->arena, params, st);
}

void generation_serve(struct exchange *x, enum generation_kind kind,
                      const struct generation_format *format, generation_prompts *prompts)
{
    struct status st;
    struct body parsed;
    struct generation_params *params = arena_alloc(&x->arena, sizeof *params);
    struct generation_input in = { .format = format, .params = params };
    if (!body_parse(x, &parsed, &st)) {
        api_error_respond(x, &st);
        return;
    }
    struct json_node body = json_root(parsed.root);
    bool read = read_body(x, kind, &body, &in, params, &st);
    bool ready = read && prompts(x, &body, &in, params, &st);
    body_release(x, &parsed);
    if (read && !ready)
        sampling_lists_unref(params->lists);
    if (ready)
        generation_run(x, &in);
    else
        api_error_respond(x, &st);
}
