/* hub_transfer_internal.h - what hub_transfer.c (who does what, under one mutex) and hub_fetch.c
 * (one job, without it) share. Nobody else includes it. */
#ifndef INFERD_ENGINE_MODEL_HUB_TRANSFER_INTERNAL_H
#define INFERD_ENGINE_MODEL_HUB_TRANSFER_INTERNAL_H

#include "engine/model/hub_digest.h"
#include "engine/model/hub_parts.h"
#include "engine/model/hub_progress.h"
#include "engine/model/hub_transfer.h"

#include <pthread.h>

enum item_state {
    ITEM_NEW,    /* not begun */
    ITEM_BUSY,   /* another process has its lock */
    ITEM_ACTIVE, /* locked by us, parts open */
    ITEM_DONE    /* a blob of the cache */
};

/* One file. `state` to `location` belong to the transfer's mutex; parts and digest to who has a job
 * of this file. */
struct item {
    const struct hub_file *file;
    enum item_state state;
    bool *taken;         /* [num_parts] with a worker, or here */
    int32_t next_part;   /* no part below is free */
    int32_t num_running; /* jobs that fetch */
    bool hashing;        /* a job hashes */
    int32_t num_hashed;  /* parts, from the first */
    bool in_one_stream;  /* the server knows no ranges: one job fetches all, from the first byte */
    bool stream_taken;
    int32_t num_broken; /* times it came whole with the wrong hash */
    char *location;     /* where the hub last redirected to; NULL: ask the hub */
    int lock_fd;
    uint64_t begun_ns, found_bytes;
    struct hub_parts parts;
    struct hub_digest *digest;
};

struct transfer {
    const struct hub_transfer_options *options;
    struct hub_http_options http; /* the site's, with `stop` below */
    struct hub_site site;
    struct item *items;
    int32_t num_items;
    atomic_bool stop; /* ends requests in flight: a failure */
    pthread_mutex_t mutex;
    pthread_cond_t work; /* for workers: there may be a job, or an end */
    pthread_cond_t done; /* for the main loop: something ended */
    int32_t num_done, num_active;
    bool over; /* workers return */
    bool failed;
    struct status failure; /* the first */
};

enum { STREAM = -1 }; /* in the place of a part: all of them */

/* Fetches one part, or with STREAM the whole file. */
enum fetch_result {
    FETCH_DONE,
    FETCH_NO_RANGES, /* the server sent the whole file instead: nothing was taken of it */
    FETCH_FAILED     /* for good; st says why */
};
enum fetch_result hub_fetch_part(struct transfer *t, struct hub_http *h, struct item *item,
                                 int32_t part, struct status *st);

#endif
