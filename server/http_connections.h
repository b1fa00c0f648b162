/* http_connections.h - the open connections of the HTTP server: how many there may be, and how long
 * each may take over a header, a body, or doing nothing.
 *
 * Any thread; the owner is http.c. A thread of its own ends those that are over their time. A time
 * here does not start again with every byte, so that a client cannot keep a connection by sending
 * a byte now and then. */
#ifndef INFERD_SERVER_HTTP_CONNECTIONS_H
#define INFERD_SERVER_HTTP_CONNECTIONS_H

#include "base/status.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum connection_phase {
    PHASE_NEW,       /* has not sent a whole header yet */
    PHASE_IDLE,      /* between two requests */
    PHASE_RECEIVING, /* header in, body not */
    PHASE_BUSY       /* being answered: no limit here */
};

struct http_connection {
    struct http_connection *prev, *next;
    int fd;
    enum connection_phase phase;
    uint64_t since_ns; /* when the phase began */
    bool refused;      /* came past the limit while none was idle; constant */
    bool ended;        /* has been told to end */
};

struct connection_limits {
    int32_t max_connections;
    double header_s, idle_s, body_s;
};

struct http_connections {
    struct connection_limits limits;
    pthread_t reaper;
    pthread_mutex_t mutex; /* guards what follows and the connections' phases */
    pthread_cond_t wake_reaper;
    bool stopping;
    struct http_connection *first, *last; /* oldest first */
    int32_t count;
};

bool http_connections_start(struct http_connections *list, const struct connection_limits *limits,
                            struct status *st);
/* Ends every connection and the thread; what is in the list is still to be removed. */
void http_connections_stop(struct http_connections *list);
/* Once the list is empty. */
void http_connections_free(struct http_connections *list);

/* At the limit the connection that has been idle longest is ended to make room; where none is idle
 * the new one is marked as refused. */
struct http_connection *http_connections_add(struct http_connections *list, int fd);
/* Before its descriptor is closed. */
void http_connections_remove(struct http_connections *list, struct http_connection *c);
void http_connections_set_phase(struct http_connections *list, struct http_connection *c,
                                enum connection_phase phase);
int32_t http_connections_count(struct http_connections *list);

#endif
