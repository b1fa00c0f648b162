/* model_file.c - open, check, read to the end. */
#include "engine/text/model_file.h"
#include "engine/text/model_json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool read_all(int fd, const char *path, size_t max_bytes, struct buf *out, struct status *st)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return status_set(st, STATUS_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return status_set(st, STATUS_INVALID, "%s: not a regular file", path);
    char chunk[65536];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return status_set(st, STATUS_IO, "%s: %s", path, strerror(errno));
        if (n == 0)
            return true;
        if ((size_t)n > max_bytes - out->len)
            return status_set(st, STATUS_INVALID, "%s: larger than the limit of %zu bytes", path,
                              max_bytes);
        buf_append(out, chunk, (size_t)n);
    }
}

bool model_file_read(const char *dir, const char *name, size_t max_bytes, struct buf *out,
                     struct status *st)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return status_set(st, STATUS_INVALID, "%s/%s: the path is too long", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return status_set(st, errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO,
                          "%s: %s", path, strerror(errno));
    bool ok = read_all(fd, path, max_bytes, out, st);
    close(fd);
    return ok;
}

bool model_file_read_json(const char *dir, const char *name, size_t max_bytes, json_t **out,
                          struct status *st)
{
    struct buf text;
    buf_init(&text, 0);
    *out = NULL;
    bool ok = model_file_read(dir, name, max_bytes, &text, st);
    if (ok) {
        struct model_json parsed;
        ok = model_json_parse(buf_str(&text), text.len, &parsed, st) ||
             status_prefix(st, "%s/%s: ", dir, name);
        *out = parsed.root;
    }
    buf_free(&text);
    return ok;
}
