/* hub_http.c - libcurl, one easy handle per connection. Redirects are followed here and not by
 * libcurl, so that the rules about tokens and schemes are the same in every version of it. */
#include "engine/model/hub_http.h"
#include "base/alloc.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    SLOW_BYTES_PER_SECOND = 1024, /* below that for timeout_s a connection counts as dead */
    RECEIVE_BYTES = 256 << 10,
    FIRST_PAUSE_MS = 250,
    LONGEST_PAUSE_MS = 8000,
    NAP_MS = 50 /* how soon a pause notices `stop` */
};

struct hub_http {
    const struct hub_http_options *options;
    CURL *curl;
    /* of the request in progress */
    const struct hub_http_request *request;
    struct hub_http_head *head;
    struct status *st;
    char location[LIMIT_HUB_URL_BYTES]; /* where this answer redirects to; empty: nowhere */
    bool begun;                         /* the sink's begin was called */
    bool ended;                         /* the sink said stop */
    char error[CURL_ERROR_SIZE];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* --- the answer's head -------------------------------------------------------------------------
 */

/* What a server says of itself ends up in logs: one line, ASCII. */
static void copy_printable(char *out, size_t size, const char *text, size_t len)
{
    size_t n = len < size - 1 ? len : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    out[n] = '\0';
}

/* "bytes 0-99/1000" or "bytes 0-99" with the size unknown ("*"). */
static void read_content_range(struct hub_http_head *head, const char *value)
{
    unsigned long long first, last, size = 0;
    int n = sscanf(value, "bytes %llu-%llu/%llu", &first, &last, &size);
    if (n < 2 || last < first || last == UINT64_MAX)
        return;
    head->has_range = true;
    head->range_begin = first;
    head->range_end = last + 1;
    head->range_size = n == 3 ? size : 0;
}

static void read_header(struct hub_http *h, const char *name, const char *value, size_t len)
{
    struct hub_http_head *head = h->head;
    if (strcasecmp(name, "Content-Length") == 0) {
        char *end;
        head->length = strtoull(value, &end, 10);
        head->has_length = end != value && value[0] != '-';
    } else if (strcasecmp(name, "Content-Range") == 0) {
        read_content_range(head, value);
    } else if (strcasecmp(name, "Content-Encoding") == 0) {
        head->is_encoded = strcasecmp(value, "identity") != 0;
    } else if (strcasecmp(name, "Location") == 0) {
        /* One that does not fit stays empty, which is no redirect but an error. */
        if (len < sizeof h->location)
            memcpy(h->location, value, len + 1);
    } else if (strcasecmp(name, "X-Error-Code") == 0) {
        copy_printable(head->error_code, sizeof head->error_code, value, len);
    } else if (strcasecmp(name, "X-Error-Message") == 0) {
        copy_printable(head->error_message, sizeof head->error_message, value, len);
    }
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    struct hub_http *h = arg;
    size_t len = size * count;
    char line[LIMIT_HUB_URL_BYTES + 64];
    while (len > 0 && (data[len - 1] == '\r' || data[len - 1] == '\n' || data[len - 1] == ' '))
        len--;
    if (len >= sizeof line)
        return size * count; /* longer than anything we read */
    memcpy(line, data, len);
    line[len] = '\0';
    if (strncmp(line, "HTTP/", 5) == 0) { /* a new answer, after 100 Continue or a proxy's */
        memset(h->head, 0, offsetof(struct hub_http_head, url));
        h->location[0] = '\0';
        return size * count;
    }
    char *colon = strchr(line, ':');
    if (colon) {
        *colon = '\0';
        const char *value = colon + 1 + strspn(colon + 1, " \t");
        read_header(h, line, value, strlen(value));
    }
    return size * count;
}

/* --- the body ----------------------------------------------------------------------------------
 */

static int32_t answer_code(struct hub_http *h)
{
    long code = 0;
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &code);
    return code > 0 && code < 1000 ? (int32_t)code : 0;
}

static bool begin_body(struct hub_http *h)
{
    const struct hub_http_sink *sink = &h->request->sink;
    if (h->begun)
        return true;
    h->begun = true;
    h->head->code = answer_code(h);
    if (h->head->is_encoded)
        status_set(h->st, STATUS_IO, "the answer is encoded, although that was not asked for");
    else if (!sink->begin || sink->begin(sink->arg, h->head, h->st))
        return true;
    h->ended = true;
    return false;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct hub_http *h = arg;
    const struct hub_http_sink *sink = &h->request->sink;
    size_t len = size * count;
    int32_t code = answer_code(h);
    if (code < 200 || code > 299)
        return len; /* an error page; the head says what counts */
    if (!begin_body(h))
        return 0;
    if (sink->body && !sink->body(sink->arg, data, len, h->st)) {
        h->ended = true;
        return 0;
    }
    return len;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    struct hub_http *h = arg;
    (void)a, (void)b, (void)c, (void)d;
    return h->options->stop && atomic_load(h->options->stop);
}

/* --- one connection ----------------------------------------------------------------------------
 */

struct hub_http *hub_http_open(const struct hub_http_options *o)
{
    pthread_once(&once, init_curl);
    struct hub_http *h = xcalloc(1, sizeof *h);
    h->options = o;
    h->curl = curl_easy_init();
    if (!h->curl)
        abort(); /* no memory for a few kilobytes */
    CURL *c = h->curl;
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, h->error);
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "inferd/" INFERD_VERSION);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    if (o->ca_file)
        curl_easy_setopt(c, CURLOPT_CAINFO, o->ca_file);
    curl_easy_setopt(c, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)o->timeout_s);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES_PER_SECOND);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)o->timeout_s);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, h);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, h);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    return h;
}

void hub_http_close(struct hub_http *h)
{
    if (!h)
        return;
    curl_easy_cleanup(h->curl);
    free(h);
}

/* --- redirects ---------------------------------------------------------------------------------
 */

/* Scheme, host and port of a URL; false when it has none. */
static bool url_origin(const char *url, char *out, size_t size)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool ok = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    if (ok) {
        int n = snprintf(out, size, "%s://%s:%s", scheme, host, port);
        ok = n > 0 && (size_t)n < size;
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return ok;
}

static bool same_origin(const char *a, const char *b)
{
    char x[512], y[512];
    return url_origin(a, x, sizeof x) && url_origin(b, y, sizeof y) && strcasecmp(x, y) == 0;
}

static bool is_https(const char *url)
{
    return strncasecmp(url, "https://", 8) == 0;
}

/* Moves `url` to where the answer points, which may be relative to it. */
static bool follow(struct hub_http *h, char *url, struct status *st)
{
    CURLU *u = curl_url();
    char *next = NULL;
    bool ok = h->location[0] != '\0' && u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_URL, h->location, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_URL, &next, 0) == CURLUE_OK &&
              strlen(next) < LIMIT_HUB_URL_BYTES;
    if (!ok)
        status_set(st, STATUS_IO, "a redirect (%d) does not say where to", h->head->code);
    else if (!is_https(next) && (is_https(url) || strncasecmp(next, "http://", 7) != 0))
        ok = status_set(st, STATUS_IO, "a redirect leads to '%.60s...', which is not https", next);
    else
        memcpy(url, next, strlen(next) + 1);
    curl_free(next);
    curl_url_cleanup(u);
    return ok;
}

/* --- one request -------------------------------------------------------------------------------
 */

static bool is_transient(CURLcode code)
{
    switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_OUT_OF_MEMORY:
        return false;
    default:
        return true;
    }
}

static struct curl_slist *request_headers(const struct hub_http *h, bool with_token)
{
    struct curl_slist *list = curl_slist_append(NULL, "Accept-Encoding: identity");
    if (with_token && h->options->token) {
        struct buf line;
        buf_init(&line, 0);
        buf_printf(&line, "Authorization: Bearer %s", h->options->token);
        list = curl_slist_append(list, buf_str(&line));
        buf_free(&line);
    }
    return list;
}

static CURLcode perform(struct hub_http *h, const char *url, bool with_token)
{
    const struct hub_http_request *r = h->request;
    char range[64];
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)r->begin,
             (unsigned long long)r->end - 1);
    struct curl_slist *headers = request_headers(h, with_token);
    curl_easy_setopt(h->curl, CURLOPT_URL, url);
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(h->curl, CURLOPT_RANGE, r->has_range ? range : NULL);
    curl_easy_setopt(h->curl, CURLOPT_TIMEOUT, (long)r->max_seconds);
    memset(h->head, 0, offsetof(struct hub_http_head, url));
    h->location[0] = h->error[0] = '\0';
    h->begun = h->ended = false;
    CURLcode code = curl_easy_perform(h->curl);
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    h->head->code = answer_code(h);
    return code;
}

static enum hub_http_result failed_transfer(struct hub_http *h, CURLcode code, struct status *st)
{
    if (h->ended)
        return HUB_HTTP_ENDED; /* the sink has set st */
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        status_set(st, STATUS_CANCELLED, "stopped");
        return HUB_HTTP_ENDED;
    }
    status_set(st, STATUS_UNAVAILABLE, "%s", h->error[0] ? h->error : curl_easy_strerror(code));
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
        status_prefix(st, "the server's certificate is not trusted here (package "
                          "ca-certificates, or SSL_CERT_FILE): ");
    return is_transient(code) ? HUB_HTTP_RETRY : HUB_HTTP_REFUSED;
}

static enum hub_http_result judge_code(struct hub_http *h, struct status *st)
{
    const struct hub_http_head *head = h->head;
    curl_off_t seconds = 0;
    if (head->code >= 200 && head->code <= 299)
        return begin_body(h) ? HUB_HTTP_OK : HUB_HTTP_ENDED;
    if (curl_easy_getinfo(h->curl, CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK && seconds > 0)
        h->head->retry_after_s = (double)seconds;
    bool retry = head->code == 408 || head->code == 429 || head->code >= 500;
    status_set(st,
               head->code == 401   ? STATUS_UNAUTHORIZED
               : head->code == 403 ? STATUS_FORBIDDEN
               : head->code == 404 ? STATUS_NOT_FOUND
                                   : STATUS_UNAVAILABLE,
               "the server answers %d%s%s%s%s", head->code, head->error_code[0] ? " " : "",
               head->error_code, head->error_message[0] ? ": " : "", head->error_message);
    return retry ? HUB_HTTP_RETRY : HUB_HTTP_REFUSED;
}

static bool is_redirect(int32_t code)
{
    return code == 301 || code == 302 || code == 303 || code == 307 || code == 308;
}

enum hub_http_result hub_http_get(struct hub_http *h, const struct hub_http_request *r,
                                  struct hub_http_head *head, struct status *st)
{
    memset(head, 0, sizeof *head);
    h->request = r;
    h->head = head;
    h->st = st;
    snprintf(head->url, sizeof head->url, "%s", r->url);
    bool at_home = !r->without_token && same_origin(r->url, h->options->endpoint);
    for (int32_t hops = 0; hops <= LIMIT_HUB_REDIRECTS; hops++) {
        CURLcode code = perform(h, head->url, at_home);
        head->redirected = hops > 0;
        head->left_endpoint = !at_home;
        if (code != CURLE_OK)
            return failed_transfer(h, code, st);
        if (!is_redirect(head->code))
            return judge_code(h, st);
        if (!follow(h, head->url, st))
            return HUB_HTTP_REFUSED;
        /* Once away it stays away: a way back through a stranger is not trusted with the token. */
        at_home = at_home && same_origin(head->url, h->options->endpoint);
    }
    status_set(st, STATUS_IO, "more than %d redirects", LIMIT_HUB_REDIRECTS);
    return HUB_HTTP_REFUSED;
}

/* --- pauses ------------------------------------------------------------------------------------
 */

bool hub_http_pause(struct hub_http *h, struct hub_http_pause *p, double retry_after_s,
                    struct status *st)
{
    const struct timespec nap = { .tv_nsec = NAP_MS * 1000000L };
    int64_t pause_ms = FIRST_PAUSE_MS;
    if (++p->failures >= LIMIT_HUB_FAILURES)
        return status_prefix(st, "given up after %d tries: ", p->failures);
    if (retry_after_s > LIMIT_HUB_RETRY_AFTER_SECONDS)
        return status_prefix(st, "the server asks to come back in %.0f s: ", retry_after_s);
    for (int32_t i = 1; i < p->failures && pause_ms < LONGEST_PAUSE_MS; i++)
        pause_ms *= 2;
    if (retry_after_s * 1e3 > (double)pause_ms)
        pause_ms = (int64_t)(retry_after_s * 1e3);
    for (int64_t slept = 0; slept < pause_ms; slept += NAP_MS) {
        if (h->options->stop && atomic_load(h->options->stop))
            return status_set(st, STATUS_CANCELLED, "stopped");
        nanosleep(&nap, NULL);
    }
    return true;
}

void hub_http_escape(struct buf *out, const char *text, bool keep_slash)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c) || (keep_slash && c == '/');
        if (plain)
            buf_append_char(out, (char)c);
        else
            buf_printf(out, "%%%02X", c);
    }
}
