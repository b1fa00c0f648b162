/* hub_listing.c - every field checked before it is believed; unknown ones are ignored, since the
 * hub adds some every month. */
#include "engine/model/hub_listing.h"
#include "base/alloc.h"
#include "config/limits.h"
#include "engine/model/hub_ref.h"
#include "engine/model/json_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- the list ----------------------------------------------------------------------------------
 */

static void listing_init(struct hub_listing *l)
{
    memset(l, 0, sizeof *l);
    arena_init(&l->strings);
}

void hub_listing_free(struct hub_listing *l)
{
    arena_free(&l->strings);
    free(l->files);
    l->files = NULL;
    l->num_files = 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct hub_file *)a)->path, ((const struct hub_file *)b)->path);
}

static bool listing_seal(struct hub_listing *l, struct status *st)
{
    if (l->num_files > 1)
        qsort(l->files, (size_t)l->num_files, sizeof *l->files, by_path);
    for (int32_t i = 1; i < l->num_files; i++)
        if (strcmp(l->files[i - 1].path, l->files[i].path) == 0)
            return status_set(st, STATUS_INVALID, "'%.200s' is listed twice", l->files[i].path);
    return true;
}

const struct hub_file *hub_listing_find(const struct hub_listing *l, const char *path)
{
    struct hub_file key = { .path = path };
    if (l->num_files == 0)
        return NULL;
    return bsearch(&key, l->files, (size_t)l->num_files, sizeof key, by_path);
}

/* Takes `path` and room for one more file. */
static struct hub_file *add_file(struct hub_listing *l, const char *path, int32_t max,
                                 struct status *st)
{
    if (!hub_path_is_safe(path)) {
        json_t *shown = json_string(path);
        status_set(st, STATUS_INVALID, "%s is not a path inside a repository",
                   json_show(shown).text);
        json_decref(shown);
        return NULL;
    }
    if (l->num_files == max) {
        status_set(st, STATUS_INVALID, "more than %d files", max);
        return NULL;
    }
    /* Grows by doubling: a full array has a power of two in it. */
    if ((l->num_files & (l->num_files - 1)) == 0)
        l->files =
            xrealloc(l->files, (l->num_files ? 2 * (size_t)l->num_files : 1) * sizeof *l->files);
    struct hub_file *file = &l->files[l->num_files++];
    *file = (struct hub_file){ .path = arena_strdup(&l->strings, path), .digest = "" };
    return file;
}

/* --- fields ------------------------------------------------------------------------------------
 */

static bool read_size(const json_t *value, uint64_t *out, struct status *st)
{
    const int64_t most = (int64_t)LIMIT_HUB_FILE_GIB << 30;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > most)
        return status_set(st, STATUS_INVALID, "the size %s is not a number of bytes up to %d GiB",
                          json_show(value).text, LIMIT_HUB_FILE_GIB);
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool read_digest(struct hub_listing *l, const json_t *value, bool is_sha256,
                        struct hub_file *file, struct status *st)
{
    const char *text = json_string_value(value);
    if (!text || !(is_sha256 ? hub_is_sha256(text) : hub_is_commit(text)))
        return status_set(st, STATUS_INVALID, "the hash %s is no %s", json_show(value).text,
                          is_sha256 ? "sha256" : "git blob id");
    file->digest = arena_strdup(&l->strings, text);
    return true;
}

/* The size and the hash: of the file itself where git holds a pointer to it. */
static bool read_entry(struct hub_listing *l, struct hub_file *file, const json_t *size,
                       const json_t *blob_id, const json_t *lfs_size, const json_t *sha256,
                       struct status *st)
{
    bool is_lfs = sha256 && !json_is_null(sha256);
    if (!read_size(is_lfs ? lfs_size : size, &file->size_bytes, st))
        return false;
    if (is_lfs)
        return read_digest(l, sha256, true, file, st);
    return !blob_id || json_is_null(blob_id) || read_digest(l, blob_id, false, file, st);
}

/* --- the hub's answer --------------------------------------------------------------------------
 */

static bool read_sibling(struct hub_listing *l, const json_t *entry, struct status *st)
{
    const char *path = json_string_value(json_object_get(entry, "rfilename"));
    if (!path)
        return status_set(st, STATUS_INVALID, "an entry of siblings has no rfilename");
    struct hub_file *file = add_file(l, path, LIMIT_HUB_FILES, st);
    if (!file)
        return false;
    const json_t *lfs = json_object_get(entry, "lfs");
    return read_entry(l, file, json_object_get(entry, "size"), json_object_get(entry, "blobId"),
                      json_object_get(lfs, "size"), json_object_get(lfs, "sha256"), st) ||
           status_prefix(st, "'%.200s': ", file->path);
}

static bool read_answer(struct hub_listing *l, const json_t *root, struct status *st)
{
    const json_t *commit = json_object_get(root, "sha");
    const json_t *siblings = json_object_get(root, "siblings");
    if (!json_is_string(commit) || !hub_is_commit(json_string_value(commit)))
        return status_set(st, STATUS_INVALID, "the commit (sha) %s is not 40 hexadecimal digits",
                          json_show(commit).text);
    memcpy(l->commit, json_string_value(commit), sizeof l->commit);
    if (!json_is_array(siblings))
        return status_set(st, STATUS_INVALID, "there is no list of files (siblings)");
    for (size_t i = 0; i < json_array_size(siblings); i++)
        if (!read_sibling(l, json_array_get(siblings, i), st))
            return false;
    return listing_seal(l, st);
}

bool hub_listing_parse(const char *text, size_t len, struct hub_listing *out, struct status *st)
{
    json_t *root = json_text_parse(text, len, "the hub's answer", st);
    if (!root)
        return false;
    listing_init(out);
    bool ok = read_answer(out, root, st);
    json_decref(root);
    if (!ok) {
        hub_listing_free(out);
        status_prefix(st, "the hub's answer: ");
    }
    return ok;
}

/* --- huggingface_hub's tree --------------------------------------------------------------------
 */

static bool read_tree(struct hub_listing *l, json_t *root, struct status *st)
{
    const char *path;
    json_t *entry, *files = json_object_get(root, "files");
    if (json_integer_value(json_object_get(root, "format_version")) != 1 || !json_is_object(files))
        return status_set(st, STATUS_UNSUPPORTED, "a format other than version 1");
    json_object_foreach(files, path, entry)
    {
        struct hub_file *file = add_file(l, path, LIMIT_HUB_FILES, st);
        if (!file ||
            !read_entry(l, file, json_object_get(entry, "size"), json_object_get(entry, "blob_id"),
                        json_object_get(entry, "lfs_size"), json_object_get(entry, "lfs_sha256"),
                        st))
            return false;
    }
    return listing_seal(l, st);
}

bool hub_listing_parse_tree(const char *text, size_t len, struct hub_listing *out,
                            struct status *st)
{
    json_t *root = json_text_parse(text, len, "tree", st);
    if (!root)
        return false;
    listing_init(out);
    bool ok = read_tree(out, root, st);
    json_decref(root);
    if (!ok)
        hub_listing_free(out);
    return ok;
}

/* --- a directory -------------------------------------------------------------------------------
 */

static bool walk(struct hub_listing *l, const char *top, const char *below, int32_t depth,
                 struct status *st);

static bool walk_entry(struct hub_listing *l, const char *top, const char *path, int32_t depth,
                       struct status *st)
{
    char full[4096];
    struct stat info;
    int n = snprintf(full, sizeof full, "%s/%s", top, path);
    if (n < 0 || (size_t)n >= sizeof full || stat(full, &info) != 0)
        return true; /* a link to nowhere is a file that is not there */
    if (S_ISDIR(info.st_mode))
        return depth == LIMIT_HUB_SNAPSHOT_DEPTH || walk(l, top, path, depth + 1, st);
    if (!S_ISREG(info.st_mode) || !hub_path_is_safe(path))
        return true;
    struct hub_file *file = add_file(l, path, LIMIT_HUB_SNAPSHOT_FILES, st);
    if (file)
        file->size_bytes = (uint64_t)info.st_size;
    return file != NULL;
}

static bool walk(struct hub_listing *l, const char *top, const char *below, int32_t depth,
                 struct status *st)
{
    char path[4096];
    snprintf(path, sizeof path, "%.2000s/%.2000s", top, below);
    DIR *dir = opendir(path);
    if (!dir)
        return status_set(st, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: %s", path,
                          strerror(errno));
    bool ok = true;
    for (struct dirent *e = readdir(dir); e && ok; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%.2000s%s%s", below, below[0] ? "/" : "", e->d_name);
        ok = walk_entry(l, top, path, depth, st);
    }
    closedir(dir);
    return ok;
}

bool hub_listing_of_directory(const char *dir, struct hub_listing *out, struct status *st)
{
    listing_init(out);
    if (walk(out, dir, "", 0, st) && listing_seal(out, st))
        return true;
    hub_listing_free(out);
    return false;
}

/* --- the index of a sharded checkpoint ---------------------------------------------------------
 */

static bool read_weight_map(json_t *root, json_t *seen, struct status *st)
{
    const char *tensor;
    json_t *shard, *weight_map = json_object_get(root, "weight_map");
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0)
        return status_set(st, STATUS_INVALID, "there is no weight_map");
    json_object_foreach(weight_map, tensor, shard)
    {
        const char *name = json_string_value(shard);
        if (!name || !hub_path_is_safe(name) || strchr(name, '/') || name[0] == '.')
            return status_set(st, STATUS_INVALID, "%s is not the name of a file beside the index",
                              json_show(shard).text);
        json_object_set_new(seen, name, json_true());
        if (json_object_size(seen) > LIMIT_CHECKPOINT_FILES)
            return status_set(st, STATUS_INVALID, "more than %d files", LIMIT_CHECKPOINT_FILES);
    }
    return true;
}

bool hub_index_shards(const char *text, size_t len, struct arena *a, const char ***names,
                      int32_t *count, struct status *st)
{
    json_t *root = json_text_parse(text, len, "model.safetensors.index.json", st);
    if (!root)
        return false;
    json_t *seen = json_object();
    bool ok = read_weight_map(root, seen, st);
    if (ok) {
        *count = 0;
        *names = arena_array(a, json_object_size(seen), sizeof **names);
        for (void *at = json_object_iter(seen); at; at = json_object_iter_next(seen, at))
            (*names)[(*count)++] = arena_strdup(a, json_object_iter_key(at));
    } else {
        status_prefix(st, "model.safetensors.index.json: ");
    }
    json_decref(seen);
    json_decref(root);
    return ok;
}
