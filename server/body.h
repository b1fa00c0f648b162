/* body.h - the JSON body of an exchange: content type, syntax, model name. */
#ifndef INFERD_SERVER_BODY_H
#define INFERD_SERVER_BODY_H

#include "server/http.h"
#include "server/json.h"
#include "server/server.h"

/* Parses the body, which must be an object, and frees the text. The caller releases *out. */
bool body_parse(struct exchange *x, json_t **out, struct status *st);
/* The name to report for the model that the body asks for. */
bool body_model(const struct json_node *body, const struct server *s, const char **name,
                struct status *st);

#endif
