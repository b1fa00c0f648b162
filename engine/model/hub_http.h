/* hub_http.h - one HTTP request to a hub or to where it redirects: the only user of libcurl.
 *
 * What every request keeps to: http and https alone; from https a redirect may lead to https only;
 * the token goes to the endpoint's own scheme, host and port and nowhere else; bodies arrive
 * unencoded; a connection that brings nothing for timeout_s is dropped. Proxies come from the
 * environment as libcurl reads it (HTTPS_PROXY, NO_PROXY, ...).
 *
 * A struct hub_http is one connection, kept open between requests: one thread at a time. */
#ifndef INFERD_ENGINE_MODEL_HUB_HTTP_H
#define INFERD_ENGINE_MODEL_HUB_HTTP_H

#include "base/buf.h"
#include "base/status.h"
#include "config/limits.h"
#include <stdatomic.h>
#include <stdint.h>

struct hub_http_options {
    const char *endpoint; /* "https://huggingface.co", without a slash at its end */
    const char *token;    /* NULL: none */
    int32_t timeout_s;    /* without a byte; also for connecting */
    const char *ca_file;  /* certificates to trust; NULL: the system's */
    atomic_bool *stop;    /* once true, running requests end within a second; may be NULL */
};

/* The head of the answer that counts: the last one, behind all redirects. */
struct hub_http_head {
    int32_t code; /* 0: there was none */
    bool has_length, has_range, is_encoded;
    uint64_t length;                             /* Content-Length */
    uint64_t range_begin, range_end, range_size; /* Content-Range; end exclusive; size 0: unknown */
    double retry_after_s;                        /* 0: not said */
    char error_code[64], error_message[160];     /* X-Error-Code, X-Error-Message; printable */
    char url[LIMIT_HUB_URL_BYTES];               /* where it came from */
    bool redirected;                             /* that is not the URL asked for */
    bool left_endpoint;                          /* on the way the token was dropped */
};

/* Takes the body of a 2xx answer; what others send is dropped. `begin` is called before the first
 * byte, also of an empty body. False, with a message in `st`, ends the request. */
struct hub_http_sink {
    bool (*begin)(void *arg, const struct hub_http_head *head, struct status *st);
    bool (*body)(void *arg, const void *data, size_t len, struct status *st);
    void *arg;
};

struct hub_http_request {
    const char *url;
    bool without_token; /* for a URL that is known to be elsewhere */
    bool has_range;     /* asks for bytes begin to end - 1 */
    uint64_t begin, end;
    int32_t max_seconds; /* for all of it; 0: no bound but timeout_s */
    struct hub_http_sink sink;
};

enum hub_http_result {
    HUB_HTTP_OK,      /* 2xx, and the body came as long as announced */
    HUB_HTTP_RETRY,   /* worth another try: a broken connection, 408, 429, 5xx */
    HUB_HTTP_REFUSED, /* an answer that will not change: 401, 403, 404, ..., a bad certificate */
    HUB_HTTP_ENDED    /* by the sink or by `stop` */
};

struct hub_http;

/* `o` and what it points to must outlive it. */
struct hub_http *hub_http_open(const struct hub_http_options *o);
void hub_http_close(struct hub_http *h);
/* `head` is filled as far as it came. Without HUB_HTTP_OK `st` says what happened. */
enum hub_http_result hub_http_get(struct hub_http *h, const struct hub_http_request *r,
                                  struct hub_http_head *head, struct status *st);

/* Pauses between tries: a quarter of a second, doubling up to 8 s; what the server asks for counts
 * when it is longer. */
struct hub_http_pause {
    int32_t failures; /* in a row; zero it after progress */
};
/* False when it is not worth waiting: too many failures, too long a pause, or `stop`; `st`, which
 * says what failed last, is completed then. */
bool hub_http_pause(struct hub_http *h, struct hub_http_pause *p, double retry_after_s,
                    struct status *st);

/* Appends text with everything but unreserved characters percent-encoded; '/' too unless kept. */
void hub_http_escape(struct buf *out, const char *text, bool keep_slash);

#endif
