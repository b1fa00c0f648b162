/* Tests of http.h with handlers of the test's own: bodies, limits, streams, clients that hang. */
#include "tests/server/http_client.h"
#include "base/clock.h"
#include "server/http.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <cmocka.h>

static struct http_server *http;
static struct http_options options;
static int port;
static _Atomic int num_completed, num_released, num_gone;

static void respond_text(struct exchange *x, int status, const char *text, size_t len)
{
    struct buf body;
    buf_init(&body, 0);
    buf_append(&body, text, len);
    exchange_respond(x, status, "text/plain", &body);
}

/* /endless streams "tick" every 10 ms until the client leaves; /count five times. */
static bool next_tick(void *state, struct buf *out)
{
    struct exchange *x = state;
    poll(NULL, 0, 10);
    if (exchange_gone(x)) {
        atomic_fetch_add(&num_gone, 1);
        return false;
    }
    buf_append_str(out, "tick\n");
    return strcmp(x->path, "/endless") == 0 || ++x->report.num_output_tokens < 5;
}

static void release(void *state)
{
    (void)state;
    atomic_fetch_add(&num_released, 1);
}

/* /slow-stream has nothing to send for longer than a client may be silent. */
static bool next_late(void *state, struct buf *out)
{
    (void)state;
    poll(NULL, 0, 1500);
    buf_append_str(out, "late");
    return false;
}

static void handle(struct exchange *x)
{
    struct exchange_stream stream = { .next = next_tick, .release = release, .state = x };
    if (strcmp(x->path, "/endless") == 0 || strcmp(x->path, "/count") == 0) {
        exchange_respond_stream(x, "text/plain", &stream);
    } else if (strcmp(x->path, "/slow-stream") == 0) {
        stream.next = next_late;
        exchange_respond_stream(x, "text/plain", &stream);
    } else if (strcmp(x->path, "/slow") == 0) {
        poll(NULL, 0, 1500);
        respond_text(x, 200, "late", 4);
    } else if (strcmp(x->path, "/wait") == 0) {
        while (!exchange_gone(x))
            poll(NULL, 0, 10);
        atomic_fetch_add(&num_gone, 1);
        respond_text(x, 200, "gone", 4);
    } else if (strcmp(x->path, "/id") == 0) {
        exchange_set_header(x, "X-Bad", "a\r\nInjected: yes");
        exchange_set_header(x, "X-Good", "b");
        respond_text(x, 200, x->id, strlen(x->id));
    } else if (strcmp(x->path, "/forgotten") == 0) {
        return;
    } else {
        respond_text(x, 200, x->body, x->body_len);
    }
}

static void screen(struct exchange *x)
{
    if (strcmp(x->path, "/forbidden") == 0)
        respond_text(x, 403, "no", 2);
}

static void completed(struct exchange *x)
{
    (void)x;
    atomic_fetch_add(&num_completed, 1);
}

static void start(void)
{
    struct status st;
    atomic_store(&num_completed, 0);
    atomic_store(&num_released, 0);
    atomic_store(&num_gone, 0);
    if (!http_start(&options, &http, &st))
        fail_msg("%s", st.message);
    port = http_port(http);
}

static int set_up(void **state)
{
    (void)state;
    options = (struct http_options){ .host = "127.0.0.1",
                                     .max_connections = 64,
                                     .max_body_bytes = 1 << 20,
                                     .idle_timeout_s = 30,
                                     .screen = screen,
                                     .handle = handle,
                                     .completed = completed };
    start();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (http)
        http_stop(http);
    http = NULL;
    return 0;
}

static void restart(void)
{
    http_stop(http);
    start();
}

static void wait_until(_Atomic int *value, int wanted)
{
    for (int i = 0; i < 500 && atomic_load(value) < wanted; i++)
        poll(NULL, 0, 10);
    assert_int_equal(atomic_load(value), wanted);
}

static void wait_connections(int wanted)
{
    for (int i = 0; i < 500 && http_num_connections(http) != wanted; i++)
        poll(NULL, 0, 10);
    assert_int_equal(http_num_connections(http), wanted);
}

static void expect(struct reply r, int status, const char *body)
{
    if (r.status != status || (body && strcmp(buf_str(&r.body), body) != 0))
        fail_msg("status %d, body %.200s", r.status, buf_str(&r.body));
    reply_free(&r);
}

static void test_echo_and_keepalive(void **state)
{
    (void)state;
    int fd = client_connect(port);
    for (int i = 0; i < 3; i++) {
        client_send_request(fd, "POST", "/echo", NULL, "some body", 9);
        expect(client_read(fd), 200, "some body");
    }
    client_send_request(fd, "GET", "/echo", NULL, NULL, 0);
    expect(client_read(fd), 200, "");
    assert_int_equal(http_num_connections(http), 1);
    close(fd);
    wait_connections(0);
    wait_until(&num_completed, 4);
}

static void test_large_body(void **state)
{
    (void)state;
    size_t len = 1 << 20;
    char *body = malloc(len + 1);
    memset(body, 'x', len);
    body[len] = '\0';
    expect(client_request(port, "POST", "/echo", NULL, body), 200, body);
    free(body);
}

static void test_head(void **state)
{
    (void)state;
    int fd = client_connect(port);
    static const char head[] = "HEAD /id HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    client_send(fd, head, sizeof head - 1);
    struct buf raw = { 0 };
    client_fill(fd, &raw, SIZE_MAX);
    assert_int_equal(strncmp(raw.data, "HTTP/1.1 200", 12), 0);
    const char *end = strstr(raw.data, "\r\n\r\n");
    assert_string_equal(end, "\r\n\r\n"); /* a length, but no body */
    buf_free(&raw);
    close(fd);
}

static void test_announced_body_too_large(void **state)
{
    (void)state;
    uint64_t start_ns = clock_now_ns();
    int fd = client_connect(port);
    /* Nothing of the body is sent: the answer must not wait for it. */
    client_send_request(fd, "POST", "/echo", "Content-Length: 104857600\r\n", NULL, 0);
    struct reply r = client_read(fd);
    assert_int_equal(r.status, 413);
    assert_non_null(strstr(buf_str(&r.body), "\"code\":\"request_too_large\""));
    assert_true(clock_seconds_between(start_ns, clock_now_ns()) < 1);
    reply_free(&r);
    close(fd);
    /* A client that sends all of it first still gets to read the answer. */
    size_t len = (size_t)8 << 20;
    char *body = malloc(len + 1);
    memset(body, 'x', len);
    body[len] = '\0';
    fd = client_connect(port);
    client_send_request(fd, "POST", "/echo", NULL, body, len);
    expect(client_read(fd), 413, NULL);
    close(fd);
    free(body);
    expect(client_request(port, "GET", "/echo", NULL, NULL), 200, "");
}

static bool send_chunk(int fd, const char *data, size_t len)
{
    char head[32];
    int n = snprintf(head, sizeof head, "%zx\r\n", len);
    return client_send(fd, head, (size_t)n) && client_send(fd, data, len) &&
           client_send(fd, "\r\n", 2);
}

static void test_chunked_bodies(void **state)
{
    static char chunk[65536];
    static const char head[] =
        "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    (void)state;
    int fd = client_connect(port);
    client_send(fd, head, sizeof head - 1);
    send_chunk(fd, "he", 2);
    send_chunk(fd, "llo", 3);
    send_chunk(fd, "", 0);
    expect(client_read(fd), 200, "hello");
    close(fd);
    /* Over the limit: read to its end, answered 413. */
    memset(chunk, 'y', sizeof chunk);
    fd = client_connect(port);
    client_send(fd, head, sizeof head - 1);
    for (int i = 0; i < 32; i++)
        assert_true(send_chunk(fd, chunk, sizeof chunk));
    send_chunk(fd, "", 0);
    expect(client_read(fd), 413, NULL);
    close(fd);
    /* Endless: cut off. */
    fd = client_connect(port);
    client_send(fd, head, sizeof head - 1);
    int sent = 0;
    while (sent < 4096 && send_chunk(fd, chunk, sizeof chunk))
        sent++;
    assert_in_range(sent, 32, 1024);
    close(fd);
    wait_connections(0);
}

static void test_expect_continue(void **state)
{
    char line[64] = "";
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n"
                               "Expect: 100-continue\r\n\r\n";
    (void)state;
    int fd = client_connect(port);
    client_send(fd, head, sizeof head - 1);
    assert_true(recv(fd, line, 25, MSG_WAITALL) == 25);
    assert_int_equal(strncmp(line, "HTTP/1.1 100 Continue\r\n\r\n", 25), 0);
    client_send(fd, "ok", 2);
    expect(client_read(fd), 200, "ok");
    close(fd);
}

static void test_screen_answers(void **state)
{
    (void)state;
    int fd = client_connect(port);
    client_send_request(fd, "POST", "/forbidden", NULL, "small", 5);
    expect(client_read(fd), 403, "no");
    client_send_request(fd, "GET", "/echo", NULL, NULL, 0); /* the connection lives on */
    expect(client_read(fd), 200, "");
    close(fd);
    fd = client_connect(port); /* a large body is not waited for */
    client_send_request(fd, "POST", "/forbidden", "Content-Length: 900000\r\n", NULL, 0);
    expect(client_read(fd), 403, "no");
    close(fd);
    expect(client_request(port, "GET", "/forgotten", NULL, NULL), 500, NULL);
}

static void test_request_ids(void **state)
{
    (void)state;
    struct reply r = client_request(port, "GET", "/id", "X-Request-Id: my-id.7\r\n", NULL);
    assert_string_equal(buf_str(&r.body), "my-id.7");
    assert_string_equal(reply_header(&r, "X-Good"), "b");
    assert_null(reply_header(&r, "Injected"));
    assert_null(reply_header(&r, "X-Bad"));
    reply_free(&r);
    struct reply a = client_request(port, "GET", "/id", "X-Request-Id: has space\r\n", NULL);
    struct reply b = client_request(port, "GET", "/id", NULL, NULL);
    assert_int_equal(a.body.len, 32);
    assert_int_equal(b.body.len, 32);
    assert_string_not_equal(buf_str(&a.body), buf_str(&b.body));
    reply_free(&a);
    reply_free(&b);
}

static void test_stream(void **state)
{
    (void)state;
    expect(client_request(port, "GET", "/count", NULL, NULL), 200,
           "tick\ntick\ntick\ntick\ntick\n");
    wait_until(&num_released, 1);
}

/* A computation longer than the idle timeout is no idleness of the client. */
static void test_slow_answers_outlive_the_timeout(void **state)
{
    (void)state;
    options.idle_timeout_s = 1;
    restart();
    expect(client_request(port, "GET", "/slow", NULL, NULL), 200, "late");
    expect(client_request(port, "GET", "/slow-stream", NULL, NULL), 200, "late");
}

static void test_gone_clients(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        int fd = client_connect(port);
        client_send_request(fd, "GET", i % 2 ? "/endless" : "/wait", NULL, NULL, 0);
        poll(NULL, 0, 5);
        close(fd);
    }
    wait_until(&num_completed, 20);
    wait_until(&num_released, 10);
    wait_connections(0);
    assert_int_equal(http_num_active(http), 0);
    /* The ten that wait without sending are told within two checks. */
    int fd = client_connect(port);
    client_send_request(fd, "GET", "/wait", NULL, NULL, 0);
    poll(NULL, 0, 100);
    int before = atomic_load(&num_gone);
    close(fd);
    uint64_t start_ns = clock_now_ns();
    wait_until(&num_gone, before + 1);
    assert_true(clock_seconds_between(start_ns, clock_now_ns()) < 0.5);
}

static void test_half_open_connections_are_closed(void **state)
{
    int fds[40];
    char byte;
    (void)state;
    options.header_timeout_s = 0.3;
    restart();
    for (int i = 0; i < 40; i++) {
        fds[i] = client_connect(port);
        client_send(fds[i], "GET / HT", 8);
    }
    expect(client_request(port, "GET", "/echo", NULL, NULL), 200, ""); /* at once */
    uint64_t start_ns = clock_now_ns();
    for (int i = 0; i < 40; i++) {
        while (clock_seconds_between(start_ns, clock_now_ns()) < 5 &&
               recv(fds[i], &byte, 1, MSG_DONTWAIT) != 0) {
            client_send(fds[i], "x", 1); /* a byte now and then does not help */
            poll(NULL, 0, 20);
        }
        close(fds[i]);
    }
    assert_true(clock_seconds_between(start_ns, clock_now_ns()) < 3);
    wait_connections(0);
}

static void test_slow_bodies_are_cut_off(void **state)
{
    char byte;
    (void)state;
    options.body_timeout_s = 0.3;
    restart();
    int fd = client_connect(port);
    client_send_request(fd, "POST", "/echo", "Content-Length: 1000\r\n", NULL, 0);
    uint64_t start_ns = clock_now_ns();
    while (clock_seconds_between(start_ns, clock_now_ns()) < 5 &&
           recv(fd, &byte, 1, MSG_DONTWAIT) != 0) {
        client_send(fd, "x", 1);
        poll(NULL, 0, 20);
    }
    assert_true(clock_seconds_between(start_ns, clock_now_ns()) < 3);
    close(fd);
}

static void test_connection_limit(void **state)
{
    int idle[8], busy[8];
    (void)state;
    options.max_connections = 8;
    restart();
    for (int i = 0; i < 8; i++)
        idle[i] = client_connect(port);
    wait_connections(8);
    /* The oldest idle one makes room, again and again. */
    for (int i = 0; i < 8; i++) {
        busy[i] = client_connect(port);
        client_send_request(busy[i], "GET", "/wait", NULL, NULL, 0);
        for (int k = 0; k < 500 && http_num_active(http) != i + 1; k++)
            poll(NULL, 0, 10);
    }
    assert_int_equal(http_num_active(http), 8);
    /* None is idle now: the next client reads why. */
    struct reply r = client_request(port, "GET", "/echo", NULL, NULL);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(buf_str(&r.body), "--max-connections"));
    reply_free(&r);
    for (int i = 0; i < 8; i++) {
        close(idle[i]);
        close(busy[i]);
    }
    wait_connections(0);
    expect(client_request(port, "GET", "/echo", NULL, NULL), 200, "");
}

static void test_quiesce(void **state)
{
    (void)state;
    int kept = client_connect(port), streaming = client_connect(port);
    client_send_request(kept, "GET", "/echo", NULL, NULL, 0);
    expect(client_read(kept), 200, "");
    client_send_request(streaming, "GET", "/count", NULL, NULL, 0);
    wait_connections(2);
    http_quiesce(http);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_not_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
    expect(client_read(streaming), 200, "tick\ntick\ntick\ntick\ntick\n");
    client_send_request(kept, "GET", "/echo", NULL, NULL, 0);
    struct reply r = client_read(kept);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "Connection"), "close");
    reply_free(&r);
    close(kept);
    close(streaming);
}

static void test_stop_ends_everything(void **state)
{
    int fd[6];
    (void)state;
    for (int i = 0; i < 6; i++) {
        fd[i] = client_connect(port);
        client_send_request(fd[i], "GET", i % 2 ? "/endless" : "/wait", NULL, NULL, 0);
    }
    for (int i = 0; i < 500 && http_num_active(http) < 6; i++)
        poll(NULL, 0, 10);
    http_stop(http);
    http = NULL;
    assert_int_equal(atomic_load(&num_completed), 6);
    assert_int_equal(atomic_load(&num_released), 3);
    for (int i = 0; i < 6; i++)
        close(fd[i]);
}

static void test_addresses(void **state)
{
    struct http_server *other;
    struct status st;
    (void)state;
    struct http_options second = options;
    second.port = port;
    assert_false(http_start(&second, &other, &st));
    assert_non_null(strstr(st.message, "another --port"));
    second.port = 0;
    second.host = "no.such.host.invalid";
    assert_false(http_start(&second, &other, &st));
    assert_non_null(strstr(st.message, "--host"));
    second.host = "::";
    if (!http_start(&second, &other, &st)) {
        print_message("skip: no IPv6 here: %s\n", st.message);
        return;
    }
    assert_int_equal(strncmp(http_url(other), "http://[::1]:", 13), 0);
    expect(client_request(http_port(other), "GET", "/echo", NULL, NULL), 200, ""); /* over IPv4 */
    http_stop(other);
}

static void *hammer(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++)
        expect(client_request(port, "POST", "/echo", NULL, "abc"), 200, "abc");
    return NULL;
}

static void test_many_at_once(void **state)
{
    pthread_t threads[16];
    (void)state;
    for (int i = 0; i < 16; i++)
        pthread_create(&threads[i], NULL, hammer, NULL);
    for (int i = 0; i < 16; i++)
        pthread_join(threads[i], NULL);
    wait_until(&num_completed, 1600);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_echo_and_keepalive),
        TEST(test_large_body),
        TEST(test_head),
        TEST(test_announced_body_too_large),
        TEST(test_chunked_bodies),
        TEST(test_expect_continue),
        TEST(test_screen_answers),
        TEST(test_request_ids),
        TEST(test_stream),
        TEST(test_slow_answers_outlive_the_timeout),
        TEST(test_gone_clients),
        TEST(test_half_open_connections_are_closed),
        TEST(test_slow_bodies_are_cut_off),
        TEST(test_connection_limit),
        TEST(test_quiesce),
        TEST(test_stop_ends_everything),
        TEST(test_addresses),
        TEST(test_many_at_once),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
