/* gguf_find.c - which file a model's path stands for. */
#include "engine/model/gguf.h"
#include "base/alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends_in_gguf(const char *name)
{
    size_t len = strlen(name);
    return len > 5 && strcmp(name + len - 5, ".gguf") == 0;
}

static bool begins_with_magic(const char *path)
{
    char magic[4];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool same = fd >= 0 && read(fd, magic, sizeof magic) == (ssize_t)sizeof magic &&
                memcmp(magic, "GGUF", sizeof magic) == 0;
    if (fd >= 0)
        close(fd);
    return same;
}

bool gguf_is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
           (ends_in_gguf(path) || begins_with_magic(path));
}

/* "-00002-of-00003.gguf" at the end: not the first of a split. */
static bool is_later_split(const char *name)
{
    int no = 1, count = 1, used = 0;
    size_t len = strlen(name);
    const char *at = name + len - (sizeof "-00001-of-00001.gguf" - 1);
    if (len < sizeof "-00001-of-00001.gguf" - 1)
        return false;
    return sscanf(at, "-%5d-of-%5d.gguf%n", &no, &count, &used) == 2 && at[used] == '\0' && no != 1;
}

/* Keeps the first by name, and says how many there are. */
static int32_t scan(DIR *dir, char *first, size_t size, char *second)
{
    int32_t count = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        const char *name = e->d_name;
        if (name[0] == '.' || !ends_in_gguf(name) || is_later_split(name))
            continue;
        bool before = count == 0 || strcmp(name, first) < 0;
        if (count > 0)
            snprintf(second, size, "%s", before ? first : name);
        if (before)
            snprintf(first, size, "%s", name);
        count++;
    }
    return count;
}

bool gguf_find_in(const char *path, char **out, struct status *st)
{
    char first[256] = "", second[256] = "";
    DIR *dir = opendir(path);
    if (!dir)
        return status_set(st, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "model '%.300s': %s",
                          path, strerror(errno));
    int32_t count = scan(dir, first, sizeof first, second);
    closedir(dir);
    if (count == 0)
        return status_set(st, STATUS_NOT_FOUND, "model '%.300s': there is no .gguf file in it",
                          path);
    if (count > 1)
        return status_set(st, STATUS_INVALID,
                          "model '%.120s' holds %d GGUF models, '%.120s' and '%.120s' among them; "
                          "give the path of one",
                          path, count, first, second);
    size_t size = strlen(path) + 1 + strlen(first) + 1;
    *out = xmalloc(size);
    snprintf(*out, size, "%s/%s", path, first);
    return true;
}
