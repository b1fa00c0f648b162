/* models.c - GET /v1/models and /v1/models/{id}: the names this server answers to. */
#include "server/api/api.h"
#include "server/api_error.h"
#include "server/json.h"
#include "server/server.h"

#include <string.h>

static void put_model(const struct server *s, const char *name, struct json_writer *w)
{
    const struct engine_info *info = engine_info(s->engine);
    json_open_object(w);
    json_key(w, "id");
    json_put_string(w, name);
    json_key(w, "object");
    json_put_string(w, "model");
    json_key(w, "created");
    json_put_int(w, s->started_unix_s);
    json_key(w, "owned_by");
    json_put_string(w, "inferd");
    json_key(w, "root");
    json_put_string(w, info->model_path);
    json_key(w, "parent");
    json_put_null(w);
    json_key(w, "max_model_len");
    json_put_int(w, info->max_model_len);
    json_close_object(w);
}

void api_models(struct exchange *x)
{
    const struct server *s = x->app;
    struct buf body;
    struct json_writer w;
    buf_init(&body, 0);
    json_writer_init(&w, &body);
    json_open_object(&w);
    json_key(&w, "object");
    json_put_string(&w, "list");
    json_key(&w, "data");
    json_open_array(&w);
    for (int32_t i = 0; i < s->num_names; i++)
        put_model(s, s->names[i], &w);
    json_close_array(&w);
    json_close_object(&w);
    exchange_respond(x, 200, "application/json", &body);
}

void api_model(struct exchange *x)
{
    const struct server *s = x->app;
    const char *name;
    struct status st;
    struct buf body;
    struct json_writer w;
    if (!server_check_model(s, x->path + strlen("/v1/models/"), &name, &st)) {
        api_error_respond(x, &st);
        return;
    }
    buf_init(&body, 0);
    json_writer_init(&w, &body);
    put_model(s, name, &w);
    exchange_respond(x, 200, "application/json", &body);
}
