/* Fuzz target for request bodies: whatever the bytes, they are read or refused with a message, the
 * error object is valid JSON, and what was read keeps the rules the engine relies on. */
#include "tests/server/fake_engine.h"
#include "server/api_error.h"
#include "server/chat_messages.h"
#include "server/prompts.h"
#include "server/sampling_fields.h"
#include "server/server.h"

#include <stdint.h>
#include <stdlib.h>

static struct config config;
static struct startup startup;
static struct server server;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct status st;
    (void)argc, (void)argv;
    config_defaults(&config);
    config.model = "fake";
    config.trust_request_chat_template = true;
    startup_init(&startup);
    CHECK(server_init(&server, &config, engine_new(&config), &startup, &st));
    return 0;
}

static void check_error(const struct status *st)
{
    struct buf out = { 0 };
    CHECK(st->code != STATUS_OK && st->message[0]);
    api_error_body(st, &out);
    json_t *root = json_loadb(buf_str(&out), out.len, JSON_ALLOW_NUL, NULL);
    CHECK(root);
    json_decref(root);
    buf_free(&out);
}

static void check_params(const struct generation_params *p)
{
    const struct sampling_params *s = &p->sampling;
    CHECK(p->n >= 1 && p->max_tokens >= -1 && p->lists);
    CHECK(s->temperature >= 0 && s->top_p > 0 && s->top_p <= 1 && s->repetition_penalty > 0);
    CHECK(s->num_logprobs >= -1 && s->num_logprobs <= 20);
    CHECK(s->num_prompt_logprobs >= -1 && s->num_prompt_logprobs <= 20);
    for (int32_t i = 0; i < p->num_stop; i++)
        CHECK(p->stop[i][0]);
    for (int32_t i = 0; i < s->num_stop_token_ids; i++)
        CHECK(s->stop_token_ids[i] >= 0 && s->stop_token_ids[i] < FAKE_VOCAB);
    for (int32_t i = 0; i < s->num_logit_bias; i++)
        CHECK(s->logit_bias_ids[i] >= 0 && s->logit_bias_ids[i] < FAKE_VOCAB &&
              s->logit_bias_values[i] >= -100 && s->logit_bias_values[i] <= 100);
}

static void read_prompts(struct exchange *x, const struct json_node *body,
                         const struct generation_params *params)
{
    struct prompt *prompts;
    struct status st = { 0 };
    int32_t count = 0;
    if (!prompts_read(x, body, params, &prompts, &count, &st)) {
        check_error(&st);
        return;
    }
    CHECK(count > 0);
    for (int32_t i = 0; i < count; i++) {
        CHECK(prompts[i].num_ids > 0 && prompts[i].num_ids <= FAKE_MAX_LEN);
        for (int32_t k = 0; k < prompts[i].num_ids; k++)
            CHECK(prompts[i].ids[k] >= 0 && prompts[i].ids[k] < FAKE_VOCAB);
    }
}

static void read_chat(const struct json_node *body)
{
    struct chat_input chat;
    struct status st = { 0 };
    struct buf text = { 0 };
    if (!chat_input_read(body, &server, &chat, &st)) {
        check_error(&st);
        return;
    }
    if (!chat_input_render(&server, &chat, &text, &st))
        check_error(&st);
    chat_input_free(&chat);
    buf_free(&text);
}

static void read_body(struct exchange *x, const struct json_node *body, enum generation_kind kind)
{
    const struct engine_info *info = engine_info(server.engine);
    const struct sampling_limits limits = { .defaults = info->sampling_defaults,
                                            .vocab_size = info->vocab_size,
                                            .max_logprobs = info->max_logprobs };
    struct generation_params params = { 0 };
    struct status st = { 0 };
    if (!sampling_fields_read(body, kind, &limits, &x->arena, &params, &st)) {
        check_error(&st);
        return;
    }
    check_params(&params);
    if (kind == GENERATION_CHAT)
        read_chat(body);
    else
        read_prompts(x, body, &params);
    sampling_lists_unref(params.lists);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct exchange x = { .app = &server };
    struct status st = { 0 };
    json_t *root;
    arena_init(&x.arena);
    if (json_parse((const char *)data, size, &root, &st)) {
        struct json_node body = json_root(root);
        if (json_is_object(root)) {
            read_body(&x, &body, GENERATION_COMPLETION);
            read_body(&x, &body, GENERATION_CHAT);
        }
        json_decref(root);
    } else {
        check_error(&st);
    }
    arena_free(&x.arena);
    return 0;
}
