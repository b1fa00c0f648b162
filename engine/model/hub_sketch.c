/* hub_sketch.c - a directory that looks like the snapshot to who reads descriptions and headers.
 * The weights are sparse files: the readers of checkpoints need no other way in, and check the
 * sizes. */
#include "engine/model/hub_internal.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"
#include "engine/model/hub_digest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    /* What of a safetensors file is asked for at first: the header of most. */
    FIRST_BYTES = 64 << 10,
    /* Of the parts of a split GGUF file behind the first: they have no vocabulary. */
    NEXT_GGUF_BYTES = 1 << 20
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Writes `text` and then nothing up to `size_bytes`. */
static bool write_sketch(const char *dir, const char *name, const struct buf *text,
                         uint64_t size_bytes, struct status *st)
{
    char path[4200];
    snprintf(path, sizeof path, "%.3800s/%.300s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok = fd >= 0 && write(fd, buf_str(text), text->len) == (ssize_t)text->len &&
              ftruncate(fd, (off_t)size_bytes) == 0;
    if (!ok)
        status_set(st, STATUS_IO, "cannot write %.200s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool verify(const struct hub_file *file, const struct buf *text, struct status *st)
{
    char found[65];
    if (file->digest[0] == '\0')
        return true;
    struct hub_digest *d = hub_digest_new(file->digest, file->size_bytes, st);
    if (!d)
        return false;
    hub_digest_update(d, buf_str(text), text->len);
    bool ok = hub_digest_matches(d, found);
    hub_digest_free(d);
    return ok || status_set(st, STATUS_IO, "%.200s came with the hash %s instead of %s", file->path,
                            found, file->digest);
}

/* A description: all of it, verified. */
static bool sketch_whole(struct hub_session *s, const char *dir, const struct hub_file *file,
                         size_t max_bytes, struct status *st)
{
    struct buf text;
    if (file->size_bytes > max_bytes)
        return status_set(st, STATUS_TOO_LARGE,
                          "%.200s is said to have %llu bytes, at most %zu "
                          "are read",
                          file->path, (unsigned long long)file->size_bytes, max_bytes);
    buf_init(&text, max_bytes);
    bool ok = hub_api_read(&s->site, s->commit, file, 0, file->size_bytes, &text, st) &&
              verify(file, &text, st) &&
              write_sketch(dir, base_name(file->path), &text, text.len, st);
    buf_free(&text);
    return ok;
}

/* How long length and header are together, from the file's first bytes; what a reader would refuse
 * is cut to what there is, and refused by the reader. */
static uint64_t safetensors_head(const struct buf *text, uint64_t size_bytes)
{
    uint64_t header = 0;
    for (size_t i = 0; i < 8 && i < text->len; i++)
        header |= (uint64_t)(unsigned char)text->data[i] << (8 * i);
    bool sane = header <= LIMIT_SAFETENSORS_HEADER_BYTES && size_bytes >= 8;
    return sane && header <= size_bytes - 8 ? header + 8 : text->len;
}

static bool sketch_weights(struct hub_session *s, const char *dir, const struct hub_file *file,
                           uint64_t first_bytes, struct status *st)
{
    struct buf text;
    uint64_t end = first_bytes < file->size_bytes ? first_bytes : file->size_bytes;
    buf_init(&text, LIMIT_SAFETENSORS_HEADER_BYTES + 8);
    bool ok = hub_api_read(&s->site, s->commit, file, 0, end, &text, st);
    if (ok && !s->file) {
        uint64_t head = safetensors_head(&text, file->size_bytes);
        ok = head <= text.len || hub_api_read(&s->site, s->commit, file, text.len, head, &text, st);
    }
    ok = ok && write_sketch(dir, base_name(file->path), &text, file->size_bytes, st);
    buf_free(&text);
    return ok;
}

/* --- which files -------------------------------------------------------------------------------
 */

static bool is_weights(const struct hub_file *file)
{
    const char *dot = strrchr(file->path, '.');
    return dot && (strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".gguf") == 0);
}

static bool sketch_file(struct hub_session *s, const char *dir, const struct hub_selection *chosen,
                        const struct hub_file *file, struct status *st)
{
    if (s->file) {
        bool first = chosen->first == file->path;
        return sketch_weights(s, dir, file, first ? LIMIT_HUB_GGUF_HEAD_BYTES : NEXT_GGUF_BYTES,
                              st);
    }
    if (is_weights(file))
        return sketch_weights(s, dir, file, FIRST_BYTES, st);
    /* Tokenizers are megabytes, and no plan needs one. */
    bool wanted = strcmp(file->path, HUB_CONFIG_FILE) == 0 ||
                  strcmp(file->path, "generation_config.json") == 0 || strstr(file->path, "quant");
    return !wanted || sketch_whole(s, dir, file, LIMIT_MODEL_CONFIG_BYTES, st);
}

static bool sketch_all(struct hub_session *s, const char *dir, struct hub_selection *chosen,
                       struct status *st)
{
    if (chosen->needs_index) {
        const struct hub_file *index = hub_listing_find(&s->listing, HUB_INDEX_FILE);
        char path[4200];
        snprintf(path, sizeof path, "%.4000s/" HUB_INDEX_FILE, dir);
        if (!sketch_whole(s, dir, index, LIMIT_SAFETENSORS_HEADER_BYTES, st) ||
            !hub_add_shards(&s->listing, path, chosen, st))
            return false;
    }
    for (int32_t i = 0; i < chosen->num_files; i++)
        if (!sketch_file(s, dir, chosen, chosen->files[i], st))
            return false;
    return true;
}

/* A new directory of nobody else's; NULL with a message when it cannot be had. */
static char *make_dir(const char *tmp_dir, struct status *st)
{
    struct buf path;
    buf_init(&path, 0);
    buf_printf(&path, "%s/inferd-plan-XXXXXX", tmp_dir);
    char *dir = buf_take(&path);
    if (mkdtemp(dir))
        return dir;
    status_set(st, STATUS_IO, "cannot create a directory in %.200s: %s", tmp_dir, strerror(errno));
    free(dir);
    return NULL;
}

static bool make_sketch(struct hub_session *s, char **path, char **dir, struct status *st)
{
    struct hub_selection chosen;
    if (!hub_select(&s->listing, s->file, s->request->with_weights, &chosen, st))
        return status_prefix(st, "%s at %.12s: ", s->ref.repo, s->commit);
    *dir = make_dir(s->request->tmp_dir, st);
    bool ok = *dir && sketch_all(s, *dir, &chosen, st);
    if (ok) {
        struct buf text;
        buf_init(&text, 0);
        buf_printf(&text, "%s%s%s", *dir, chosen.first ? "/" : "",
                   chosen.first ? base_name(chosen.first) : "");
        *path = buf_take(&text);
    } else if (*dir) {
        hub_sketch_remove(*dir);
        free(*dir);
        *dir = NULL;
    }
    hub_selection_free(&chosen);
    return ok;
}

bool hub_sketch(const struct hub_request *r, char **path, char **dir, struct status *st)
{
    struct hub_session s;
    bool is_here = false;
    *dir = NULL;
    if (!hub_session_open(&s, r, st))
        return false;
    bool ok = hub_resolve(&s, path, &is_here, st) && (is_here || make_sketch(&s, path, dir, st));
    if (ok)
        log_info("hub: %s at %s%s", s.ref.repo, s.commit,
                 is_here ? ", from the cache" : ": descriptions and headers only");
    hub_session_close(&s);
    return ok;
}

void hub_sketch_remove(const char *dir)
{
    char file[4200];
    DIR *d = opendir(dir);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        snprintf(file, sizeof file, "%.3800s/%.300s", dir, e->d_name);
        unlink(file); /* "." and ".." are refused */
    }
    if (d)
        closedir(d);
    rmdir(dir);
}
