/* metrics.c - GET /metrics: the engine's counters in Prometheus text. */
#include "server/api/api.h"
#include "server/server.h"

void api_metrics(struct exchange *x)
{
    const struct server *s = x->app;
    struct buf body;
    buf_init(&body, 0);
    metrics_render(engine_metrics(s->engine), &body);
    exchange_respond(x, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}
