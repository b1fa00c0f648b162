/* body.h - the JSON body of an exchange: content type, syntax, model name. */
#ifndef INFERD_SERVER_BODY_H
#define INFERD_SERVER_BODY_H

#include "server/http.h"
#include "server/json.h"
#include "server/server.h"

/* A parsed body. Large ones are let in a few at a time, so it is released as soon as it is read. */
struct body {
    json_t *root;
    bool large;
};

/* Parses the body, which must be an object, and frees the text. */
bool body_parse(struct exchange *x, struct body *out, struct status *st);
void body_release(struct exchange *x, struct body *b);
/* The name to report for the model that the body asks for. */
bool body_model(const struct json_node *body, const struct server *s, const char **name,
                struct status *st);

/* Answers the exchange, or fills `st` and returns false. */
typedef bool body_handler(struct exchange *x, const struct json_node *body, struct status *st);
/* An endpoint that answers at once: parses the body and lets `handle` answer; where either fails,
 * the error is the answer. */
void body_answer(struct exchange *x, body_handler *handle);

#endif
