/* Tests of the endpoints over real HTTP, with a fake engine behind them. */
#include "tests/server/fake_engine.h"
#include "tests/server/http_client.h"
#include "server/http.h"
#include "server/routes.h"
#include "server/server.h"

#include <jansson.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <cmocka.h>

static struct config config;
static struct startup startup;
static struct engine *engine;
static struct server server;
static struct http_server *http;
static int port;

static void start(void)
{
    struct status st = { 0 };
    startup_init(&startup);
    engine = engine_new(&config);
    assert_true(server_init(&server, &config, engine, &startup, &st));
    const struct http_options options = { .host = "127.0.0.1",
                                          .max_connections = (int32_t)config.max_connections,
                                          .max_body_bytes = (size_t)config.max_body_bytes,
                                          .idle_timeout_s = config.connection_timeout,
                                          .screen = routes_screen,
                                          .handle = routes_handle,
                                          .completed = routes_completed,
                                          .app = &server };
    if (!http_start(&options, &http, &st))
        fail_msg("%s", st.message);
    port = http_port(http);
}

static void stop(void)
{
    http_stop(http);
    engine_free(engine);
    server_free(&server);
}

static int set_up(void **state)
{
    (void)state;
    config_defaults(&config);
    config.served_model_name = "fake-model,second";
    config.log_requests = false;
    config.enable_prompt_tokens_details = true;
    start();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stop();
    return 0;
}

/* Sends and parses; the status must be `status`. */
static json_t *call(const char *path, const char *body, int status)
{
    struct reply r = client_request(port, "POST", path, NULL, body);
    if (r.status != status)
        fail_msg("%s %s: status %d, expected %d: %s", path, body, r.status, status,
                 buf_str(&r.body));
    json_t *root = json_loadb(buf_str(&r.body), r.body.len, JSON_ALLOW_NUL, NULL);
    if (!root)
        fail_msg("not JSON: %s", buf_str(&r.body));
    reply_free(&r);
    return root;
}

/* "choices.0.text" and the like. */
static json_t *at(json_t *root, const char *path)
{
    char key[64];
    while (root && *path) {
        size_t len = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        root = json_is_array(root) ? json_array_get(root, (size_t)atoi(key))
                                   : json_object_get(root, key);
        path += len + (path[len] == '.');
    }
    return root;
}

static const char *text_at(json_t *root, const char *path)
{
    const char *text = json_string_value(at(root, path));
    return text ? text : "(none)";
}

static int64_t int_at(json_t *root, const char *path)
{
    return json_is_integer(at(root, path)) ? json_integer_value(at(root, path)) : -1234;
}

static void test_completion(void **state)
{
    (void)state;
    json_t *r = call("/v1/completions", "{\"model\":\"second\",\"prompt\":\"hello\"}", 200);
    assert_string_equal(text_at(r, "object"), "text_completion");
    assert_string_equal(text_at(r, "model"), "second");
    assert_int_equal(strncmp(text_at(r, "id"), "cmpl-", 5), 0);
    assert_string_equal(text_at(r, "choices.0.text"), "hello");
    assert_string_equal(text_at(r, "choices.0.finish_reason"), "stop");
    assert_true(json_is_null(at(r, "choices.0.stop_reason")));
    assert_true(json_is_null(at(r, "choices.0.logprobs")));
    assert_int_equal(int_at(r, "usage.prompt_tokens"), 6);
    assert_int_equal(int_at(r, "usage.completion_tokens"), 6); /* EOS counts */
    assert_int_equal(int_at(r, "usage.total_tokens"), 12);
    assert_int_equal(int_at(r, "usage.prompt_tokens_details.cached_tokens"), 0);
    json_decref(r);
}

static void test_length_and_default_max_tokens(void **state)
{
    (void)state;
    json_t *r = call("/v1/completions",
                     "{\"prompt\":\"abcdefghijklmnopqrstuvwxyz\",\"max_tokens\":null}", 200);
    assert_string_equal(text_at(r, "choices.0.text"), "abcdefghijklmnop");
    assert_string_equal(text_at(r, "choices.0.finish_reason"), "length");
    json_decref(r);
    r = call("/v1/completions", "{\"prompt\":\"abc\",\"max_tokens\":2}", 200);
    assert_string_equal(text_at(r, "choices.0.text"), "ab");
    json_decref(r);
}

static void test_prompts_and_n(void **state)
{
    (void)state;
    json_t *r = call("/v1/completions", "{\"prompt\":[\"ab\",[99,100]],\"n\":2,\"seed\":5}", 200);
    assert_int_equal(json_array_size(at(r, "choices")), 4);
    static const char *const texts[] = { "ab", "ab", "cd", "cd" };
    for (int i = 0; i < 4; i++) {
        char path[32];
        snprintf(path, sizeof path, "choices.%d.text", i);
        assert_string_equal(text_at(r, path), texts[i]);
        snprintf(path, sizeof path, "choices.%d.index", i);
        assert_int_equal(int_at(r, path), i);
    }
    assert_int_equal(int_at(r, "usage.prompt_tokens"), 5); /* each prompt once */
    assert_int_equal(int_at(r, "usage.completion_tokens"), 12);
    json_decref(r);
    r = call("/v1/completions", "{\"prompt\":[104,105],\"echo\":true}", 200);
    assert_string_equal(text_at(r, "choices.0.text"), "hihi");
    json_decref(r);
}

static void test_stop_strings(void **state)
{
    (void)state;
    json_t *r =
        call("/v1/completions", "{\"prompt\":\"one two three\",\"stop\":[\"xyz\",\"tw\"]}", 200);
    assert_string_equal(text_at(r, "choices.0.text"), "one ");
    assert_string_equal(text_at(r, "choices.0.finish_reason"), "stop");
    assert_string_equal(text_at(r, "choices.0.stop_reason"), "tw");
    assert_int_equal(int_at(r, "usage.completion_tokens"), 6);
    json_decref(r);
    r = call("/v1/completions",
             "{\"prompt\":\"one two\",\"stop\":\"tw\",\"include_stop_str_in_output\":true}", 200);
    assert_string_equal(text_at(r, "choices.0.text"), "one tw");
    json_decref(r);
    r = call("/v1/completions", "{\"prompt\":\"abc\",\"stop_token_ids\":[98]}", 200);
    assert_string_equal(text_at(r, "choices.0.text"), "a");
    assert_int_equal(int_at(r, "choices.0.stop_reason"), 98);
    json_decref(r);
}

static void test_completion_logprobs(void **state)
{
    (void)state;
    json_t *r =
        call("/v1/completions",
             "{\"prompt\":\"h\xc3\xa9\",\"logprobs\":2,\"echo\":true,\"max_tokens\":0}", 200);
    assert_string_equal(text_at(r, "choices.0.text"), "h\xc3\xa9");
    json_t *l = at(r, "choices.0.logprobs");
    assert_int_equal(json_array_size(at(l, "tokens")), 4); /* BOS h C3 A9 */
    assert_true(json_is_null(at(l, "token_logprobs.0")));
    assert_true(json_is_null(at(l, "top_logprobs.0")));
    assert_true(json_real_value(at(l, "token_logprobs.1")) == -0.25);
    assert_true(json_real_value(at(l, "top_logprobs.1.A")) == -1.0);
    assert_int_equal(json_object_size(at(l, "top_logprobs.1")), 3);
    assert_int_equal(int_at(l, "text_offset.1"), 3);
    assert_int_equal(int_at(l, "text_offset.2"), 4);
    assert_int_equal(int_at(l, "text_offset.3"), 5); /* the second byte begins no character */
    assert_string_equal(text_at(r, "choices.0.finish_reason"), "length");
    assert_int_equal(int_at(r, "usage.completion_tokens"), 0);
    json_decref(r);
    r = call("/v1/completions",
             "{\"prompt\":\"hi\",\"logprobs\":0,\"return_tokens_as_token_ids\":true,"
             "\"prompt_logprobs\":1,\"return_token_ids\":true}",
             200);
    assert_string_equal(text_at(r, "choices.0.logprobs.tokens.0"), "token_id:104");
    assert_int_equal(json_object_size(at(r, "choices.0.logprobs.top_logprobs.0")), 1);
    assert_true(json_is_null(at(r, "choices.0.prompt_logprobs.0")));
    assert_string_equal(text_at(r, "choices.0.prompt_logprobs.1.104.decoded_token"), "h");
    assert_int_equal(int_at(r, "choices.0.prompt_logprobs.1.65.rank"), 1);
    assert_int_equal(int_at(r, "choices.0.prompt_token_ids.0"), FAKE_BOS);
    assert_int_equal(int_at(r, "choices.0.token_ids.2"), FAKE_EOS);
    json_decref(r);
}

static void test_chat(void **state)
{
    (void)state;
    json_t *r = call("/v1/chat/completions",
                     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
                     "\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}],\"logprobs\":true,"
                     "\"top_logprobs\":1,\"chat_template_kwargs\":{\"shout\":true}}",
                     200);
    assert_string_equal(text_at(r, "object"), "chat.completion");
    assert_string_equal(text_at(r, "model"), "fake-model");
    assert_string_equal(text_at(r, "choices.0.message.role"), "assistant");
    assert_string_equal(text_at(r, "choices.0.message.content"), "user: a\nb\n!>");
    assert_string_equal(text_at(r, "choices.0.finish_reason"), "stop");
    assert_string_equal(text_at(r, "choices.0.logprobs.content.0.token"), "u");
    assert_int_equal(int_at(r, "choices.0.logprobs.content.0.bytes.0"), 'u');
    assert_string_equal(text_at(r, "choices.0.logprobs.content.0.top_logprobs.0.token"), "A");
    assert_int_equal(json_array_size(at(r, "choices.0.logprobs.content.0.top_logprobs")), 1);
    json_decref(r);
    r = call("/v1/chat/completions",
             "{\"messages\":[{\"role\":\"assistant\",\"content\":\"Hey\"}],\"echo\":true,"
             "\"continue_final_message\":true,\"max_completion_tokens\":4,\"max_tokens\":9}",
             200);
    assert_string_equal(text_at(r, "choices.0.message.content"), "Heyassi");
    json_decref(r);
}

/* --- streams ------------------------------------------------------------------------------------
 */

/* The events of a stream, parsed; [DONE] must be last. */
static json_t *stream(const char *path, const char *body)
{
    struct reply r = client_request(port, "POST", path, NULL, body);
    json_t *events = json_array();
    if (r.status != 200)
        fail_msg("status %d: %s", r.status, buf_str(&r.body));
    assert_string_equal(reply_header(&r, "Content-Type"), "text/event-stream; charset=utf-8");
    bool done = false;
    for (char *line = r.body.data, *end; (end = strstr(line, "\n\n")) != NULL; line = end + 2) {
        assert_false(done);
        if (line[0] == ':')
            continue;
        assert_int_equal(strncmp(line, "data: ", 6), 0);
        done = strncmp(line + 6, "[DONE]", 6) == 0;
        json_t *event = done ? NULL : json_loadb(line + 6, (size_t)(end - line) - 6, 0, NULL);
        if (!done && !event)
            fail_msg("not JSON: %.*s", (int)(end - line), line);
        if (event)
            json_array_append_new(events, event);
    }
    assert_true(done);
    reply_free(&r);
    return events;
}

static void test_completion_stream(void **state)
{
    char texts[2][64] = { "", "" }, finish[2][16] = { "", "" };
    size_t i;
    json_t *event;
    (void)state;
    json_t *events =
        stream("/v1/completions", "{\"prompt\":[\"hello w\xc3\xb6rld\",\"a.b.c\"],\"stream\":true,"
                                  "\"stop\":\"b.\",\"stream_options\":{\"include_usage\":true}}");
    json_array_foreach(events, i, event)
    {
        if (json_array_size(at(event, "choices")) == 0)
            continue;
        assert_true(json_is_null(at(event, "usage")));
        int64_t index = int_at(event, "choices.0.index");
        strcat(texts[index], text_at(event, "choices.0.text"));
        if (!json_is_null(at(event, "choices.0.finish_reason")))
            strcpy(finish[index], text_at(event, "choices.0.finish_reason"));
    }
    assert_string_equal(texts[0], "hello w\xc3\xb6rld");
    assert_string_equal(texts[1], "a.");
    assert_string_equal(finish[0], "stop");
    assert_string_equal(finish[1], "stop");
    event = json_array_get(events, json_array_size(events) - 1);
    assert_int_equal(json_array_size(at(event, "choices")), 0);
    assert_int_equal(int_at(event, "usage.prompt_tokens"), 13 + 6);
    assert_int_equal(int_at(event, "usage.completion_tokens"), 13 + 4);
    json_decref(events);
}

static void test_chat_stream(void **state)
{
    char text[64] = "";
    int64_t counted = 0;
    size_t i;
    json_t *event;
    (void)state;
    json_t *events = stream(
        "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"logprobs\":true,"
        "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}");
    event = json_array_get(events, 0);
    assert_string_equal(text_at(event, "object"), "chat.completion.chunk");
    assert_string_equal(text_at(event, "choices.0.delta.role"), "assistant");
    assert_string_equal(text_at(event, "choices.0.delta.content"), "");
    assert_int_equal(int_at(event, "usage.completion_tokens"), 0);
    size_t entries = 0;
    json_array_foreach(events, i, event)
    {
        int64_t tokens = int_at(event, "usage.completion_tokens");
        assert_true(tokens >= counted);
        counted = tokens;
        entries += json_array_size(at(event, "choices.0.logprobs.content"));
        if (json_is_string(at(event, "choices.0.delta.content")))
            strcat(text, text_at(event, "choices.0.delta.content"));
    }
    assert_string_equal(text, "user: hi\n>");
    assert_int_equal(counted, 11);
    assert_int_equal(entries, 11);
    json_decref(events);
}

static void test_error_in_stream(void **state)
{
    (void)state;
    json_t *events = stream("/v1/completions", "{\"prompt\":\"FAIL\",\"stream\":true}");
    json_t *last = json_array_get(events, json_array_size(events) - 1);
    assert_string_equal(text_at(last, "error.message"), "the device broke");
    assert_string_equal(text_at(last, "error.type"), "server_error");
    assert_true(json_is_null(at(last, "error.param")));
    assert_string_equal(text_at(last, "error.code"), "internal_error");
    json_decref(events);
    json_decref(call("/v1/completions", "{\"prompt\":\"FAIL\"}", 500));
}

static void test_keepalive_and_deadline(void **state)
{
    (void)state;
    config.sse_keepalive_interval = 0.06;
    config.request_timeout = 0.3;
    struct reply r = client_request(port, "POST", "/v1/completions", NULL,
                                    "{\"prompt\":\"STALL\",\"stream\":true}");
    assert_non_null(strstr(buf_str(&r.body), ": keep-alive\n\n"));
    assert_non_null(strstr(buf_str(&r.body), "request_timeout"));
    assert_non_null(strstr(buf_str(&r.body), "data: [DONE]\n\n"));
    reply_free(&r);
    json_decref(call("/v1/completions", "{\"prompt\":\"STALL\"}", 408));
}

/* --- clients that leave -------------------------------------------------------------------------
 */

static void wait_cancelled(int32_t count)
{
    for (int i = 0; i < 400 && (atomic_load(&engine->num_cancelled) < count ||
                                engine_num_unfinished(engine) > 0);
         i++)
        poll(NULL, 0, 10);
    assert_int_equal(atomic_load(&engine->num_cancelled), count);
    assert_int_equal(engine_num_unfinished(engine), 0);
}

static void test_client_gone(void **state)
{
    static const char whole[] = "{\"prompt\":\"STALL\"}";
    static const char streamed[] = "{\"prompt\":\"STALL\",\"stream\":true}";
    (void)state;
    for (int i = 0; i < 20; i++) {
        const char *body = i % 2 ? whole : streamed;
        int fd = client_connect(port);
        client_send_request(fd, "POST", "/v1/completions", NULL, body, strlen(body));
        while (engine_num_unfinished(engine) < i % 4 + 1 && i % 4 == 0)
            poll(NULL, 0, 1);
        poll(NULL, 0, 20);
        close(fd);
    }
    wait_cancelled(20);
    for (int i = 0; i < 400 && http_num_connections(http) > 0; i++)
        poll(NULL, 0, 10);
    assert_int_equal(http_num_connections(http), 0);
    assert_int_equal(http_num_active(http), 0);
}

static void test_drain(void **state)
{
    (void)state;
    atomic_store(&engine->tick_us, 5000);
    int fd[4];
    for (int i = 0; i < 4; i++) {
        const char *body = "{\"prompt\":\"0123456789\",\"stream\":true}";
        fd[i] = client_connect(port);
        client_send_request(fd[i], "POST", "/v1/completions", NULL, body, strlen(body));
    }
    while (engine_num_unfinished(engine) < 4)
        poll(NULL, 0, 1);
    http_quiesce(http);
    engine_abort_all(engine);
    for (int i = 0; i < 4; i++) {
        struct reply r = client_read(fd[i]);
        assert_non_null(strstr(buf_str(&r.body), "\"finish_reason\":\"abort\""));
        assert_non_null(strstr(buf_str(&r.body), "data: [DONE]\n\n"));
        reply_free(&r);
        close(fd[i]);
    }
}

/* --- errors -------------------------------------------------------------------------------------
 */

static void expect_error(const char *path, const char *body, int status, const char *param,
                         const char *code)
{
    json_t *r = call(path, body, status);
    assert_int_equal(json_object_size(at(r, "error")), 4);
    assert_true(json_string_length(at(r, "error.message")) > 0);
    assert_true(json_is_string(at(r, "error.type")));
    const char *given = json_string_value(at(r, "error.param"));
    if (!param != !given || (param && strcmp(param, given) != 0))
        fail_msg("%s: param %s, expected %s", body, given, param);
    if (strcmp(text_at(r, "error.code"), code) != 0)
        fail_msg("%s: code %s, expected %s", body, text_at(r, "error.code"), code);
    json_decref(r);
}

static void test_errors(void **state)
{
    static const struct {
        const char *body;
        int status;
        const char *param, *code;
    } cases[] = {
        { "", 400, NULL, "invalid_json" },
        { "{\"prompt\":", 400, NULL, "invalid_json" },
        { "{\"prompt\":\"\\ud800\"}", 400, NULL, "invalid_json" },
        { "{\"prompt\":\"a\",\"temperature\":NaN}", 400, NULL, "invalid_json" },
        { "[1]", 400, NULL, "invalid_type" },
        { "{}", 400, "prompt", "missing_required_parameter" },
        { "{\"prompt\":[]}", 400, "prompt", "invalid_value" },
        { "{\"prompt\":[[]]}", 400, "prompt[0]", "invalid_value" },
        { "{\"prompt\":{}}", 400, "prompt", "invalid_type" },
        { "{\"prompt\":[1,\"a\"]}", 400, "prompt[1]", "invalid_type" },
        { "{\"prompt\":[1,-1]}", 400, "prompt[1]", "token_id_out_of_range" },
        { "{\"prompt\":[[1],[258]]}", 400, "prompt[1][0]", "token_id_out_of_range" },
        { "{\"prompt\":\"a\",\"model\":\"x\"}", 404, "model", "model_not_found" },
        { "{\"prompt\":\"a\",\"model\":3}", 400, "model", "invalid_type" },
        { "{\"prompt\":\"a\",\"max_tokens\":0}", 400, "max_tokens", "integer_below_min_value" },
        { "{\"prompt\":\"a\",\"max_tokens\":300}", 400, "prompt", "context_length_exceeded" },
        { "{\"prompt\":\"a\",\"max_tokens\":1e400}", 400, NULL, "invalid_json" },
        { "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400, "suffix", "unsupported_parameter" },
        { "{\"prompt\":\"a\",\"best_of\":2}", 400, "best_of", "unsupported_parameter" },
        { "{\"prompt\":\"a\",\"stream_options\":{}}", 400, "stream_options", "invalid_value" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_error("/v1/completions", cases[i].body, cases[i].status, cases[i].param,
                     cases[i].code);
    char long_prompt[400];
    memset(long_prompt, 'a', sizeof long_prompt);
    memcpy(long_prompt, "{\"prompt\":\"", 11);
    strcpy(long_prompt + 390, "\"}");
    expect_error("/v1/completions", long_prompt, 400, "prompt", "context_length_exceeded");
    struct buf deep = { 0 };
    buf_append_str(&deep, "{\"prompt\":");
    for (int i = 0; i < 100000; i++)
        buf_append_char(&deep, '[');
    expect_error("/v1/completions", buf_str(&deep), 400, NULL, "json_too_deep");
    buf_free(&deep);
}

static void test_chat_errors(void **state)
{
#define MESSAGE "{\"role\":\"user\",\"content\":\"a\"}"
    static const struct {
        const char *body, *param, *code;
    } cases[] = {
        { "{}", "messages", "missing_required_parameter" },
        { "{\"messages\":[]}", "messages", "array_below_min_length" },
        { "{\"messages\":[1]}", "messages[0]", "invalid_type" },
        { "{\"messages\":[{}]}", "messages[0].role", "missing_required_parameter" },
        { "{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content",
          "missing_required_parameter" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
          "messages[0].content[0].type", "unsupported_content" },
        { "{\"messages\":[{\"role\":\"bad\",\"content\":\"\"}]}", "messages",
          "chat_template_error" },
        { "{\"messages\":[" MESSAGE "],\"tool_choice\":\"auto\"}", "tool_choice", "invalid_value" },
        { "{\"messages\":[" MESSAGE "],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"
          "\"f\"}}]}",
          "tool_choice", "unsupported_parameter" },
        { "{\"messages\":[" MESSAGE "],\"tools\":[{}]}", "tools[0].function",
          "missing_required_parameter" },
        { "{\"messages\":[" MESSAGE "],\"top_logprobs\":2}", "top_logprobs", "invalid_value" },
        { "{\"messages\":[" MESSAGE "],\"response_format\":{\"type\":\"json_object\"}}",
          "response_format.type", "unsupported_parameter" },
        { "{\"messages\":[" MESSAGE
          "],\"continue_final_message\":true,\"add_generation_prompt\":true}",
          "continue_final_message", "invalid_value" },
        { "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[1]}]}",
          "messages[0].tool_calls[0]", "invalid_type" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_error("/v1/chat/completions", cases[i].body, 400, cases[i].param, cases[i].code);
    engine->info.chat_template = NULL;
    expect_error("/v1/chat/completions", "{\"messages\":[" MESSAGE "]}", 400, "messages",
                 "no_chat_template");
}

static void test_overload_and_states(void **state)
{
    (void)state;
    atomic_store(&engine->max_waiting, 1);
    expect_error("/v1/completions", "{\"prompt\":\"a\",\"n\":2}", 429, NULL, "rate_limit_exceeded");
    atomic_store(&engine->state, ENGINE_LOADING);
    expect_error("/v1/completions", "{\"prompt\":\"a\"}", 503, NULL, "loading");
    struct reply r = client_request(port, "GET", "/health", NULL, NULL);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(buf_str(&r.body), "loading: starting"));
    reply_free(&r);
    r = client_request(port, "GET", "/livez", NULL, NULL);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    atomic_store(&engine->state, ENGINE_FAILED);
    r = client_request(port, "GET", "/readyz", NULL, NULL);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(buf_str(&r.body), "the engine has failed: the fake broke"));
    reply_free(&r);
}

/* --- the other endpoints ------------------------------------------------------------------------
 */

static void test_tokenize(void **state)
{
    (void)state;
    json_t *r = call("/tokenize", "{\"prompt\":\"a\\u0000b\"}", 200);
    assert_int_equal(int_at(r, "count"), 4);
    assert_int_equal(int_at(r, "max_model_len"), FAKE_MAX_LEN);
    assert_int_equal(int_at(r, "tokens.0"), FAKE_BOS);
    assert_int_equal(int_at(r, "tokens.2"), 0);
    json_decref(r);
    r = call("/tokenize", "{\"messages\":[{\"role\":\"u\",\"content\":\"x\"}]}", 200);
    assert_int_equal(int_at(r, "count"), 6);
    json_decref(r);
    r = call("/detokenize", "{\"tokens\":[104,0,105]}", 200);
    assert_int_equal(json_string_length(at(r, "prompt")), 3);
    json_decref(r);
    r = call("/apply-template", "{\"messages\":[{\"role\":\"u\",\"content\":\"x\"}]}", 200);
    assert_string_equal(text_at(r, "prompt"), "u: x\n>");
    json_decref(r);
    expect_error("/detokenize", "{}", 400, "tokens", "missing_required_parameter");
    expect_error("/detokenize", "{\"tokens\":[9999]}", 400, "tokens[0]", "token_id_out_of_range");
}

static void test_models_and_metrics(void **state)
{
    (void)state;
    struct reply r = client_request(port, "GET", "/v1/models", NULL, NULL);
    json_t *root = json_loads(buf_str(&r.body), 0, NULL);
    assert_string_equal(text_at(root, "data.1.id"), "second");
    assert_int_equal(int_at(root, "data.0.max_model_len"), FAKE_MAX_LEN);
    json_decref(root);
    reply_free(&r);
    r = client_request(port, "GET", "/v1/models/fake-model", NULL, NULL);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    r = client_request(port, "GET", "/v1/models/other", NULL, NULL);
    assert_int_equal(r.status, 404);
    reply_free(&r);
    /* Ended by its own stop string, so the engine sees a cancellation, which counts as a stop. */
    json_decref(call("/v1/completions",
                     "{\"prompt\":\"abc\",\"stop\":\"a\",\"max_tokens\":99,\"ignore_eos\":true}",
                     200));
    wait_cancelled(1);
    r = client_request(port, "GET", "/metrics", NULL, NULL);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "Content-Type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    const char *line = strstr(buf_str(&r.body), "finished_reason=\"stop\"");
    assert_non_null(line);
    line = strchr(line, '}');
    assert_true(strtod(line + 1, NULL) == 1);
    reply_free(&r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_completion),
        TEST(test_length_and_default_max_tokens),
        TEST(test_prompts_and_n),
        TEST(test_stop_strings),
        TEST(test_completion_logprobs),
        TEST(test_chat),
        TEST(test_completion_stream),
        TEST(test_chat_stream),
        TEST(test_error_in_stream),
        TEST(test_keepalive_and_deadline),
        TEST(test_client_gone),
        TEST(test_drain),
        TEST(test_errors),
        TEST(test_chat_errors),
        TEST(test_overload_and_states),
        TEST(test_tokenize),
        TEST(test_models_and_metrics),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
