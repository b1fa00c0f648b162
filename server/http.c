/* http.c - libmicrohttpd behind struct exchange: threads, limits, bodies, streams, vanished
 * clients.
 *
 * The library looks at its inactivity timeout only between callbacks and would count the time an
 * answer takes to compute as silence of the client; so the timeout is off while a callback works.
 */
#include "server/http.h"
#include "server/api_error.h"
#include "server/http_connections.h"
#include "server/http_socket.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "config/limits.h"

#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Stack of a connection thread. The sanitizers widen every frame. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES ((size_t)LIMIT_CONNECTION_STACK_BYTES * 4)
#else
#define STACK_BYTES ((size_t)LIMIT_CONNECTION_STACK_BYTES)
#endif

enum {
    /* Clients past the limit that are still accepted, so that they read 503 and not a reset. */
    EXTRA_CONNECTIONS = 64,
    GONE_CHECK_MS = 50,
    STREAM_BLOCK_BYTES = 16 << 10,
    LINGER_MS = 2000, /* after an early answer, the rest of a body is read and dropped so long */
    SMALL_BODY_BYTES = 64 << 10
};

struct http_server {
    struct http_options options;
    struct MHD_Daemon *daemon;
    int32_t port;
    char url[128];
    unsigned idle_timeout_s;
    uint64_t id_prefix; /* of the request ids drawn here */
    _Atomic uint64_t num_ids;
    _Atomic bool draining, stopping;
    _Atomic int32_t num_active;
    size_t max_bodies_bytes;
    _Atomic size_t body_bytes; /* gathered and not yet freed, over all connections */
    struct http_connections connections;
};

/* Runs on the accepting thread, for both ends of a connection's life. */
static void on_connection(void *cls, struct MHD_Connection *mhd, void **slot,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_server *h = cls;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*slot)
            http_connections_remove(&h->connections, *slot);
        *slot = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    *slot = http_connections_add(&h->connections, info->connect_fd);
}

/* --- one exchange ------------------------------------------------------------------------------
 */

static void set_timeout(struct exchange *x, unsigned seconds)
{
    MHD_set_connection_option(x->mhd, MHD_CONNECTION_OPTION_TIMEOUT, seconds);
}

/* A client's id goes into our ids, headers and log lines, so only plain ones are taken. */
static bool take_client_id(struct exchange *x)
{
    const char *id = exchange_header(x, "X-Request-Id");
    size_t len = id ? strlen(id) : 0;
    if (len == 0 || len > 40)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!strchr("-_.:", id[i]) && !(id[i] >= '0' && id[i] <= '9') &&
            !(id[i] >= 'a' && id[i] <= 'z') && !(id[i] >= 'A' && id[i] <= 'Z'))
            return false;
    memcpy(x->id, id, len + 1);
    return true;
}

static struct exchange *exchange_new(struct http_server *h, struct MHD_Connection *mhd,
                                     const char *path, const char *method)
{
    struct exchange *x = xcalloc(1, sizeof *x);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    arena_init(&x->arena);
    x->server = h;
    x->connection = info->socket_context;
    x->mhd = mhd;
    x->method = arena_strdup(&x->arena, method);
    x->path = arena_strdup(&x->arena, path);
    x->arrival_ns = clock_now_ns();
    x->app = h->options.app;
    x->body = "";
    buf_init(&x->gathered, h->options.max_body_bytes);
    buf_init(&x->pending, 0);
    if (!take_client_id(x)) {
        uint64_t number = atomic_fetch_add(&h->num_ids, 1);
        struct rng_block words = rng_philox(h->id_prefix, 0, number);
        snprintf(x->id, sizeof x->id, "%08x%08x%08x%08x", words.word[0], words.word[1],
                 words.word[2], words.word[3]);
    }
    return x;
}

static void exchange_free(struct exchange *x)
{
    if (x->stream.release)
        x->stream.release(x->stream.state);
    exchange_drop_body(x);
    buf_free(&x->pending);
    arena_free(&x->arena);
    if (x->active)
        atomic_fetch_sub(&x->server->num_active, 1);
    free(x);
}

const char *exchange_header(const struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->mhd, MHD_HEADER_KIND, name);
}

void exchange_set_header(struct exchange *x, const char *name, const char *value)
{
    for (const char *c = value; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return;
    struct exchange_header *header = arena_alloc(&x->arena, sizeof *header);
    header->name = arena_strdup(&x->arena, name);
    header->value = arena_strdup(&x->arena, value);
    header->next = x->headers;
    x->headers = header;
}

void exchange_respond(struct exchange *x, int http_status, const char *content_type,
                      struct buf *body)
{
    buf_free(&x->pending);
    x->pending = *body;
    buf_init(body, body->max_bytes);
    x->http_status = http_status;
    x->content_type = content_type;
}

void exchange_respond_stream(struct exchange *x, const char *content_type,
                             const struct exchange_stream *stream)
{
    x->stream = *stream;
    x->http_status = 200;
    x->content_type = content_type;
}

bool exchange_answered(const struct exchange *x)
{
    return x->http_status != 0;
}

void exchange_drop_body(struct exchange *x)
{
    atomic_fetch_sub(&x->server->body_bytes, x->gathered.len);
    buf_free(&x->gathered);
    x->body = "";
    x->body_len = 0;
}

bool exchange_gone(struct exchange *x)
{
    uint64_t now = clock_now_ns();
    if (x->gone || now - x->gone_checked_ns < UINT64_C(1000000) * GONE_CHECK_MS)
        return x->gone;
    x->gone_checked_ns = now;
    struct pollfd p = { .fd = x->connection->fd, .events = POLLRDHUP };
    if (poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)))
        x->gone = true;
    return x->gone;
}

/* --- answers ------------------------------------------------------------------------------------
 */

static ssize_t read_stream(void *cls, uint64_t position, char *out, size_t max)
{
    struct exchange *x = cls;
    (void)position;
    while (x->pending_sent == x->pending.len && !x->stream_ended) {
        buf_clear(&x->pending);
        x->pending_sent = 0;
        set_timeout(x, 0);
        x->stream_ended = !x->stream.next(x->stream.state, &x->pending);
        set_timeout(x, x->server->idle_timeout_s);
        if (x->gone)
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t len = x->pending.len - x->pending_sent;
    if (len == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (len > max)
        len = max;
    memcpy(out, x->pending.data + x->pending_sent, len);
    x->pending_sent += len;
    return (ssize_t)len;
}

static struct MHD_Response *make_response(struct exchange *x)
{
    if (x->stream.next)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream,
                                                 x, NULL);
    size_t len = x->pending.len;
    char *body = buf_take(&x->pending);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
    if (!response)
        free(body);
    return response;
}

static enum MHD_Result queue_answer(struct exchange *x)
{
    struct MHD_Response *response = make_response(x);
    if (!response)
        return MHD_NO;
    if (x->content_type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, x->content_type);
    if (x->stream.next)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    for (struct exchange_header *header = x->headers; header; header = header->next)
        MHD_add_response_header(response, header->name, header->value);
    if (atomic_load(&x->server->draining))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result ok = MHD_queue_response(x->mhd, (unsigned)x->http_status, response);
    MHD_destroy_response(response);
    return ok;
}

/* The size that Content-Length announces; 0 where there is none, SIZE_MAX for a chunked body. */
static size_t announced_bytes(const struct exchange *x)
{
    const char *length = exchange_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (exchange_header(x, MHD_HTTP_HEADER_TRANSFER_ENCODING))
        return SIZE_MAX;
    return length ? (size_t)strtoull(length, NULL, 10) : 0;
}

static void refuse_size(struct exchange *x)
{
    struct status st;
    status_set(&st, STATUS_TOO_LARGE,
               "the request body is larger than %zu bytes (--max-body-bytes)",
               x->server->options.max_body_bytes);
    api_error_respond(x, &st);
}

/* The header is in. An answer given now spares the client from sending a large body; a small one
 * is read all the same, which keeps the connection usable. */
static enum MHD_Result begin(struct exchange *x)
{
    struct http_server *h = x->server;
    size_t announced = announced_bytes(x);
    set_timeout(x, h->idle_timeout_s);
    http_connections_set_phase(&h->connections, x->connection, PHASE_RECEIVING);
    if (x->connection->refused) {
        struct status st;
        status_set(&st, STATUS_UNAVAILABLE, "all %d connections are busy (--max-connections)",
                   h->options.max_connections);
        api_error_respond(x, &st);
    } else if (announced != SIZE_MAX && announced > h->options.max_body_bytes) {
        refuse_size(x);
    } else if (h->options.screen) {
        h->options.screen(x);
    }
    if (!exchange_answered(x) || (announced <= SMALL_BODY_BYTES && !x->connection->refused))
        return MHD_YES;
    x->lingers = true;
    exchange_set_header(x, MHD_HTTP_HEADER_CONNECTION, "close");
    return queue_answer(x);
}

/* What is over a limit is read and dropped, within bounds, so that the client gets to read why. */
static enum MHD_Result gather(struct exchange *x, const char *data, size_t len)
{
    struct http_server *h = x->server;
    if (!exchange_answered(x) && !x->body_too_large && !x->no_memory) {
        size_t total = atomic_fetch_add(&h->body_bytes, len) + len;
        size_t before = x->gathered.len;
        if (total > h->max_bodies_bytes)
            x->no_memory = true;
        else
            buf_append(&x->gathered, data, len);
        if (x->gathered.len == before)
            atomic_fetch_sub(&h->body_bytes, len);
        x->body_too_large = x->gathered.overflow;
    }
    x->body_len += len;
    return x->body_len > 4 * h->options.max_body_bytes + SMALL_BODY_BYTES ? MHD_NO : MHD_YES;
}

static enum MHD_Result finish(struct exchange *x)
{
    struct http_server *h = x->server;
    struct status st;
    http_connections_set_phase(&h->connections, x->connection, PHASE_BUSY);
    x->active = true;
    atomic_fetch_add(&h->num_active, 1);
    set_timeout(x, 0);
    if (exchange_answered(x)) {
        /* `screen` has answered */
    } else if (x->body_too_large) {
        refuse_size(x);
    } else if (x->no_memory) {
        status_set(&st, STATUS_UNAVAILABLE, "too many large requests are being received");
        api_error_respond(x, &st);
    } else {
        x->body = buf_str(&x->gathered);
        x->body_len = x->gathered.len;
        h->options.handle(x);
    }
    if (!exchange_answered(x)) {
        status_set(&st, STATUS_INTERNAL, "no answer to %s %s", x->method, x->path);
        api_error_respond(x, &st);
    }
    exchange_drop_body(x);
    enum MHD_Result ok = queue_answer(x);
    set_timeout(x, h->idle_timeout_s);
    return ok;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_len, void **slot)
{
    struct exchange *x = *slot;
    (void)version;
    if (!x) {
        x = exchange_new(cls, mhd, path, method);
        *slot = x;
        return begin(x);
    }
    if (*data_len == 0)
        return finish(x);
    size_t len = *data_len;
    *data_len = 0;
    return gather(x, data, len);
}

/* Closing a socket that holds unread bytes resets the connection, and the client may lose the
 * answer it was about to read. So it is read empty first, for a while. */
static void linger(struct exchange *x)
{
    char dropped[4096];
    uint64_t end = clock_now_ns() + UINT64_C(1000000) * LINGER_MS;
    shutdown(x->connection->fd, SHUT_WR);
    while (clock_now_ns() < end && !atomic_load(&x->server->stopping)) {
        struct pollfd p = { .fd = x->connection->fd, .events = POLLIN };
        if (poll(&p, 1, GONE_CHECK_MS) > 0 &&
            recv(x->connection->fd, dropped, sizeof dropped, MSG_DONTWAIT) <= 0)
            return;
    }
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **slot,
                         enum MHD_RequestTerminationCode code)
{
    struct http_server *h = cls;
    struct exchange *x = *slot;
    (void)mhd;
    if (!x)
        return;
    *slot = NULL;
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        x->gone = true;
    if (h->options.completed)
        h->options.completed(x);
    if (x->lingers && !x->gone)
        linger(x);
    http_connections_set_phase(&h->connections, x->connection, PHASE_IDLE);
    exchange_free(x);
}

/* --- start and stop -----------------------------------------------------------------------------
 */

static void log_library(void *cls, const char *format, va_list args)
{
    char text[512];
    (void)cls;
    vsnprintf(text, sizeof text, format, args);
    log_debug("http: %s", text);
}

static bool start_daemon(struct http_server *h, int listen_fd, struct status *st)
{
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL,
        MHD_OPTION_LISTEN_SOCKET, (MHD_socket)listen_fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)h->options.max_connections + EXTRA_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
        h->idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)LIMIT_HTTP_HEADER_BYTES,
        MHD_OPTION_THREAD_STACK_SIZE, STACK_BYTES, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_END);
    if (h->daemon)
        return true;
    return status_set(st, STATUS_IO, "cannot start the HTTP server on port %d: %s", h->port,
                      errno ? strerror(errno) : "libmicrohttpd refused");
}

static struct connection_limits limits_of(const struct http_options *options)
{
    return (struct connection_limits){
        .max_connections = options->max_connections,
        .header_s =
            options->header_timeout_s > 0 ? options->header_timeout_s : LIMIT_HEADER_SECONDS,
        .idle_s = options->idle_timeout_s,
        .body_s = options->body_timeout_s > 0 ? options->body_timeout_s : LIMIT_BODY_SECONDS,
    };
}

bool http_start(const struct http_options *options, struct http_server **out, struct status *st)
{
    const struct connection_limits limits = limits_of(options);
    struct http_server *h = xcalloc(1, sizeof *h);
    int listen_fd;
    h->options = *options;
    h->idle_timeout_s = options->idle_timeout_s < 1 ? 1 : (unsigned)options->idle_timeout_s;
    h->max_bodies_bytes = 2 * options->max_body_bytes > LIMIT_BODIES_BYTES
                              ? 2 * options->max_body_bytes
                              : LIMIT_BODIES_BYTES;
    rng_system(&h->id_prefix, sizeof h->id_prefix);
    if (!http_socket_listen(options->host, options->port, &listen_fd, st)) {
        free(h);
        return false;
    }
    h->port = http_socket_port(listen_fd);
    http_socket_url(listen_fd, h->url, sizeof h->url);
    if (!http_connections_start(&h->connections, &limits, st)) {
        close(listen_fd);
        free(h);
        return false;
    }
    if (!start_daemon(h, listen_fd, st)) {
        close(listen_fd);
        http_stop(h);
        return false;
    }
    *out = h;
    return true;
}

const char *http_url(const struct http_server *h)
{
    return h->url;
}

int32_t http_port(const struct http_server *h)
{
    return h->port;
}

int32_t http_num_connections(struct http_server *h)
{
    return http_connections_count(&h->connections);
}

int32_t http_num_active(struct http_server *h)
{
    return atomic_load(&h->num_active);
}

void http_quiesce(struct http_server *h)
{
    if (atomic_exchange(&h->draining, true))
        return;
    MHD_socket fd = MHD_quiesce_daemon(h->daemon);
    if (fd == MHD_INVALID_SOCKET)
        return;
    shutdown(fd, SHUT_RDWR); /* the accepting thread may still hold it in poll(2) */
    close(fd);
}

void http_stop(struct http_server *h)
{
    atomic_store(&h->stopping, true);
    http_connections_stop(&h->connections);
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    http_connections_free(&h->connections);
    free(h);
}
