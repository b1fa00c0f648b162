/* hub_cache.h - one repository in the Hub Local Cache, the layout of huggingface_hub:
 *
 *     ROOT/models--ORG--NAME/blobs/HASH              contents, named by their sha256 or blob id
 *                            snapshots/COMMIT/PATH   relative links to them
 *                            refs/REVISION           the commit a branch or tag stood for last
 *                            .no_exist/COMMIT/PATH   empty: that commit has no such file
 *     ROOT/.locks/models--ORG--NAME/HASH.lock        flock(2)ed by who downloads that blob
 *
 * A blob appears by rename once its hash is verified; links and refs are replaced by rename too, so
 * that no reader ever sees half of anything. Paths must be safe (hub_ref.h). Any thread. */
#ifndef INFERD_ENGINE_MODEL_HUB_CACHE_H
#define INFERD_ENGINE_MODEL_HUB_CACHE_H

#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

struct hub_cache {
    char *root, *repo_dir, *blobs_dir, *locks_dir;
};

/* Works out paths; touches nothing. */
void hub_cache_init(struct hub_cache *c, const char *root, const char *repo);
void hub_cache_free(struct hub_cache *c);
/* Makes the directories that a download writes to. */
bool hub_cache_create(const struct hub_cache *c, struct status *st);

/* The commit that the revision stood for when it was last asked for; false: never asked. */
bool hub_cache_read_ref(const struct hub_cache *c, const char *revision, char commit[41]);
bool hub_cache_write_ref(const struct hub_cache *c, const char *revision, const char *commit,
                         struct status *st);

/* Paths below the repository, malloc'ed. */
char *hub_cache_snapshot_dir(const struct hub_cache *c, const char *commit);
char *hub_cache_blob_path(const struct hub_cache *c, const char *digest);
char *hub_cache_tree_path(const struct hub_cache *c, const char *commit);

/* Whether a blob is there with this size. One of another size is damaged: it does not count. */
bool hub_cache_has_blob(const struct hub_cache *c, const char *digest, uint64_t size_bytes);
/* Makes PATH in the snapshot a link to the blob, unless it is that or a file of the same size. */
bool hub_cache_link(const struct hub_cache *c, const char *commit, const char *path,
                    const char *digest, uint64_t size_bytes, struct status *st);
/* Notes that the commit has no file of that path. Best effort: it only saves a question later. */
void hub_cache_note_absent(const struct hub_cache *c, const char *commit, const char *path);
bool hub_cache_is_absent(const struct hub_cache *c, const char *commit, const char *path);

/* The lock of one blob: a descriptor to close, or -1 while another process has it. -2 with a
 * message when the lock file cannot be had at all. Released by close and by the end of the process.
 */
int hub_cache_lock(const struct hub_cache *c, const char *digest, struct status *st);

#endif
