/* hub_listing.h - what files a repository has at one commit, from any of three sources: the hub's
 * answer, the tree that huggingface_hub keeps beside a snapshot, a snapshot's directory.
 *
 * Whoever wrote them is not trusted: names are safe as paths below a directory, no name stands
 * there twice, sizes and counts are within config/limits.h. Immutable once read; any thread. */
#ifndef INFERD_ENGINE_MODEL_HUB_LISTING_H
#define INFERD_ENGINE_MODEL_HUB_LISTING_H

#include "base/arena.h"
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

struct hub_file {
    const char *path;   /* "config.json", "sub/model.gguf" */
    const char *digest; /* 64 hex digits: sha256; 40: git blob id; empty: not known */
    uint64_t size_bytes;
};

struct hub_listing {
    struct arena strings;
    char commit[41];        /* empty: the source does not say */
    struct hub_file *files; /* by rising path */
    int32_t num_files;
};

/* GET /api/models/ORG/NAME/revision/REVISION?blobs=true. What there is to free is freed on false.
 */
bool hub_listing_parse(const char *text, size_t len, struct hub_listing *out, struct status *st);
/* trees/COMMIT.json of huggingface_hub 1.0 and later. */
bool hub_listing_parse_tree(const char *text, size_t len, struct hub_listing *out,
                            struct status *st);
/* The regular files in `dir`, through links; without digests. */
bool hub_listing_of_directory(const char *dir, struct hub_listing *out, struct status *st);
void hub_listing_free(struct hub_listing *l);
/* NULL when there is none of that path. */
const struct hub_file *hub_listing_find(const struct hub_listing *l, const char *path);

/* The files that a model.safetensors.index.json names, each once, as strings in `a`. */
bool hub_index_shards(const char *text, size_t len, struct arena *a, const char ***names,
                      int32_t *count, struct status *st);

#endif
