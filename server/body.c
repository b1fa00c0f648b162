/* body.c - what every POST endpoint checks first. */
#include "server/body.h"
#include "config/limits.h"
#include "server/api_error.h"

#include <string.h>
#include <strings.h>

/* A form or a plain text is refused: browsers send those across sites without asking first. */
static bool check_content_type(const struct exchange *x, struct status *st)
{
    const char *type = exchange_header(x, "Content-Type");
    if (!type)
        return true;
    size_t len = strcspn(type, "; \t");
    if (len == strlen("application/json") && strncasecmp(type, "application/json", len) == 0)
        return true;
    status_set(st, STATUS_INVALID, "Content-Type must be application/json, not '%.100s'", type);
    return status_detail(st, NULL, "unsupported_content_type");
}

static void enter(struct server *s)
{
    pthread_mutex_lock(&s->large_bodies_mutex);
    while (s->num_large_bodies == LIMIT_LARGE_BODIES)
        pthread_cond_wait(&s->large_bodies_changed, &s->large_bodies_mutex);
    s->num_large_bodies++;
    pthread_mutex_unlock(&s->large_bodies_mutex);
}

static void leave(struct server *s)
{
    pthread_mutex_lock(&s->large_bodies_mutex);
    s->num_large_bodies--;
    pthread_cond_signal(&s->large_bodies_changed);
    pthread_mutex_unlock(&s->large_bodies_mutex);
}

static bool parse_object(struct exchange *x, struct body *b, struct status *st)
{
    if (!json_parse(x->body, x->body_len, &b->root, st))
        return false;
    exchange_drop_body(x);
    struct json_node root = json_root(b->root);
    return json_is_object(b->root) ||
           json_invalid(&root, st, "invalid_type", "must be a JSON object, not %s",
                        json_type_name(b->root));
}

bool body_parse(struct exchange *x, struct body *out, struct status *st)
{
    *out = (struct body){ .large = x->body_len > LIMIT_LARGE_BODY_BYTES };
    if (!check_content_type(x, st))
        return false;
    if (x->body_len == 0) {
        status_set(st, STATUS_INVALID, "the body is empty; a JSON object is needed");
        return status_detail(st, NULL, "invalid_json");
    }
    if (out->large)
        enter(x->app);
    if (parse_object(x, out, st))
        return true;
    body_release(x, out);
    return false;
}

void body_release(struct exchange *x, struct body *b)
{
    json_decref(b->root);
    b->root = NULL;
    if (b->large)
        leave(x->app);
    b->large = false;
}

bool body_model(const struct json_node *body, const struct server *s, const char **name,
                struct status *st)
{
    struct json_node n = json_member(body, "model");
    const char *model = NULL;
    return json_read_string(&n, &model, NULL, st) && server_check_model(s, model, name, st);
}

void body_answer(struct exchange *x, body_handler *handle)
{
    struct status st;
    struct body parsed;
    if (!body_parse(x, &parsed, &st)) {
        api_error_respond(x, &st);
        return;
    }
    struct json_node body = json_root(parsed.root);
    if (!handle(x, &body, &st))
        api_error_respond(x, &st);
    body_release(x, &parsed);
}
