/* status.h - what went wrong, in a form that both a log and an HTTP client can use.
 *
 * A function that can fail returns bool and takes `struct status *st` last. On false, `st` holds a
 * code and one sentence: what failed, on what, and what to do. `st` is never NULL. */
#ifndef INFERD_BASE_STATUS_H
#define INFERD_BASE_STATUS_H

#include <stdbool.h>

enum status_code {
    STATUS_OK = 0,
    STATUS_INVALID,      /* the caller's input is wrong: HTTP 400 */
    STATUS_UNAUTHORIZED, /* no or wrong key: 401 */
    STATUS_FORBIDDEN,    /* 403 */
    STATUS_NOT_FOUND,    /* 404 */
    STATUS_METHOD,       /* the route exists, the method does not: 405 */
    STATUS_TIMEOUT,      /* a deadline passed: 408 */
    STATUS_TOO_LARGE,    /* a body over its limit: 413 */
    STATUS_OVERLOADED,   /* a bounded queue is full: 429 */
    STATUS_INTERNAL,     /* our own mistake, or a failed device: 500 */
    STATUS_UNSUPPORTED,  /* valid, but not offered by this build or model: 501 */
    STATUS_UNAVAILABLE,  /* loading, draining or failed: 503 */
    STATUS_IO,           /* the operating system refused a file or a socket */
    STATUS_CANCELLED     /* the one who asked has left */
};

struct status {
    enum status_code code;
    char param[96];  /* the field or option at fault, empty when none */
    char reason[48]; /* a stable word for programs, e.g. "context_length_exceeded"; may be empty */
    char message[512];
};

/* Fills `st` and returns false, so that a failure reads `return status_set(st, ...)`. */
bool status_set(struct status *st, enum status_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Names the field at fault and a stable reason word (either may be NULL); returns false. */
bool status_detail(struct status *st, const char *param, const char *reason);
/* Puts context in front of the message ("model.safetensors: ..."); returns false. */
bool status_prefix(struct status *st, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void status_clear(struct status *st);

#endif
