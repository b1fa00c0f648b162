/* server.h - what every endpoint can reach: configuration, engine, start-up, keys, names.
 *
 * Owned by main; constant once http_start has been called, except where it says atomic. */
#ifndef INFERD_SERVER_SERVER_H
#define INFERD_SERVER_SERVER_H

#include "config/config.h"
#include "engine/engine.h"
#include "server/auth.h"
#include <pthread.h>

struct server {
    const struct config *config;
    struct engine *engine;
    struct startup *startup;
    struct arena arena; /* the strings below */
    struct auth auth;
    const char *names[LIMIT_LIST_ENTRIES]; /* the model's, the first is reported */
    int32_t num_names;
    int64_t started_unix_s;
    pthread_mutex_t large_bodies_mutex;
    pthread_cond_t large_bodies_changed;
    int32_t num_large_bodies;   /* being parsed or read now, see body.h; guarded by the mutex */
    _Atomic uint64_t num_seeds; /* drawn so far, for requests that bring none */
};

bool server_init(struct server *s, const struct config *config, struct engine *engine,
                 struct startup *startup, struct status *st);
void server_free(struct server *s);
/* Whether the engine serves; else `st` says what it does instead ("loading: weights"). */
bool server_check_ready(const struct server *s, struct status *st);
/* Whether `model` is one of the names; the one to report in *name. NULL stands for the first. */
bool server_check_model(const struct server *s, const char *model, const char **name,
                        struct status *st);
/* The seed of a request that brings none: different each time, the same in each run with --seed. */
uint64_t server_draw_seed(struct server *s);

#endif
