/* hub_parts.h - one file on its way: HASH.inferd.incomplete, and HASH.inferd.parts beside it, which
 * records how much of each part has arrived.
 *
 * The contents are written before the record says so, and both with plain writes: whatever moment
 * the process is killed at, what the record promises is in the file. After a crash of the machine
 * it may not be; the hash over the whole, checked before the file becomes a blob, finds that out.
 * The names differ from huggingface_hub's, which would take the full-sized file for a complete one.
 *
 * Two processes that write one file by mistake (a file system whose locks do not work) write equal
 * bytes to equal places.
 *
 * Different parts may be written from different threads at once; everything else is for one thread
 * while no other is in a call. */
#ifndef INFERD_ENGINE_MODEL_HUB_PARTS_H
#define INFERD_ENGINE_MODEL_HUB_PARTS_H

#include "base/status.h"
#include <stdatomic.h>
#include <stdint.h>

struct hub_parts {
    char *path, *record_path; /* of the two files */
    int fd, record_fd;
    uint64_t size_bytes;
    int32_t num_parts;
    _Atomic uint32_t *received; /* [num_parts] bytes from each part's beginning */
};

/* Opens both files, or takes up what an earlier run left; reserves the space on disk. */
bool hub_parts_open(struct hub_parts *p, const char *blobs_dir, const char *digest,
                    uint64_t size_bytes, struct status *st);
/* Closes; the files stay for the next run. */
void hub_parts_close(struct hub_parts *p);
/* Bytes that an earlier run left of a file, without opening it for writing; 0: none. */
uint64_t hub_parts_left(const char *blobs_dir, const char *digest, uint64_t size_bytes);
/* Bytes on disk that are reserved for it already. */
uint64_t hub_parts_reserved(const char *blobs_dir, const char *digest);

uint64_t hub_parts_begin(const struct hub_parts *p, int32_t part);
uint32_t hub_parts_length(const struct hub_parts *p, int32_t part);
bool hub_parts_is_whole(const struct hub_parts *p, int32_t part);
/* Takes the next bytes of a part; they must not reach beyond its end. */
bool hub_parts_write(struct hub_parts *p, int32_t part, const void *data, uint32_t len,
                     struct status *st);
/* Reads what was received; false when the file does not give it. */
bool hub_parts_read(const struct hub_parts *p, uint64_t offset, void *out, uint32_t len,
                    struct status *st);
/* Forgets everything received. */
bool hub_parts_reset(struct hub_parts *p, struct status *st);
/* Puts the file, whose contents are known to be right by now, on disk and renames it; the record
 * goes. Afterwards only to be closed. */
bool hub_parts_publish(struct hub_parts *p, const char *blob_path, struct status *st);
/* Removes both files. */
void hub_parts_remove(struct hub_parts *p);
/* Removes what there is of them, unopened. */
void hub_parts_discard(const char *blobs_dir, const char *digest);

#endif
