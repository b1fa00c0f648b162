/* http.h - the HTTP server, and the only user of libmicrohttpd.
 *
 * One thread per connection, bounded in number. Each HTTP request becomes a struct exchange, which
 * belongs to its connection's thread from the header to the last byte sent, when it is freed. The
 * callbacks in http_options run on that thread: `screen` when the header is in, `handle` when the
 * body is, `completed` when the answer has left or the client has. A connection whose header
 * does not come in time is closed, and at the limit of connections the one that has been idle
 * longest makes room; where none is idle the new client reads 503.
 *
 * Answers that the HTTP library gives by itself, to bytes that are no HTTP, carry no JSON body. */
#ifndef INFERD_SERVER_HTTP_H
#define INFERD_SERVER_HTTP_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_server;
struct exchange;

/* What an exchange cost, for the access log; filled by the endpoint. */
struct exchange_report {
    int32_t num_prompt_tokens, num_cached_tokens, num_output_tokens;
    double queue_s, prefill_s, decode_s;
};

/* A body produced piece by piece. `next` appends what to send and may sleep while it has nothing;
 * false: that was all. It must return soon after exchange_gone says so. `release` is called once,
 * when the exchange ends, however it ends. */
struct exchange_stream {
    bool (*next)(void *state, struct buf *out);
    void (*release)(void *state);
    void *state;
};

struct exchange_header {
    struct exchange_header *next;
    const char *name, *value;
};

/* The connection thread's alone. What the callbacks may read and write: */
struct exchange {
    struct arena arena; /* freed with the exchange */
    const char *method; /* "POST" */
    const char *path;   /* decoded, without the query */
    char id[48];        /* the client's X-Request-Id where that is plain, else a drawn one */
    const char *body;   /* NUL-terminated; empty while `screen` runs */
    size_t body_len;
    uint64_t arrival_ns;
    void *app; /* http_options.app */
    struct exchange_report report;

    /* private to http.c */
    struct http_server *server;
    struct http_connection *connection;
    struct MHD_Connection *mhd;
    struct buf gathered, pending;
    size_t pending_sent;
    struct exchange_header *headers;
    struct exchange_stream stream;
    int http_status; /* 0: no answer yet */
    const char *content_type;
    uint64_t gone_checked_ns;
    bool active, gone, stream_ended, body_too_large, no_memory, lingers;
};

struct http_options {
    const char *host; /* address or name; "0.0.0.0" and "::" mean all */
    int32_t port;     /* 0: any free one */
    int32_t max_connections;
    size_t max_body_bytes;
    double idle_timeout_s; /* a connection that sends or takes nothing for this long is closed */
    /* A new connection's first header, and any body, must be whole within these times, however
     * steadily their bytes come; 0: the limits of config/limits.h. */
    double header_timeout_s, body_timeout_s;
    /* May answer; then `handle` is not called and a body of any size is not waited for. NULL: none
     */
    void (*screen)(struct exchange *x);
    void (*handle)(struct exchange *x);    /* must answer */
    void (*completed)(struct exchange *x); /* may be NULL */
    void *app;
};

/* Binds, listens and serves at once. `options` is copied, its host must live on. The caller has
 * blocked the signals it wants to receive, since the threads inherit its mask. */
bool http_start(const struct http_options *options, struct http_server **out, struct status *st);
/* "http://127.0.0.1:8000", with an address a client on this machine can use. */
const char *http_url(const struct http_server *h);
int32_t http_port(const struct http_server *h);
int32_t http_num_connections(struct http_server *h);
/* Exchanges whose body is in and whose answer has not left. */
int32_t http_num_active(struct http_server *h);
/* Stops listening; what is connected goes on, and every answer from now closes its connection. */
void http_quiesce(struct http_server *h);
/* Closes what is left, ends all threads, frees. Any `next` in progress sees exchange_gone. */
void http_stop(struct http_server *h);

/* --- on the exchange's own thread --- */
/* A header of the request, or NULL; names compare without case. */
const char *exchange_header(const struct exchange *x, const char *name);
/* Adds a header to the answer; both texts are copied. A value that holds a control character is
 * left out. Before exchange_respond or exchange_stream. */
void exchange_set_header(struct exchange *x, const char *name, const char *value);
/* Answers with a whole body, whose memory is taken over (`body` is empty afterwards). */
void exchange_respond(struct exchange *x, int http_status, const char *content_type,
                      struct buf *body);
/* Answers 200 with a body that `stream` gives. `stream` is copied. */
void exchange_respond_stream(struct exchange *x, const char *content_type,
                             const struct exchange_stream *stream);
bool exchange_answered(const struct exchange *x);
/* Frees the body early, once it has been parsed. */
void exchange_drop_body(struct exchange *x);
/* Whether the client has left or the server closes. Asks the system at most every 50 ms. */
bool exchange_gone(struct exchange *x);

#endif
