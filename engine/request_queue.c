/* request_queue.c - a ring under one mutex: pushes are rare next to engine steps. */
#include "engine/request_queue.h"
#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>

struct request_queue {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* an entry came in, a wake was asked for, or the queue closed */
    struct request **ring;  /* [max_requests] */
    int32_t max_requests, head, count;
    int64_t max_tokens;
    /* In the ring, or drained and not yet started; what the limits count. */
    int32_t num_waiting;
    int64_t num_waiting_tokens;
    bool woken;  /* the next sleep is not to happen */
    bool closed; /* set once, at shutdown */
};

struct request_queue *request_queue_new(int32_t max_requests, int64_t max_tokens)
{
    assert(max_requests > 0 && max_tokens > 0);
    struct request_queue *q = xcalloc(1, sizeof *q);
    q->ring = xcalloc((size_t)max_requests, sizeof *q->ring);
    q->max_requests = max_requests;
    q->max_tokens = max_tokens;
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->changed, NULL);
    return q;
}

void request_queue_free(struct request_queue *q)
{
    if (!q)
        return;
    for (; q->count > 0; q->count--) {
        request_unref(q->ring[q->head]);
        q->head = (q->head + 1) % q->max_requests;
    }
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->mutex);
    free(q->ring);
    free(q);
}

/* What no emptier queue could take is the request's fault, the rest only asks for patience. */
static bool admissible(const struct request_queue *q, int32_t count, int64_t num_tokens,
                       struct status *st)
{
    if (q->closed)
        return status_set(st, STATUS_UNAVAILABLE, "the server is shutting down");
    if (count > q->max_requests) {
        status_set(st, STATUS_INVALID,
                   "%d choices were requested, and at most %d requests may wait", count,
                   q->max_requests);
        return status_detail(st, "n", NULL);
    }
    if (num_tokens > q->max_tokens) {
        status_set(
            st, STATUS_INVALID,
            "the prompts of this request have %lld tokens together, and at most %lld may wait",
            (long long)num_tokens, (long long)q->max_tokens);
        return status_detail(st, "prompt", NULL);
    }
    if (count > q->max_requests - q->num_waiting) {
        status_set(st, STATUS_OVERLOADED, "%d requests are already waiting: try again later",
                   q->num_waiting);
        return status_detail(st, NULL, "rate_limit_exceeded");
    }
    if (num_tokens > q->max_tokens - q->num_waiting_tokens) {
        status_set(st, STATUS_OVERLOADED, "%lld prompt tokens are already waiting: try again later",
                   (long long)q->num_waiting_tokens);
        return status_detail(st, NULL, "rate_limit_exceeded");
    }
    return true;
}

bool request_queue_push(struct request_queue *q, struct request *const *requests, int32_t count,
                        struct status *st)
{
    assert(count > 0);
    int64_t num_tokens = 0;
    for (int32_t i = 0; i < count; i++)
        num_tokens += requests[i]->num_prompt_tokens;
    pthread_mutex_lock(&q->mutex);
    bool accepted = admissible(q, count, num_tokens, st);
    if (accepted) {
        for (int32_t i = 0; i < count; i++) {
            int64_t slot = ((int64_t)q->head + q->count++) % q->max_requests;
            q->ring[slot] = request_ref(requests[i]);
        }
        q->num_waiting += count;
        q->num_waiting_tokens += num_tokens;
        pthread_cond_signal(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
    return accepted;
}

int32_t request_queue_drain(struct request_queue *q, struct request **out, int32_t max, bool wait)
{
    int32_t n = 0;
    pthread_mutex_lock(&q->mutex);
    while (wait && q->count == 0 && !q->closed && !q->woken)
        pthread_cond_wait(&q->changed, &q->mutex);
    if (wait)
        q->woken = false;
    for (; n < max && q->count > 0; n++, q->count--) {
        out[n] = q->ring[q->head];
        q->head = (q->head + 1) % q->max_requests;
    }
    pthread_mutex_unlock(&q->mutex);
    return n;
}

void request_queue_started(struct request_queue *q, const struct request *r)
{
    pthread_mutex_lock(&q->mutex);
    q->num_waiting--;
    q->num_waiting_tokens -= r->num_prompt_tokens;
    assert(q->num_waiting >= q->count && q->num_waiting_tokens >= 0);
    pthread_mutex_unlock(&q->mutex);
}

void request_queue_wake(struct request_queue *q)
{
    pthread_mutex_lock(&q->mutex);
    q->woken = true;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->mutex);
}

void request_queue_close(struct request_queue *q)
{
    pthread_mutex_lock(&q->mutex);
    q->closed = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
}

bool request_queue_closed(struct request_queue *q)
{
    pthread_mutex_lock(&q->mutex);
    bool closed = q->closed;
    pthread_mutex_unlock(&q->mutex);
    return closed;
}
