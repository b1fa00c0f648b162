/* status.c - formatting of struct status; messages are cut, never overrun. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool status_set(struct status *st, enum status_code code, const char *format, ...)
{
    va_list args;
    status_clear(st);
    st->code = code;
    va_start(args, format);
    vsnprintf(st->message, sizeof st->message, format, args);
    va_end(args);
    return false;
}

bool status_detail(struct status *st, const char *param, const char *reason)
{
    if (param)
        snprintf(st->param, sizeof st->param, "%s", param);
    if (reason)
        snprintf(st->reason, sizeof st->reason, "%s", reason);
    return false;
}

bool status_prefix(struct status *st, const char *format, ...)
{
    char old[sizeof st->message];
    va_list args;
    memcpy(old, st->message, sizeof old);
    va_start(args, format);
    int n = vsnprintf(st->message, sizeof st->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof st->message)
        snprintf(st->message + n, sizeof st->message - (size_t)n, "%s", old);
    return false;
}

void status_clear(struct status *st)
{
    memset(st, 0, sizeof *st);
}
