/* body.c - what every POST endpoint checks first. */
#include "server/body.h"

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

bool body_parse(struct exchange *x, json_t **out, struct status *st)
{
    *out = NULL;
    if (!check_content_type(x, st))
        return false;
    if (x->body_len == 0) {
        status_set(st, STATUS_INVALID, "the body is empty; a JSON object is needed");
        return status_detail(st, NULL, "invalid_json");
    }
    if (!json_parse(x->body, x->body_len, out, st))
        return false;
    exchange_drop_body(x);
    struct json_node root = json_root(*out);
    if (json_is_object(*out))
        return true;
    json_invalid(&root, st, "invalid_type", "must be a JSON object, not %s", json_type_name(*out));
    json_decref(*out);
    *out = NULL;
    return false;
}

bool body_model(const struct json_node *body, const struct server *s, const char **name,
                struct status *st)
{
    struct json_node n = json_member(body, "model");
    const char *model = NULL;
    return json_read_string(&n, &model, NULL, st) && server_check_model(s, model, name, st);
}
