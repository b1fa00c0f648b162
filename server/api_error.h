/* api_error.h - the one mapping from struct status to an HTTP code and to OpenAI's error object,
 * {"error":{"message","type","param","code"}}, all four keys always there. */
#ifndef INFERD_SERVER_API_ERROR_H
#define INFERD_SERVER_API_ERROR_H

#include "base/buf.h"
#include "base/status.h"
#include "server/http.h"

int api_error_http_status(enum status_code code);
/* Appends the JSON object, on one line. */
void api_error_body(const struct status *st, struct buf *out);
/* Answers the exchange with it. */
void api_error_respond(struct exchange *x, const struct status *st);

#endif
