/* routes.c - one row per method and path. */
#include "server/routes.h"
#include "base/clock.h"
#include "base/log.h"
#include "server/api/api.h"
#include "server/api_error.h"
#include "server/server.h"

#include <string.h>

struct route {
    const char *method, *path;
    void (*handle)(struct exchange *x);
    bool needs_auth;  /* a key, where the server has any */
    bool needs_ready; /* the engine must serve, or be ending what it serves */
    bool prefix;      /* the path only begins so, and goes on */
};

static const struct route routes[] = {
    { "POST", "/v1/completions", api_completions, true, true, false },
    { "POST", "/v1/chat/completions", api_chat_completions, true, true, false },
    { "GET", "/v1/models", api_models, true, true, false },
    { "GET", "/v1/models/", api_model, true, true, true },
    { "POST", "/tokenize", api_tokenize, true, true, false },
    { "POST", "/detokenize", api_detokenize, true, true, false },
    { "POST", "/apply-template", api_apply_template, true, true, false },
    { "GET", "/props", api_props, true, true, false },
    { "GET", "/metrics", api_metrics, true, true, false },
    { "GET", "/version", api_version, true, false, false },
    { "GET", "/health", api_health, false, false, false },
    { "GET", "/readyz", api_health, false, false, false },
    { "GET", "/livez", api_live, false, false, false },
    { "GET", "/ping", api_health, false, false, false },
};

enum { NUM_ROUTES = sizeof routes / sizeof routes[0] };

static bool path_matches(const struct route *r, const char *path)
{
    size_t len = strlen(r->path);
    return r->prefix ? strncmp(path, r->path, len) == 0 && path[len] : strcmp(path, r->path) == 0;
}

/* HEAD is GET without a body, which the HTTP layer leaves out. */
static bool method_matches(const struct route *r, const char *method)
{
    return strcmp(r->method, method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0);
}

static const struct route *find(const char *path, const char *method)
{
    for (int i = 0; i < NUM_ROUTES; i++)
        if (path_matches(&routes[i], path) && (!method || method_matches(&routes[i], method)))
            return &routes[i];
    return NULL;
}

/* "GET, HEAD, OPTIONS": what the path answers to. */
static const char *allowed_methods(struct exchange *x)
{
    const char *list = "OPTIONS";
    for (int i = 0; i < NUM_ROUTES; i++)
        if (path_matches(&routes[i], x->path))
            list = arena_printf(&x->arena, "%s%s, %s", routes[i].method,
                                strcmp(routes[i].method, "GET") == 0 ? ", HEAD" : "", list);
    return list;
}

/* --- CORS ---------------------------------------------------------------------------------------
 */

static bool list_holds(const char *list, const char *item)
{
    size_t item_len = strlen(item);
    while (*list) {
        size_t len = strcspn(list, ",");
        if (len == item_len && memcmp(list, item, len) == 0)
            return true;
        list += len + (list[len] == ',');
    }
    return false;
}

static bool allow_origin(struct exchange *x)
{
    const struct server *s = x->app;
    const char *origin = exchange_header(x, "Origin");
    const char *allowed = s->config->allowed_origins;
    if (!origin || !allowed)
        return false;
    if (strcmp(allowed, "*") == 0) {
        exchange_set_header(x, "Access-Control-Allow-Origin", "*");
        return true;
    }
    exchange_set_header(x, "Vary", "Origin");
    if (!list_holds(allowed, origin))
        return false;
    exchange_set_header(x, "Access-Control-Allow-Origin", origin);
    return true;
}

static void respond_options(struct exchange *x, bool origin_allowed)
{
    struct buf empty;
    const char *methods = allowed_methods(x);
    const char *wanted = exchange_header(x, "Access-Control-Request-Headers");
    buf_init(&empty, 0);
    exchange_set_header(x, "Allow", methods);
    if (origin_allowed) {
        exchange_set_header(x, "Access-Control-Allow-Methods", methods);
        exchange_set_header(x, "Access-Control-Allow-Headers",
                            wanted ? wanted : "Authorization, Content-Type");
        exchange_set_header(x, "Access-Control-Max-Age", "600");
    }
    exchange_respond(x, 204, NULL, &empty);
}

/* --- the callbacks ------------------------------------------------------------------------------
 */

static bool check_ready(const struct server *s, struct status *st)
{
    enum engine_state state = engine_state(s->engine);
    return state == ENGINE_READY || state == ENGINE_DRAINING || server_check_ready(s, st);
}

static bool check_route(struct exchange *x, struct status *st)
{
    const struct server *s = x->app;
    const struct route *r = find(x->path, x->method);
    if (!r && find(x->path, NULL)) {
        exchange_set_header(x, "Allow", allowed_methods(x));
        return status_set(st, STATUS_METHOD, "%s is not allowed on %s; use %s", x->method, x->path,
                          allowed_methods(x));
    }
    /* Without a key nothing is said about which paths exist. */
    if ((!r || r->needs_auth) && !auth_check(&s->auth, exchange_header(x, "Authorization"), st))
        return false;
    if (!r) {
        status_set(st, STATUS_NOT_FOUND, "Invalid URL (%s %s)", x->method, x->path);
        return status_detail(st, NULL, "unknown_url");
    }
    return !r->needs_ready || check_ready(s, st);
}

void routes_screen(struct exchange *x)
{
    const struct server *s = x->app;
    struct status st;
    bool origin_allowed = allow_origin(x);
    if (s->config->enable_request_id_headers)
        exchange_set_header(x, "X-Request-Id", x->id);
    if (strcmp(x->method, "OPTIONS") == 0)
        respond_options(x, origin_allowed);
    else if (!check_route(x, &st))
        api_error_respond(x, &st);
}

void routes_handle(struct exchange *x)
{
    find(x->path, x->method)->handle(x); /* routes_screen has found it */
}

static bool is_probe(const char *path)
{
    return strcmp(path, "/health") == 0 || strcmp(path, "/livez") == 0 ||
           strcmp(path, "/readyz") == 0 || strcmp(path, "/ping") == 0 ||
           strcmp(path, "/metrics") == 0;
}

/* Probes come every few seconds for ever; they are worth a line only when they fail. */
void routes_completed(struct exchange *x)
{
    const struct server *s = x->app;
    const struct exchange_report *r = &x->report;
    if (!s->config->log_requests)
        return;
    double seconds = clock_seconds_between(x->arrival_ns, clock_now_ns());
    const char *note = x->gone ? " (client left)" : "";
    if (r->num_prompt_tokens > 0)
        log_info("%s %s %s %d%s prompt=%d cached=%d output=%d queue=%.1fms prefill=%.1fms "
                 "decode=%.1fms total=%.1fms",
                 x->id, x->method, x->path, x->http_status, note, r->num_prompt_tokens,
                 r->num_cached_tokens, r->num_output_tokens, r->queue_s * 1e3, r->prefill_s * 1e3,
                 r->decode_s * 1e3, seconds * 1e3);
    else
        log_line(is_probe(x->path) && x->http_status == 200 ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO,
                 "%s %s %s %d%s total=%.1fms", x->id, x->method, x->path, x->http_status, note,
                 seconds * 1e3);
}
