/* hub.h - from a model's name to files on this machine.
 *
 * ORG/NAME[@REVISION][:FILE-or-QUANT] becomes a snapshot in the Hub Local Cache that
 * huggingface_hub shares with us (hub_cache.h). What is there is used: with a pinned commit or
 * offline no request is made, otherwise one small one, and when the hub does not answer it, a
 * snapshot that is there is used with a warning. What is missing is fetched in parallel, resumed
 * after any interruption, and verified before it is seen. One thread at a time. */
#ifndef INFERD_ENGINE_MODEL_HUB_H
#define INFERD_ENGINE_MODEL_HUB_H

#include "base/status.h"
#include <stdint.h>

struct hub_request {
    const char *model;    /* MODEL; of the form above (hub_ref.h says when it is not) */
    const char *revision; /* --revision; NULL: what MODEL says, or main */
    bool with_weights;    /* false: config, tokenizer and templates are enough */
    const char *cache_dir;
    const char *endpoint; /* "https://huggingface.co" */
    const char *token;    /* NULL: none */
    bool offline;         /* no request at all */
    bool show_bars;       /* of progress, on a terminal */
    int32_t timeout_s;
    const char *tmp_dir; /* for sketches */
    const char *ca_file; /* certificates to trust instead of the system's; NULL: those */
    /* Called a few times a second while files arrive, on the caller's thread; may be NULL. */
    void (*on_progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_arg;
};

/* The snapshot's directory, or of GGUF the path of its (first) file; malloc'ed. */
bool hub_snapshot(const struct hub_request *r, char **path, struct status *st);

/* The same for who reads only descriptions: what is not there is sketched in a new directory below
 * tmp_dir, config.json and the like in full, weights as files of their true size that have nothing
 * but their headers. Kilobytes are fetched. *dir is that directory, malloc'ed, to be removed by
 * hub_sketch_remove; NULL when a snapshot was there. */
bool hub_sketch(const struct hub_request *r, char **path, char **dir, struct status *st);
void hub_sketch_remove(const char *dir);

#endif
