/* hub_transfer.h - brings files of one commit into the cache: several connections, each with a part
 * of a file at a time, verified and renamed as soon as their last byte is here.
 *
 * Each file is locked for as long as it is worked on; one that another process works on is left to
 * it, and its result is used. */
#ifndef INFERD_ENGINE_MODEL_HUB_TRANSFER_H
#define INFERD_ENGINE_MODEL_HUB_TRANSFER_H

#include "engine/model/hub_api.h"
#include "engine/model/hub_cache.h"

struct hub_transfer_options {
    const struct hub_site *site;
    const struct hub_cache *cache;
    const char *commit;
    bool show_bars;                                                            /* on a terminal */
    void (*on_progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* NULL: nobody */
    void *progress_arg;
};

/* Returns when all of `files` are blobs of the cache, or at the first failure that does not pass;
 * what has arrived by then is kept for the next run. */
bool hub_transfer(const struct hub_transfer_options *o, const struct hub_file *const *files,
                  int32_t count, struct status *st);

#endif
