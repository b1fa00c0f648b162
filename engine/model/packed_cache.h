/* packed_cache.h - packed weights kept on disk, so that the next start maps them instead of packing
 * them again.
 *
 * A directory holds one file per model, rank and kind of device: a header, checksums of the image's
 * chunks, and the image of the weights' arena as it lay in memory. The content id says what the
 * image was made from and for which layout; a file with another id is stale and is replaced. Every
 * chunk is checked when a file is mapped, so a damaged one is noticed and made anew. The checksums
 * find accidents; whoever may write to the directory is trusted like the model's files.
 *
 * Only for devices whose memory is the host's. Start-up thread only, but for the writer's own. */
#ifndef INFERD_ENGINE_MODEL_PACKED_CACHE_H
#define INFERD_ENGINE_MODEL_PACKED_CACHE_H

#include "base/hash.h"
#include "base/status.h"
#include "kernels/tensor.h"

struct packed_cache_id {
    struct hash128 place;   /* names the file: model, rank, device */
    struct hash128 content; /* what the arena holds: the checkpoint's files, formats, layout */
    size_t arena_bytes;
};

/* Maps the image of this id, private and writable, checked to the last byte on several threads.
 * False when there is none, or a stale or damaged one; `st` says which, STATUS_NOT_FOUND for none.
 * Unmap with packed_cache_unmap. As with a checkpoint, another process that truncates the file
 * meanwhile raises SIGBUS: files are replaced by renaming. */
bool packed_cache_map(const char *dir, const struct packed_cache_id *id, struct buffer *arena,
                      struct status *st);
void packed_cache_unmap(struct buffer *arena);

/* Writes the arena's image in a thread of its own while the server already answers; the file
 * appears whole or not at all. Failures (a full disk, say) are logged and cost nothing else. `dir`
 * is made when it is missing. `arena` must stay as it is until packed_cache_write_end, which stops
 * a writer that is not done; NULL is fine there. NULL is returned when no thread can be had. */
struct packed_cache_writer *packed_cache_write_begin(const char *dir,
                                                     const struct packed_cache_id *id,
                                                     const void *arena);
/* Waits until the file is there or has failed. For tests and short runs. */
void packed_cache_write_wait(struct packed_cache_writer *w);
void packed_cache_write_end(struct packed_cache_writer *w);

#endif
