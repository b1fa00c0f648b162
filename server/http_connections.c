/* http_connections.c - a list under one mutex, and the thread that walks it twice a second. */
#include "server/http_connections.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/thread.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { REAP_INTERVAL_MS = 500 };

/* Makes the connection's thread see an end of input. The descriptor stays open until the HTTP
 * library closes it, after the connection has left the list. Mutex held. */
static void end_connection(struct http_connection *c)
{
    c->ended = true;
    shutdown(c->fd, SHUT_RDWR);
}

static bool may_be_evicted(const struct http_connection *c)
{
    return !c->ended && (c->phase == PHASE_NEW || c->phase == PHASE_IDLE);
}

static void make_room(struct http_connections *list, struct http_connection *fresh)
{
    struct http_connection *oldest = NULL;
    for (struct http_connection *c = list->first; c; c = c->next)
        if (c != fresh && may_be_evicted(c) && (!oldest || c->since_ns < oldest->since_ns))
            oldest = c;
    if (oldest)
        end_connection(oldest);
    else
        fresh->refused = true;
}

struct http_connection *http_connections_add(struct http_connections *list, int fd)
{
    struct http_connection *c = xcalloc(1, sizeof *c);
    c->fd = fd;
    c->since_ns = clock_now_ns();
    pthread_mutex_lock(&list->mutex);
    c->prev = list->last;
    *(list->last ? &list->last->next : &list->first) = c;
    list->last = c;
    list->count++;
    if (list->count > list->limits.max_connections)
        make_room(list, c);
    pthread_mutex_unlock(&list->mutex);
    return c;
}

void http_connections_remove(struct http_connections *list, struct http_connection *c)
{
    pthread_mutex_lock(&list->mutex);
    *(c->prev ? &c->prev->next : &list->first) = c->next;
    *(c->next ? &c->next->prev : &list->last) = c->prev;
    list->count--;
    pthread_mutex_unlock(&list->mutex);
    free(c);
}

void http_connections_set_phase(struct http_connections *list, struct http_connection *c,
                                enum connection_phase phase)
{
    pthread_mutex_lock(&list->mutex);
    c->phase = phase;
    c->since_ns = clock_now_ns();
    pthread_mutex_unlock(&list->mutex);
}

int32_t http_connections_count(struct http_connections *list)
{
    pthread_mutex_lock(&list->mutex);
    int32_t count = list->count;
    pthread_mutex_unlock(&list->mutex);
    return count;
}

static double limit_s(const struct connection_limits *limits, enum connection_phase phase)
{
    switch (phase) {
    case PHASE_NEW:
        return limits->header_s;
    case PHASE_IDLE:
        return limits->idle_s;
    case PHASE_RECEIVING:
        return limits->body_s;
    default:
        return 1e300;
    }
}

static void *run_reaper(void *arg)
{
    struct http_connections *list = arg;
    pthread_mutex_lock(&list->mutex);
    while (!list->stopping) {
        uint64_t now = clock_now_ns();
        for (struct http_connection *c = list->first; c; c = c->next)
            if (!c->ended &&
                clock_seconds_between(c->since_ns, now) > limit_s(&list->limits, c->phase))
                end_connection(c);
        uint64_t wake = now + UINT64_C(1000000) * REAP_INTERVAL_MS;
        struct timespec until = { .tv_sec = (time_t)(wake / 1000000000),
                                  .tv_nsec = (long)(wake % 1000000000) };
        pthread_cond_timedwait(&list->wake_reaper, &list->mutex, &until);
    }
    pthread_mutex_unlock(&list->mutex);
    return NULL;
}

bool http_connections_start(struct http_connections *list, const struct connection_limits *limits,
                            struct status *st)
{
    pthread_condattr_t monotonic;
    memset(list, 0, sizeof *list);
    list->limits = *limits;
    pthread_mutex_init(&list->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&list->wake_reaper, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (thread_start(&list->reaper, "http-reaper", run_reaper, list, st))
        return true;
    http_connections_free(list);
    return false;
}

void http_connections_stop(struct http_connections *list)
{
    pthread_mutex_lock(&list->mutex);
    list->stopping = true;
    for (struct http_connection *c = list->first; c; c = c->next)
        end_connection(c);
    pthread_cond_signal(&list->wake_reaper);
    pthread_mutex_unlock(&list->mutex);
    pthread_join(list->reaper, NULL);
}

void http_connections_free(struct http_connections *list)
{
    pthread_cond_destroy(&list->wake_reaper);
    pthread_mutex_destroy(&list->mutex);
}
