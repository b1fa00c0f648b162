/* server.c - names, readiness and seeds. */
#include "server/server.h"
#include "base/clock.h"
#include "base/rng.h"

#include <string.h>

static bool add_names(struct server *s, const char *list, struct status *st)
{
    while (list && *list) {
        size_t len = strcspn(list, ",");
        if (s->num_names == LIMIT_LIST_ENTRIES)
            return status_set(st, STATUS_INVALID, "--served-model-name: more than %d names",
                              LIMIT_LIST_ENTRIES);
        if (len > 0)
            s->names[s->num_names++] = arena_strndup(&s->arena, list, len);
        list += len + (list[len] == ',');
    }
    if (s->num_names == 0)
        s->names[s->num_names++] = s->config->model ? s->config->model : "";
    return true;
}

bool server_init(struct server *s, const struct config *config, struct engine *engine,
                 struct startup *startup, struct status *st)
{
    memset(s, 0, sizeof *s);
    arena_init(&s->arena);
    pthread_mutex_init(&s->large_bodies_mutex, NULL);
    pthread_cond_init(&s->large_bodies_changed, NULL);
    s->config = config;
    s->engine = engine;
    s->startup = startup;
    s->started_unix_s = clock_unix_s();
    if (auth_init(&s->auth, config->api_key, &s->arena, st) &&
        add_names(s, config->served_model_name, st))
        return true;
    server_free(s);
    return false;
}

void server_free(struct server *s)
{
    arena_free(&s->arena);
    pthread_cond_destroy(&s->large_bodies_changed);
    pthread_mutex_destroy(&s->large_bodies_mutex);
}

bool server_check_ready(const struct server *s, struct status *st)
{
    char progress[80];
    switch (engine_state(s->engine)) {
    case ENGINE_READY:
        return true;
    case ENGINE_LOADING:
        engine_get_progress(s->engine, progress, sizeof progress);
        status_set(st, STATUS_UNAVAILABLE, "loading: %s%s%s", startup_current(s->startup),
                   progress[0] ? ", " : "", progress);
        return status_detail(st, NULL, "loading");
    case ENGINE_FAILED:
        engine_get_failure(s->engine, st);
        st->code = STATUS_UNAVAILABLE;
        status_prefix(st, "the engine has failed: ");
        return status_detail(st, NULL, "engine_failed");
    default:
        status_set(st, STATUS_UNAVAILABLE, "the server is shutting down");
        return status_detail(st, NULL, "shutting_down");
    }
}

bool server_check_model(const struct server *s, const char *model, const char **name,
                        struct status *st)
{
    *name = s->names[0];
    if (!model)
        return true;
    for (int32_t i = 0; i < s->num_names; i++) {
        if (strcmp(model, s->names[i]) == 0) {
            *name = s->names[i];
            return true;
        }
    }
    status_set(st, STATUS_NOT_FOUND, "The model '%.200s' does not exist.", model);
    return status_detail(st, "model", "model_not_found");
}

uint64_t server_draw_seed(struct server *s)
{
    struct rng_block block = rng_philox((uint64_t)s->config->seed, UINT64_C(0x73656564),
                                        atomic_fetch_add(&s->num_seeds, 1));
    return (uint64_t)block.word[0] << 32 | block.word[1];
}
