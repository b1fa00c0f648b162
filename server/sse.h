/* sse.h - framing of server-sent events: one line of JSON per event, `[DONE]` at the end, comments
 * that keep proxies from closing a silent stream. */
#ifndef INFERD_SERVER_SSE_H
#define INFERD_SERVER_SSE_H

#include "base/buf.h"
#include "base/status.h"

#define SSE_CONTENT_TYPE "text/event-stream; charset=utf-8"

/* An event is begun, its JSON appended to `out` without line breaks, and ended. */
void sse_begin(struct buf *out);
void sse_end(struct buf *out);
/* The error event of a stream whose status line is long gone; `sse_done` must follow. */
void sse_error(struct buf *out, const struct status *st);
void sse_keepalive(struct buf *out);
void sse_done(struct buf *out);

#endif
