/* hub_cache.c - paths, and the few system calls that change the cache. */
#include "engine/model/hub_cache.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "engine/model/hub_ref.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char *join(const char *a, const char *b, const char *c, const char *d)
{
    struct buf path;
    buf_init(&path, 0);
    buf_printf(&path, "%s/%s", a, b);
    if (c)
        buf_printf(&path, "/%s", c);
    if (d)
        buf_printf(&path, "/%s", d);
    return buf_take(&path);
}

void hub_cache_init(struct hub_cache *c, const char *root, const char *repo)
{
    const char *slash = strchr(repo, '/');
    struct buf name;
    buf_init(&name, 0);
    buf_printf(&name, "models--%.*s--%s", (int)(slash - repo), repo, slash + 1);
    c->root = xstrdup(root);
    c->repo_dir = join(root, buf_str(&name), NULL, NULL);
    c->blobs_dir = join(root, buf_str(&name), "blobs", NULL);
    c->locks_dir = join(root, ".locks", buf_str(&name), NULL);
    buf_free(&name);
}

void hub_cache_free(struct hub_cache *c)
{
    free(c->root);
    free(c->repo_dir);
    free(c->blobs_dir);
    free(c->locks_dir);
    memset(c, 0, sizeof *c);
}

/* mkdir -p, of everything in `path` or, with `parent_only`, all but its last name. */
static bool make_dirs(const char *path, bool parent_only, struct status *st)
{
    char *copy = xstrdup(path);
    bool ok = true;
    for (char *p = copy + 1; ok; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char mark = *p;
        if (mark == '\0' && parent_only)
            break;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            ok = status_set(st, STATUS_IO, "cannot create the directory %.300s: %s", copy,
                            strerror(errno));
        *p = mark;
        if (mark == '\0')
            break;
    }
    free(copy);
    return ok;
}

/* What backup programs look for to leave a directory out (bford.info/cachedir). */
static void tag_as_cache(const char *root)
{
    static const char text[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                               "# A cache of models; everything in it can be fetched again.\n";
    char *path = join(root, "CACHEDIR.TAG", NULL, NULL);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) {
        ssize_t written = write(fd, text, sizeof text - 1);
        (void)written; /* only backup programs miss it */
        close(fd);
    }
    free(path);
}

bool hub_cache_create(const struct hub_cache *c, struct status *st)
{
    if (!make_dirs(c->blobs_dir, false, st) || !make_dirs(c->locks_dir, false, st))
        return false;
    tag_as_cache(c->root);
    return true;
}

/* --- paths -------------------------------------------------------------------------------------
 */

char *hub_cache_snapshot_dir(const struct hub_cache *c, const char *commit)
{
    return join(c->repo_dir, "snapshots", commit, NULL);
}

char *hub_cache_blob_path(const struct hub_cache *c, const char *digest)
{
    return join(c->blobs_dir, digest, NULL, NULL);
}

char *hub_cache_tree_path(const struct hub_cache *c, const char *commit)
{
    char name[64];
    snprintf(name, sizeof name, "%.40s.json", commit);
    return join(c->repo_dir, "trees", name, NULL);
}

/* --- refs --------------------------------------------------------------------------------------
 */

bool hub_cache_read_ref(const struct hub_cache *c, const char *revision, char commit[41])
{
    char *path = join(c->repo_dir, "refs", revision, NULL);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    free(path);
    if (fd < 0)
        return false;
    char text[64];
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    if (n != 40)
        return false;
    text[n] = '\0';
    memcpy(commit, text, 41);
    return hub_is_commit(commit);
}

/* Writes beside `path` and renames over it. */
static bool replace_file(const char *path, const char *text, struct status *st)
{
    char temporary[4200];
    int n = snprintf(temporary, sizeof temporary, "%s.%d.tmp", path, (int)getpid());
    if (n < 0 || (size_t)n >= sizeof temporary)
        return status_set(st, STATUS_INVALID, "%.200s...: the path is too long", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = false;
        error = errno;
    }
    if (!ok) {
        unlink(temporary);
        return status_set(st, STATUS_IO, "cannot write %.300s: %s", path, strerror(error));
    }
    return true;
}

bool hub_cache_write_ref(const struct hub_cache *c, const char *revision, const char *commit,
                         struct status *st)
{
    char current[41];
    if (hub_cache_read_ref(c, revision, current) && strcmp(current, commit) == 0)
        return true;
    char *path = join(c->repo_dir, "refs", revision, NULL);
    bool ok = make_dirs(path, true, st) && replace_file(path, commit, st);
    free(path);
    return ok;
}

/* --- blobs and links ---------------------------------------------------------------------------
 */

static bool is_file_of_size(const char *path, uint64_t size_bytes)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && (uint64_t)info.st_size == size_bytes;
}

bool hub_cache_has_blob(const struct hub_cache *c, const char *digest, uint64_t size_bytes)
{
    char *path = hub_cache_blob_path(c, digest);
    bool there = is_file_of_size(path, size_bytes);
    free(path);
    return there;
}

/* From snapshots/COMMIT/a/b up to the repository and down to the blob. */
static char *relative_target(const char *path, const char *digest)
{
    struct buf target;
    buf_init(&target, 0);
    buf_append_str(&target, "../../");
    for (const char *p = path; *p; p++)
        if (*p == '/')
            buf_append_str(&target, "../");
    buf_printf(&target, "blobs/%s", digest);
    return buf_take(&target);
}

static bool replace_link(const char *target, const char *path, struct status *st)
{
    char temporary[4200];
    int n = snprintf(temporary, sizeof temporary, "%s.%d.tmp", path, (int)getpid());
    if (n < 0 || (size_t)n >= sizeof temporary)
        return status_set(st, STATUS_INVALID, "%.200s...: the path is too long", path);
    unlink(temporary);
    if (symlink(target, temporary) == 0 && rename(temporary, path) == 0)
        return true;
    int error = errno;
    unlink(temporary);
    return status_set(st, STATUS_IO, "cannot create the link %.300s: %s", path, strerror(error));
}

bool hub_cache_link(const struct hub_cache *c, const char *commit, const char *path,
                    const char *digest, uint64_t size_bytes, struct status *st)
{
    char *full = join(c->repo_dir, "snapshots", commit, path);
    char *target = relative_target(path, digest);
    struct stat info;
    char found[256];
    bool ok = true;
    ssize_t n = readlink(full, found, sizeof found - 1);
    found[n > 0 ? n : 0] = '\0';
    bool right_link = n > 0 && strcmp(found, target) == 0;
    /* Where links could not be made, huggingface_hub puts the file itself. */
    bool plain_file = n < 0 && lstat(full, &info) == 0 && is_file_of_size(full, size_bytes);
    if (!right_link && !plain_file)
        ok = make_dirs(full, true, st) && replace_link(target, full, st);
    free(target);
    free(full);
    return ok;
}

void hub_cache_note_absent(const struct hub_cache *c, const char *commit, const char *path)
{
    struct status ignored;
    char *full = join(c->repo_dir, ".no_exist", commit, path);
    if (make_dirs(full, true, &ignored)) {
        int fd = open(full, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
        if (fd >= 0)
            close(fd);
    }
    free(full);
}

bool hub_cache_is_absent(const struct hub_cache *c, const char *commit, const char *path)
{
    char *full = join(c->repo_dir, ".no_exist", commit, path);
    bool absent = is_file_of_size(full, 0);
    free(full);
    return absent;
}

/* --- locks -------------------------------------------------------------------------------------
 */

/* True when the path still names the file that `fd` is: who unlinks a lock file leaves those that
 * wait on it with a lock that nobody else looks at. */
static bool is_still_there(int fd, const char *path)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

int hub_cache_lock(const struct hub_cache *c, const char *digest, struct status *st)
{
    char name[80];
    snprintf(name, sizeof name, "%.64s.lock", digest);
    char *path = join(c->locks_dir, name, NULL, NULL);
    /* Writable for the group, as huggingface_hub makes them: a cache may be shared. */
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
    int result = fd;
    if (fd < 0) {
        status_set(st, STATUS_IO, "cannot open the lock %.300s: %s", path, strerror(errno));
        result = -2;
    } else {
        /* File systems without flock go unlocked: blobs have names of their own until verified. */
        bool taken = flock(fd, LOCK_EX | LOCK_NB) == 0 || errno == ENOSYS || errno == EOPNOTSUPP ||
                     errno == ENOLCK;
        result = taken && is_still_there(fd, path) ? fd : -1;
    }
    if (result < 0 && fd >= 0)
        close(fd);
    free(path);
    return result;
}
