/* sse.c - the four byte sequences of an event stream. */
#include "server/sse.h"
#include "server/api_error.h"

void sse_begin(struct buf *out)
{
    buf_append_str(out, "data: ");
}

void sse_end(struct buf *out)
{
    buf_append_str(out, "\n\n");
}

void sse_error(struct buf *out, const struct status *st)
{
    sse_begin(out);
    api_error_body(st, out);
    sse_end(out);
}

void sse_keepalive(struct buf *out)
{
    buf_append_str(out, ": keep-alive\n\n");
}

void sse_done(struct buf *out)
{
    buf_append_str(out, "data: [DONE]\n\n");
}
