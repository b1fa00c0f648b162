/* hub_parts.c - the record is a header and one number per part, each rewritten in place as its part
 * grows. A record that does not fit the file it belongs to is as good as none. */
#include "engine/model/hub_parts.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "config/limits.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct record_head {
    char magic[8];
    uint64_t size_bytes;
    uint32_t part_bytes, num_parts;
};

static const char magic[8] = "inferdP1";

static struct record_head expected_head(uint64_t size_bytes)
{
    struct record_head head = { .size_bytes = size_bytes, .part_bytes = LIMIT_HUB_PART_BYTES };
    memcpy(head.magic, magic, sizeof magic);
    head.num_parts = (uint32_t)((size_bytes + LIMIT_HUB_PART_BYTES - 1) / LIMIT_HUB_PART_BYTES);
    return head;
}

uint64_t hub_parts_begin(const struct hub_parts *p, int32_t part)
{
    (void)p;
    return (uint64_t)part * LIMIT_HUB_PART_BYTES;
}

static uint32_t part_length(uint64_t size_bytes, int32_t part)
{
    uint64_t rest = size_bytes - (uint64_t)part * LIMIT_HUB_PART_BYTES;
    return rest < LIMIT_HUB_PART_BYTES ? (uint32_t)rest : LIMIT_HUB_PART_BYTES;
}

uint32_t hub_parts_length(const struct hub_parts *p, int32_t part)
{
    return part_length(p->size_bytes, part);
}

bool hub_parts_is_whole(const struct hub_parts *p, int32_t part)
{
    return atomic_load(&p->received[part]) == hub_parts_length(p, part);
}

/* --- system calls, until done ------------------------------------------------------------------
 */

static bool write_at(int fd, const void *data, size_t len, uint64_t offset)
{
    const char *from = data;
    while (len > 0) {
        ssize_t n = pwrite(fd, from, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        from += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static bool read_at(int fd, void *out, size_t len, uint64_t offset)
{
    char *to = out;
    while (len > 0) {
        ssize_t n = pread(fd, to, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        to += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static bool failed(const char *path, const char *what, struct status *st)
{
    int error = errno;
    status_set(st, STATUS_IO, "cannot %s %.300s: %s", what, path, strerror(error));
    if (error == ENOSPC || error == EDQUOT)
        status_prefix(st, "the disk is full; what has arrived is kept: ");
    return false;
}

/* --- opening -----------------------------------------------------------------------------------
 */

/* What the record says of each part; false when there is no record of this very file. */
static bool load_record(int fd, const struct record_head *expected, uint32_t *received)
{
    struct record_head found;
    if (!read_at(fd, &found, sizeof found, 0) || memcmp(&found, expected, sizeof found) != 0 ||
        !read_at(fd, received, expected->num_parts * sizeof *received, sizeof found))
        return false;
    for (uint32_t i = 0; i < expected->num_parts; i++)
        if (received[i] > part_length(expected->size_bytes, (int32_t)i))
            return false;
    return true;
}

static bool store_record(struct hub_parts *p, const uint32_t *received, struct status *st)
{
    struct record_head head = expected_head(p->size_bytes);
    /* The head goes last: a record without it counts as none. */
    if (ftruncate(p->record_fd, 0) == 0 &&
        write_at(p->record_fd, received, head.num_parts * sizeof *received, sizeof head) &&
        write_at(p->record_fd, &head, sizeof head, 0))
        return true;
    return failed(p->record_path, "write", st);
}

/* The whole size, so that a full disk shows now and not after an hour. */
static bool reserve(struct hub_parts *p, struct status *st)
{
    if (p->size_bytes > 0 && fallocate(p->fd, 0, 0, (off_t)p->size_bytes) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        return failed(p->path, "reserve space for", st);
    /* Where the file system cannot reserve, and for what is longer than it should be. */
    if (ftruncate(p->fd, (off_t)p->size_bytes) != 0)
        return failed(p->path, "set the size of", st);
    return true;
}

static bool open_files(struct hub_parts *p, struct status *st)
{
    struct record_head head = expected_head(p->size_bytes);
    struct stat info;
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    p->fd = open(p->path, flags, 0666);
    if (p->fd < 0 || fstat(p->fd, &info) != 0)
        return failed(p->path, "open", st);
    p->record_fd = open(p->record_path, flags, 0666);
    if (p->record_fd < 0)
        return failed(p->record_path, "open", st);
    uint32_t *received = xcalloc((size_t)head.num_parts + 1, sizeof *received);
    bool resumed =
        (uint64_t)info.st_size == p->size_bytes && load_record(p->record_fd, &head, received);
    if (!resumed)
        memset(received, 0, ((size_t)head.num_parts + 1) * sizeof *received);
    p->num_parts = (int32_t)head.num_parts;
    p->received = xcalloc((size_t)head.num_parts + 1, sizeof *p->received);
    for (uint32_t i = 0; i < head.num_parts; i++)
        atomic_init(&p->received[i], received[i]);
    bool ok = reserve(p, st) && (resumed || store_record(p, received, st));
    free(received);
    return ok;
}

static char *file_path(const char *blobs_dir, const char *digest, const char *ending)
{
    struct buf path;
    buf_init(&path, 0);
    buf_printf(&path, "%s/%s.inferd.%s", blobs_dir, digest, ending);
    return buf_take(&path);
}

bool hub_parts_open(struct hub_parts *p, const char *blobs_dir, const char *digest,
                    uint64_t size_bytes, struct status *st)
{
    *p = (struct hub_parts){ .fd = -1, .record_fd = -1, .size_bytes = size_bytes };
    p->path = file_path(blobs_dir, digest, "incomplete");
    p->record_path = file_path(blobs_dir, digest, "parts");
    if (open_files(p, st))
        return true;
    hub_parts_close(p);
    return false;
}

void hub_parts_close(struct hub_parts *p)
{
    if (p->fd >= 0)
        close(p->fd);
    if (p->record_fd >= 0)
        close(p->record_fd);
    free(p->path);
    free(p->record_path);
    free((void *)p->received);
    *p = (struct hub_parts){ .fd = -1, .record_fd = -1 };
}

uint64_t hub_parts_left(const char *blobs_dir, const char *digest, uint64_t size_bytes)
{
    struct record_head head = expected_head(size_bytes);
    char *path = file_path(blobs_dir, digest, "parts");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
    if (fd < 0)
        return 0;
    uint64_t sum = 0;
    uint32_t *received = xcalloc((size_t)head.num_parts + 1, sizeof *received);
    if (load_record(fd, &head, received))
        for (uint32_t i = 0; i < head.num_parts; i++)
            sum += received[i];
    free(received);
    close(fd);
    return sum;
}

uint64_t hub_parts_reserved(const char *blobs_dir, const char *digest)
{
    struct stat info;
    char *path = file_path(blobs_dir, digest, "incomplete");
    bool there = stat(path, &info) == 0 && info.st_blocks > 0;
    free(path);
    return there ? (uint64_t)info.st_blocks * 512 : 0; /* POSIX's unit, whatever the disk's */
}

/* --- contents ----------------------------------------------------------------------------------
 */

bool hub_parts_write(struct hub_parts *p, int32_t part, const void *data, uint32_t len,
                     struct status *st)
{
    uint32_t before = atomic_load(&p->received[part]), after = before + len;
    assert(after >= before && after <= hub_parts_length(p, part));
    if (!write_at(p->fd, data, len, hub_parts_begin(p, part) + before))
        return failed(p->path, "write", st);
    uint64_t at = sizeof(struct record_head) + (uint64_t)part * sizeof after;
    if (!write_at(p->record_fd, &after, sizeof after, at))
        return failed(p->record_path, "write", st);
    atomic_store(&p->received[part], after);
    return true;
}

bool hub_parts_read(const struct hub_parts *p, uint64_t offset, void *out, uint32_t len,
                    struct status *st)
{
    errno = 0;
    if (read_at(p->fd, out, len, offset))
        return true;
    return errno ? failed(p->path, "read", st)
                 : status_set(st, STATUS_IO, "%.300s is shorter than it was", p->path);
}

bool hub_parts_reset(struct hub_parts *p, struct status *st)
{
    uint32_t *none = xcalloc((size_t)p->num_parts + 1, sizeof *none);
    for (int32_t i = 0; i < p->num_parts; i++)
        atomic_store(&p->received[i], 0);
    bool ok = store_record(p, none, st);
    free(none);
    return ok;
}

bool hub_parts_publish(struct hub_parts *p, const char *blob_path, struct status *st)
{
    struct stat info;
    if (fdatasync(p->fd) != 0)
        return failed(p->path, "write", st);
    if (rename(p->path, blob_path) != 0 && !(errno == ENOENT && stat(blob_path, &info) == 0 &&
                                             (uint64_t)info.st_size == p->size_bytes))
        return failed(blob_path, "create", st);
    unlink(p->record_path);
    return true;
}

void hub_parts_remove(struct hub_parts *p)
{
    unlink(p->path);
    unlink(p->record_path);
}

void hub_parts_discard(const char *blobs_dir, const char *digest)
{
    static const char *const endings[] = { "incomplete", "parts" };
    for (int i = 0; i < 2; i++) {
        char *path = file_path(blobs_dir, digest, endings[i]);
        unlink(path);
        free(path);
    }
}
