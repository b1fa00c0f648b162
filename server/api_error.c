/* api_error.c - a table with one row per status code. */
#include "server/api_error.h"
#include "server/json.h"

struct error_row {
    int http_status;
    const char *type;
    const char *reason; /* where the status names none of its own */
};

static const struct error_row rows[] = {
    [STATUS_OK] = { 500, "server_error", "internal_error" },
    [STATUS_INVALID] = { 400, "invalid_request_error", "invalid_value" },
    [STATUS_UNAUTHORIZED] = { 401, "invalid_request_error", "invalid_api_key" },
    [STATUS_FORBIDDEN] = { 403, "invalid_request_error", "forbidden" },
    [STATUS_NOT_FOUND] = { 404, "invalid_request_error", "not_found" },
    [STATUS_METHOD] = { 405, "invalid_request_error", "method_not_supported" },
    [STATUS_TIMEOUT] = { 408, "timeout_error", "request_timeout" },
    [STATUS_TOO_LARGE] = { 413, "invalid_request_error", "request_too_large" },
    [STATUS_OVERLOADED] = { 429, "rate_limit_error", "rate_limit_exceeded" },
    [STATUS_INTERNAL] = { 500, "server_error", "internal_error" },
    [STATUS_UNSUPPORTED] = { 501, "invalid_request_error", "not_supported" },
    [STATUS_UNAVAILABLE] = { 503, "server_error", "service_unavailable" },
    [STATUS_IO] = { 500, "server_error", "internal_error" },
    [STATUS_CANCELLED] = { 499, "invalid_request_error", "client_closed_request" },
};

static const struct error_row *row_of(enum status_code code)
{
    size_t i = (size_t)code;
    return i < sizeof rows / sizeof rows[0] ? &rows[i] : &rows[STATUS_INTERNAL];
}

int api_error_http_status(enum status_code code)
{
    return row_of(code)->http_status;
}

void api_error_body(const struct status *st, struct buf *out)
{
    const struct error_row *row = row_of(st->code);
    struct json_writer w;
    json_writer_init(&w, out);
    json_open_object(&w);
    json_key(&w, "error");
    json_open_object(&w);
    json_key(&w, "message");
    json_put_string(&w, st->message);
    json_key(&w, "type");
    json_put_string(&w, row->type);
    json_key(&w, "param");
    json_put_string(&w, st->param[0] ? st->param : NULL);
    json_key(&w, "code");
    json_put_string(&w, st->reason[0] ? st->reason : row->reason);
    json_close_object(&w);
    json_close_object(&w);
}

void api_error_respond(struct exchange *x, const struct status *st)
{
    struct buf body;
    buf_init(&body, 0);
    api_error_body(st, &body);
    if (st->code == STATUS_UNAUTHORIZED)
        exchange_set_header(x, "WWW-Authenticate", "Bearer");
    if (st->code == STATUS_OVERLOADED || st->code == STATUS_UNAVAILABLE)
        exchange_set_header(x, "Retry-After", "1");
    exchange_respond(x, api_error_http_status(st->code), "application/json", &body);
}
