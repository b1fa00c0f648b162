/* Tests of sse.h and of the error object: the exact bytes. */
#include "server/api_error.h"
#include "server/sse.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void test_framing(void **state)
{
    struct buf out = { 0 };
    (void)state;
    sse_begin(&out);
    buf_append_str(&out, "{}");
    sse_end(&out);
    sse_keepalive(&out);
    sse_done(&out);
    assert_string_equal(buf_str(&out), "data: {}\n\n: keep-alive\n\ndata: [DONE]\n\n");
    buf_free(&out);
}

static void test_error_event(void **state)
{
    struct buf out = { 0 };
    struct status st;
    (void)state;
    status_set(&st, STATUS_INVALID, "a \"quoted\"\nmessage");
    status_detail(&st, "n", "too_big");
    sse_error(&out, &st);
    assert_string_equal(buf_str(&out),
                        "data: {\"error\":{\"message\":\"a \\\"quoted\\\"\\nmessage\",\"type\":"
                        "\"invalid_request_error\",\"param\":\"n\",\"code\":\"too_big\"}}\n\n");
    buf_free(&out);
}

static void test_every_code(void **state)
{
    static const struct {
        enum status_code code;
        int http_status;
        const char *type, *reason;
    } cases[] = {
        { STATUS_INVALID, 400, "invalid_request_error", "invalid_value" },
        { STATUS_UNAUTHORIZED, 401, "invalid_request_error", "invalid_api_key" },
        { STATUS_FORBIDDEN, 403, "invalid_request_error", "forbidden" },
        { STATUS_NOT_FOUND, 404, "invalid_request_error", "not_found" },
        { STATUS_METHOD, 405, "invalid_request_error", "method_not_supported" },
        { STATUS_TIMEOUT, 408, "timeout_error", "request_timeout" },
        { STATUS_TOO_LARGE, 413, "invalid_request_error", "request_too_large" },
        { STATUS_OVERLOADED, 429, "rate_limit_error", "rate_limit_exceeded" },
        { STATUS_INTERNAL, 500, "server_error", "internal_error" },
        { STATUS_UNSUPPORTED, 501, "invalid_request_error", "not_supported" },
        { STATUS_UNAVAILABLE, 503, "server_error", "service_unavailable" },
        { STATUS_IO, 500, "server_error", "internal_error" },
        { STATUS_CANCELLED, 499, "invalid_request_error", "client_closed_request" },
        { (enum status_code)99, 500, "server_error", "internal_error" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct status st;
        struct buf out = { 0 };
        status_set(&st, cases[i].code, "m");
        assert_int_equal(api_error_http_status(st.code), cases[i].http_status);
        api_error_body(&st, &out);
        json_t *root = json_loads(buf_str(&out), 0, NULL);
        json_t *error = json_object_get(root, "error");
        assert_int_equal(json_object_size(error), 4);
        assert_string_equal(json_string_value(json_object_get(error, "type")), cases[i].type);
        assert_string_equal(json_string_value(json_object_get(error, "code")), cases[i].reason);
        assert_true(json_is_null(json_object_get(error, "param")));
        json_decref(root);
        buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_error_event),
        cmocka_unit_test(test_every_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
