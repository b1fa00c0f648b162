/* json_file.c - bounded reads and jansson's parser in front of every JSON file of a checkpoint. */
#include "engine/model/json_file.h"
#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A parser's message quotes the file, which may hold anything. */
static void keep_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
            *text = '?';
}

json_t *json_text_parse(const char *text, size_t len, const char *name, struct status *st)
{
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        keep_printable(error.text);
        status_set(st, STATUS_INVALID, "%s: not valid JSON, line %d: %s", name, error.line,
                   error.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        status_set(st, STATUS_INVALID, "%s: the outermost value is not an object", name);
        return NULL;
    }
    return root;
}

/* Reads at most `size` bytes; what the file loses meanwhile is missing, what it gains is ignored.
 */
static bool read_all(int fd, char *out, size_t size, size_t *len)
{
    *len = 0;
    while (*len < size) {
        ssize_t n = read(fd, out + *len, size - *len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        *len += (size_t)n;
    }
    return true;
}

static json_t *read_and_parse(int fd, const char *name, size_t max_bytes, struct status *st)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        status_set(st, STATUS_IO, "%s: %s", name, strerror(errno));
        return NULL;
    }
    if (!S_ISREG(info.st_mode)) {
        status_set(st, STATUS_INVALID, "%s: not a regular file", name);
        return NULL;
    }
    if (info.st_size < 0 || (uint64_t)info.st_size > max_bytes) {
        status_set(st, STATUS_INVALID, "%s: %lld bytes, but at most %zu are read", name,
                   (long long)info.st_size, max_bytes);
        return NULL;
    }
    size_t len = 0;
    char *text = xmalloc((size_t)info.st_size + 1);
    json_t *root = NULL;
    if (read_all(fd, text, (size_t)info.st_size, &len))
        root = json_text_parse(text, len, name, st);
    else
        status_set(st, STATUS_IO, "%s: cannot read: %s", name, strerror(errno));
    free(text);
    return root;
}

json_t *json_file_read(const char *dir, const char *name, size_t max_bytes, struct status *st)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof path) {
        status_set(st, STATUS_INVALID, "%s: the model's path is too long", name);
        return NULL;
    }
    /* O_NONBLOCK: a named pipe in the place of the file must not hold start-up. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        enum status_code code = errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO;
        status_set(st, code, "%s: cannot open: %s", name, strerror(errno));
        return NULL;
    }
    json_t *root = read_and_parse(fd, name, max_bytes, st);
    close(fd);
    return root;
}

/* Takes what fits; -1 once it is full stops the dump of a large value. */
static int show_piece(const char *piece, size_t len, void *arg)
{
    struct json_shown *out = arg;
    size_t used = strlen(out->text), room = sizeof out->text - 1 - used;
    memcpy(out->text + used, piece, len < room ? len : room);
    return len <= room ? 0 : -1;
}

struct json_shown json_show(const json_t *value)
{
    struct json_shown out = { "" };
    const size_t flags =
        JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT | JSON_REAL_PRECISION(15);
    if (!value)
        memcpy(out.text, "(nothing)", sizeof "(nothing)");
    else if (json_dump_callback(value, show_piece, &out, flags) != 0)
        memcpy(out.text + sizeof out.text - 4, "...", 4);
    keep_printable(out.text);
    return out;
}

bool json_name_is_plain(const char *text, size_t max_bytes)
{
    size_t len = strlen(text);
    if (len == 0 || len > max_bytes)
        return false;
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}
