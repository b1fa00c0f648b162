/* Tests of routes.h over real HTTP: 404, 405, keys, CORS, readiness, HEAD. */
#include "tests/server/fake_engine.h"
#include "tests/server/http_client.h"
#include "server/http.h"
#include "server/routes.h"
#include "server/server.h"

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

static int set_up(void **state)
{
    struct status st = { 0 };
    (void)state;
    config_defaults(&config);
    config.model = "org/model";
    config.api_key = "key-one,key-two";
    config.allowed_origins = "https://a.example,https://b.example";
    config.enable_request_id_headers = true;
    config.log_requests = false;
    startup_init(&startup);
    engine = engine_new(&config);
    assert_true(server_init(&server, &config, engine, &startup, &st));
    const struct http_options options = { .host = "127.0.0.1",
                                          .max_connections = 32,
                                          .max_body_bytes = 1 << 20,
                                          .idle_timeout_s = 10,
                                          .screen = routes_screen,
                                          .handle = routes_handle,
                                          .completed = routes_completed,
                                          .app = &server };
    assert_true(http_start(&options, &http, &st));
    port = http_port(http);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    http_stop(http);
    engine_free(engine);
    server_free(&server);
    return 0;
}

#define KEY "Authorization: Bearer key-two\r\n"

static void expect(const char *method, const char *path, const char *headers, int status,
                   const char *body_part)
{
    struct reply r = client_request(port, method, path, headers, NULL);
    if (r.status != status || (body_part && !strstr(buf_str(&r.body), body_part)))
        fail_msg("%s %s: %d %s", method, path, r.status, buf_str(&r.body));
    reply_free(&r);
}

static void test_paths_and_methods(void **state)
{
    (void)state;
    expect("GET", "/nowhere", KEY, 404, "\"code\":\"unknown_url\"");
    expect("GET", "/v1/models/", KEY, 404, NULL);
    expect("GET", "/v1/models/org/model", KEY, 200, "\"id\":\"org/model\"");
    expect("POST", "/health", NULL, 405, "method_not_supported");
    expect("DELETE", "/v1/chat/completions", KEY, 405, "use POST, OPTIONS");
    struct reply r = client_request(port, "GET", "/v1/completions", KEY, NULL);
    assert_int_equal(r.status, 405);
    assert_string_equal(reply_header(&r, "Allow"), "POST, OPTIONS");
    reply_free(&r);
    r = client_request(port, "POST", "/version", KEY, "");
    assert_string_equal(reply_header(&r, "Allow"), "GET, HEAD, OPTIONS");
    reply_free(&r);
    expect("GET", "/version?x=1", KEY, 200, "\"version\":");
}

static void test_keys(void **state)
{
    static const char *const guarded[] = { "/v1/models", "/metrics", "/version", "/nowhere" };
    static const char *const open[] = { "/health", "/livez", "/readyz", "/ping" };
    (void)state;
    for (size_t i = 0; i < sizeof guarded / sizeof guarded[0]; i++) {
        expect("GET", guarded[i], NULL, 401, "\"code\":\"invalid_api_key\"");
        expect("GET", guarded[i], "Authorization: Bearer wrong\r\n", 401, NULL);
    }
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
        expect("GET", open[i], NULL, 200, "{\"status\":\"ok\"}");
    struct reply r = client_request(port, "POST", "/v1/completions", NULL, "{\"prompt\":\"a\"}");
    assert_int_equal(r.status, 401);
    assert_string_equal(reply_header(&r, "WWW-Authenticate"), "Bearer");
    reply_free(&r);
    r = client_request(port, "POST", "/v1/completions", KEY, "{\"prompt\":\"a\"}");
    assert_int_equal(r.status, 200);
    reply_free(&r);
}

static void test_cors(void **state)
{
    (void)state;
    struct reply r =
        client_request(port, "OPTIONS", "/v1/completions",
                       "Origin: https://b.example\r\nAccess-Control-Request-Method: POST\r\n"
                       "Access-Control-Request-Headers: authorization,x-thing\r\n",
                       NULL);
    assert_int_equal(r.status, 204); /* without a key: browsers send none here */
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "https://b.example");
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Methods"), "POST, OPTIONS");
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Headers"), "authorization,x-thing");
    reply_free(&r);
    r = client_request(port, "GET", "/health", "Origin: https://b.example\r\n", NULL);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "https://b.example");
    assert_string_equal(reply_header(&r, "Vary"), "Origin");
    reply_free(&r);
    r = client_request(port, "GET", "/health", "Origin: https://evil.example\r\n", NULL);
    assert_null(reply_header(&r, "Access-Control-Allow-Origin"));
    reply_free(&r);
    config.allowed_origins = "*";
    r = client_request(port, "GET", "/health", "Origin: https://any.example\r\n", NULL);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "*");
    reply_free(&r);
}

static void test_request_id_header(void **state)
{
    (void)state;
    struct reply r = client_request(port, "GET", "/health", "X-Request-Id: abc\r\n", NULL);
    assert_string_equal(reply_header(&r, "X-Request-Id"), "abc");
    reply_free(&r);
    r = client_request(port, "POST", "/v1/completions", KEY "X-Request-Id: trace-1\r\n",
                       "{\"prompt\":\"a\"}");
    assert_non_null(strstr(buf_str(&r.body), "\"id\":\"cmpl-trace-1\""));
    reply_free(&r);
}

static void test_loading(void **state)
{
    (void)state;
    atomic_store(&engine->state, ENGINE_LOADING);
    expect("GET", "/health", NULL, 503, "loading: starting");
    expect("GET", "/v1/models", KEY, 503, "\"code\":\"loading\"");
    expect("GET", "/metrics", KEY, 503, NULL);
    expect("GET", "/nowhere", KEY, 404, NULL);
    expect("GET", "/v1/models", NULL, 401, NULL);
    expect("GET", "/livez", NULL, 200, NULL);
    atomic_store(&engine->state, ENGINE_DRAINING);
    expect("GET", "/health", NULL, 503, "\"code\":\"shutting_down\"");
    expect("GET", "/metrics", KEY, 200, "vllm:num_requests_running");
}

static void test_wrong_content_type(void **state)
{
    static const char body[] = "{\"prompt\":\"a\"}";
    char head[200];
    (void)state;
    int fd = client_connect(port);
    int len = snprintf(head, sizeof head,
                       "POST /v1/completions HTTP/1.1\r\nHost: t\r\n" KEY
                       "Content-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
                       sizeof body - 1, body);
    client_send(fd, head, (size_t)len);
    struct reply r = client_read(fd);
    assert_int_equal(r.status, 400);
    assert_non_null(strstr(buf_str(&r.body), "unsupported_content_type"));
    reply_free(&r);
    close(fd);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_paths_and_methods), TEST(test_keys),    TEST(test_cors),
        TEST(test_request_id_header), TEST(test_loading), TEST(test_wrong_content_type),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
