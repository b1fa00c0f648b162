/* hub_internal.h - what hub.c (snapshots) and hub_sketch.c (headers alone) share. Nobody else
 * includes it. */
#ifndef INFERD_ENGINE_MODEL_HUB_INTERNAL_H
#define INFERD_ENGINE_MODEL_HUB_INTERNAL_H

#include "engine/model/hub.h"
#include "engine/model/hub_api.h"
#include "engine/model/hub_cache.h"
#include "engine/model/hub_ref.h"
#include "engine/model/hub_select.h"

/* One request while it is worked on. */
struct hub_session {
    const struct hub_request *request;
    struct hub_ref ref;
    const char *revision; /* what is asked for */
    const char *file;     /* FILE or QUANT; NULL: safetensors */
    char commit[41];      /* what it stands for; empty: not known yet */
    struct hub_cache cache;
    struct hub_http_options http;
    struct hub_site site;
    struct hub_listing listing; /* of the commit, once hub_resolve had to ask for it */
};

bool hub_session_open(struct hub_session *s, const struct hub_request *r, struct status *st);
void hub_session_close(struct hub_session *s);

/* Either a local snapshot that will do (*path is set, *is_here true) or the listing of a commit. */
bool hub_resolve(struct hub_session *s, char **path, bool *is_here, struct status *st);

/* A file on this machine, up to what `out` takes. */
bool hub_read_file(const char *path, struct buf *out, struct status *st);
/* Adds the shards that the index at `path` names to the selection. */
bool hub_add_shards(const struct hub_listing *l, const char *path, struct hub_selection *s,
                    struct status *st);

#endif
