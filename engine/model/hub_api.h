/* hub_api.h - what a hub is asked: what a repository holds, and the bytes of its files.
 *
 * Calls try again where that can help. One thread at a time. */
#ifndef INFERD_ENGINE_MODEL_HUB_API_H
#define INFERD_ENGINE_MODEL_HUB_API_H

#include "base/buf.h"
#include "engine/model/hub_http.h"
#include "engine/model/hub_listing.h"

/* One repository at one hub. */
struct hub_site {
    const struct hub_http_options *http;
    const char *repo;            /* "ORG/NAME" */
    struct hub_http *connection; /* what the calls below use; the rest needs none */
};

/* The files of a revision, and its commit: one request, or, with `patient`, as many as it takes. */
bool hub_api_list(const struct hub_site *s, const char *revision, bool patient,
                  struct hub_listing *out, struct status *st);
/* Bytes begin to end - 1 of a file, appended to `out`. */
bool hub_api_read(const struct hub_site *s, const char *commit, const struct hub_file *file,
                  uint64_t begin, uint64_t end, struct buf *out, struct status *st);

/* ENDPOINT/ORG/NAME/resolve/COMMIT/PATH, malloc'ed. */
char *hub_api_file_url(const struct hub_site *s, const char *commit, const char *path);
/* Puts into `st` what an answer that will not change means for the operator: where to accept the
 * conditions of a gated model, what was looked for. `path` NULL: the revision itself. */
bool hub_api_explain(const struct hub_site *s, const char *revision, const char *path,
                     const struct hub_http_head *head, struct status *st);
/* Whether the head belongs to these bytes of a file of that size, asked for as a range or whole.
 * A whole file in the place of a range gives false with *ignored set. */
bool hub_api_check_range(const struct hub_http_head *head, uint64_t begin, uint64_t end,
                         uint64_t size_bytes, bool *ignored, struct status *st);

#endif
