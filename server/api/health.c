/* health.c - GET /health, /readyz and /ping: does it serve; /livez: does the process work at all;
 * /version. None of them waits for the engine. */
#include "server/api/api.h"
#include "server/api_error.h"
#include "server/json.h"
#include "server/server.h"

static void respond_pair(struct exchange *x, const char *key, const char *value)
{
    struct buf body;
    struct json_writer w;
    buf_init(&body, 0);
    json_writer_init(&w, &body);
    json_open_object(&w);
    json_key(&w, key);
    json_put_string(&w, value);
    json_close_object(&w);
    exchange_respond(x, 200, "application/json", &body);
}

void api_health(struct exchange *x)
{
    struct status st;
    if (server_check_ready(x->app, &st))
        respond_pair(x, "status", "ok");
    else
        api_error_respond(x, &st);
}

void api_live(struct exchange *x)
{
    respond_pair(x, "status", "ok");
}

void api_version(struct exchange *x)
{
    respond_pair(x, "version", INFERD_VERSION);
}
