/* packed_cache.c - the file of packed weights: its layout, its checks, its writer.
 *
 * Layout, in the byte order of the machine that wrote it (the magic number tells):
 *   struct header, padded to PAGE; checksums [num_chunks] of 8 bytes, padded to PAGE; the arena.
 * Checksums are XXH3 (Collet), which runs at the speed of memory. */
#include "engine/model/packed_cache.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    PAGE = 4096,
    CHUNK_BYTES = 4 << 20, /* shared out between checking threads; a write's size */
    MAX_THREADS = 16
};

/* Bump the digit when the layout of this file changes; layouts of kernels are part of the id. */
static const uint64_t MAGIC = 0x3157504452464e49u; /* "INFRDPW1" on little-endian machines */

struct header {
    uint64_t magic;
    struct hash128 content;
    uint64_t arena_bytes, chunk_bytes;
    uint64_t checksums_checksum; /* of the table behind the header */
    uint64_t header_checksum;    /* of all above */
};

static size_t num_chunks_of(size_t arena_bytes)
{
    return arena_bytes / CHUNK_BYTES + (arena_bytes % CHUNK_BYTES != 0);
}

static size_t table_bytes(size_t arena_bytes)
{
    return (num_chunks_of(arena_bytes) * sizeof(uint64_t) + PAGE - 1) / PAGE * PAGE;
}

static size_t chunk_size(size_t arena_bytes, size_t chunk)
{
    size_t left = arena_bytes - chunk * CHUNK_BYTES;
    return left < CHUNK_BYTES ? left : CHUNK_BYTES;
}

static bool file_path(char path[PATH_MAX], const char *dir, struct hash128 place, const char *end)
{
    int n = snprintf(path, PATH_MAX, "%s/%016llx%016llx.%s", dir, (unsigned long long)place.high,
                     (unsigned long long)place.low, end);
    return n > 0 && n < PATH_MAX;
}

/* --- reading ---------------------------------------------------------------------------------- */

struct check {
    const unsigned char *arena;
    const uint64_t *checksums;
    size_t arena_bytes, num_chunks;
    atomic_size_t next;
    atomic_bool damaged;
};

static void *check_chunks(void *arg)
{
    struct check *c = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&c->next, 1);
        if (i >= c->num_chunks || atomic_load(&c->damaged))
            return NULL;
        uint64_t sum = XXH3_64bits(c->arena + i * CHUNK_BYTES, chunk_size(c->arena_bytes, i));
        if (sum != c->checksums[i])
            atomic_store(&c->damaged, true);
    }
}

/* Reads the whole image once, which also brings it into memory. */
static bool arena_is_whole(const void *arena, size_t arena_bytes, const uint64_t *checksums)
{
    struct check c = { arena, checksums, arena_bytes, num_chunks_of(arena_bytes), 0, false };
    pthread_t threads[MAX_THREADS];
    int32_t cpus[MAX_THREADS];
    int32_t wanted = thread_allowed_cpus(cpus, MAX_THREADS), started = 0;
    struct status st;
    if (wanted > MAX_THREADS)
        wanted = MAX_THREADS;
    while (started < wanted - 1 && (size_t)started + 1 < c.num_chunks &&
           thread_start(&threads[started], "weights", check_chunks, &c, &st))
        started++;
    check_chunks(&c);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    return !atomic_load(&c.damaged);
}

static bool read_whole(int fd, void *out, size_t size, off_t at)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(fd, (char *)out + done, size - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool header_fits(int fd, const struct packed_cache_id *id, struct header *h,
                        struct status *st)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || !read_whole(fd, h, sizeof *h, 0))
        return status_set(st, STATUS_INVALID, "it is cut off");
    if (h->magic != MAGIC ||
        h->header_checksum != XXH3_64bits(h, offsetof(struct header, header_checksum)))
        return status_set(st, STATUS_INVALID, "its header is damaged, or of another version");
    if (!hash128_equal(h->content, id->content) || h->arena_bytes != id->arena_bytes ||
        h->chunk_bytes != CHUNK_BYTES)
        return status_set(st, STATUS_INVALID,
                          "it is stale: the model, the options or this build "
                          "changed since it was written");
    size_t whole = PAGE + table_bytes(id->arena_bytes) + id->arena_bytes;
    if (info.st_size < 0 || (size_t)info.st_size != whole)
        return status_set(st, STATUS_INVALID, "it has %lld bytes, not %zu", (long long)info.st_size,
                          whole);
    return true;
}

static bool map_checked(int fd, const struct packed_cache_id *id, struct buffer *arena,
                        struct status *st)
{
    struct header h;
    if (!header_fits(fd, id, &h, st))
        return false;
    size_t sums_bytes = num_chunks_of(id->arena_bytes) * sizeof(uint64_t);
    uint64_t *sums = xmalloc(sums_bytes);
    void *data = MAP_FAILED;
    bool ok = read_whole(fd, sums, sums_bytes, PAGE) &&
              XXH3_64bits(sums, sums_bytes) == h.checksums_checksum;
    if (!ok)
        status_set(st, STATUS_INVALID, "its table of checksums is damaged");
    if (ok) {
        off_t at = (off_t)(PAGE + table_bytes(id->arena_bytes));
        data = mmap(NULL, id->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, at);
        ok = data != MAP_FAILED || status_set(st, STATUS_IO, "cannot map it: %s", strerror(errno));
    }
    if (ok)
        madvise(data, id->arena_bytes, MADV_WILLNEED);
    if (ok && !arena_is_whole(data, id->arena_bytes, sums)) {
        munmap(data, id->arena_bytes);
        ok = status_set(st, STATUS_INVALID, "its weights are damaged");
    }
    free(sums);
    if (ok)
        *arena = (struct buffer){ data, id->arena_bytes };
    return ok;
}

bool packed_cache_map(const char *dir, const struct packed_cache_id *id, struct buffer *arena,
                      struct status *st)
{
    char path[PATH_MAX];
    if (!file_path(path, dir, id->place, "packed"))
        return status_set(st, STATUS_INVALID, "%s: the path is too long", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return status_set(st, errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO,
                          "%s: %s", path, strerror(errno));
    bool ok = map_checked(fd, id, arena, st) || status_prefix(st, "%s: ", path);
    close(fd); /* the mapping stays */
    return ok;
}

void packed_cache_unmap(struct buffer *arena)
{
    if (arena->data)
        munmap(arena->data, arena->size_bytes);
    *arena = (struct buffer){ 0 };
}

/* --- writing ---------------------------------------------------------------------------------- */

struct packed_cache_writer {
    char *dir;
    struct packed_cache_id id;
    const unsigned char *arena;
    pthread_t thread;
    atomic_bool stop;
    bool joined;
};

static bool write_whole(int fd, const void *data, size_t size, off_t at)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, (const char *)data + done, size - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

/* The header goes last: until then the file is no cache, whatever stops the writer. False with
 * errno, or because it was stopped. */
static bool write_image(struct packed_cache_writer *w, int fd)
{
    size_t num_chunks = num_chunks_of(w->id.arena_bytes);
    uint64_t *sums = xmalloc(num_chunks * sizeof *sums);
    off_t at = (off_t)(PAGE + table_bytes(w->id.arena_bytes));
    bool ok = true;
    for (size_t i = 0; ok && i < num_chunks; i++) {
        const unsigned char *chunk = w->arena + i * CHUNK_BYTES;
        size_t size = chunk_size(w->id.arena_bytes, i);
        sums[i] = XXH3_64bits(chunk, size);
        ok = !atomic_load(&w->stop) && write_whole(fd, chunk, size, at);
        at += (off_t)size;
    }
    struct header h = { .magic = MAGIC,
                        .content = w->id.content,
                        .arena_bytes = w->id.arena_bytes,
                        .chunk_bytes = CHUNK_BYTES };
    if (ok) {
        h.checksums_checksum = XXH3_64bits(sums, num_chunks * sizeof *sums);
        h.header_checksum = XXH3_64bits(&h, offsetof(struct header, header_checksum));
        ok = write_whole(fd, sums, num_chunks * sizeof *sums, PAGE) && fdatasync(fd) == 0 &&
             write_whole(fd, &h, sizeof h, 0) && fdatasync(fd) == 0;
    }
    free(sums);
    return ok;
}

/* Every missing directory of the path. */
static void make_dirs(const char *dir)
{
    char *path = xstrdup(dir);
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(path, 0755);
        *at = '/';
    }
    mkdir(path, 0755);
    free(path);
}

static bool is_file_of(int fd, const char *path)
{
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/* One name for all writers of a place, so that what a killed one left is taken over by the next.
 * The one who had the lock before may have renamed the file that was opened: it must not be
 * touched then, others have mapped it. */
static int open_part(const char *part, struct status *st)
{
    int fd = open(part, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        status_set(st, STATUS_IO, "%s: %s", part, strerror(errno));
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || !is_file_of(fd, part))
        status_set(st, STATUS_UNAVAILABLE, "%s: another process is writing it", part);
    else if (ftruncate(fd, 0) != 0)
        status_set(st, STATUS_IO, "%s: %s", part, strerror(errno));
    else
        return fd;
    close(fd);
    return -1;
}

static bool write_file(struct packed_cache_writer *w, struct status *st)
{
    char path[PATH_MAX], part[PATH_MAX];
    if (!file_path(path, w->dir, w->id.place, "packed") ||
        !file_path(part, w->dir, w->id.place, "part"))
        return status_set(st, STATUS_INVALID, "%s: the path is too long", w->dir);
    make_dirs(w->dir);
    int fd = open_part(part, st);
    if (fd < 0)
        return false;
    bool ok = write_image(w, fd) && rename(part, path) == 0;
    if (!ok) {
        status_set(st, STATUS_IO, "%s: %s", part, strerror(errno));
        unlink(part);
    }
    close(fd); /* and with it the lock */
    return ok;
}

static void *writer_main(void *arg)
{
    struct packed_cache_writer *w = arg;
    struct status st;
    uint64_t start = clock_now_ns();
    if (write_file(w, &st))
        log_info("packed weights kept in %s: %zu bytes in %.1f s", w->dir, w->id.arena_bytes,
                 clock_seconds_between(start, clock_now_ns()));
    else if (!atomic_load(&w->stop))
        log_warning("packed weights not kept: %s", st.message);
    return NULL;
}

struct packed_cache_writer *packed_cache_write_begin(const char *dir,
                                                     const struct packed_cache_id *id,
                                                     const void *arena)
{
    struct packed_cache_writer *w = xcalloc(1, sizeof *w);
    struct status st;
    w->dir = xstrdup(dir);
    w->id = *id;
    w->arena = arena;
    if (thread_start(&w->thread, "weights-cache", writer_main, w, &st))
        return w;
    log_warning("packed weights not kept: %s", st.message);
    free(w->dir);
    free(w);
    return NULL;
}

void packed_cache_write_wait(struct packed_cache_writer *w)
{
    if (w && !w->joined)
        pthread_join(w->thread, NULL);
    if (w)
        w->joined = true;
}

void packed_cache_write_end(struct packed_cache_writer *w)
{
    if (!w)
        return;
    atomic_store(&w->stop, true);
    packed_cache_write_wait(w);
    free(w->dir);
    free(w);
}
