/* request_queue.h - the one door from the HTTP threads into the engine thread.
 *
 * Bounded on purpose, by requests and by prompt tokens: when it is full the client hears so at
 * once, instead of waiting unseen. Owned by the engine. Any thread may push; only the engine thread
 * drains. Each entry carries one reference to its request, which drain() hands to the caller. */
#ifndef INFERD_ENGINE_REQUEST_QUEUE_H
#define INFERD_ENGINE_REQUEST_QUEUE_H

#include "base/status.h"
#include "engine/request.h"

struct request_queue;

struct request_queue *request_queue_new(int32_t max_requests, int64_t max_tokens);
void request_queue_free(struct request_queue *q);
/* Pushes all `count` requests (the choices of one HTTP request) or none. False when full or
 * closed; the message in `st` is the one the client will read. The limits count what waits in the
 * queue and what the scheduler has drained but not begun, see request_queue_started. */
bool request_queue_push(struct request_queue *q, struct request *const *requests, int32_t count,
                        struct status *st);
/* Moves up to `max` entries out. With `wait`, sleeps until there is one, the queue closes, or
 * request_queue_wake is called. */
int32_t request_queue_drain(struct request_queue *q, struct request **out, int32_t max, bool wait);
/* A drained request runs for the first time, or ended without running: it waits no longer. */
void request_queue_started(struct request_queue *q, const struct request *r);
void request_queue_wake(struct request_queue *q);
/* Refuses every later push; what is inside can still be drained. */
void request_queue_close(struct request_queue *q);
bool request_queue_closed(struct request_queue *q);

#endif
