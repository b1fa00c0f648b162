/* hub.c - what is here already decides what is asked for; see hub.h. */
#include "engine/model/hub_internal.h"

#include "base/alloc.h"
#include "base/log.h"
#include "engine/model/hub_parts.h"
#include "engine/model/hub_progress.h"
#include "engine/model/hub_transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* --- sessions ----------------------------------------------------------------------------------
 */

static bool choose_revision(struct hub_session *s, struct status *st)
{
    const char *option = s->request->revision, *named = s->ref.revision;
    if (option && named[0] && strcmp(option, named) != 0)
        return status_set(st, STATUS_INVALID,
                          "model '%.200s' names the revision '%.100s', --revision '%.100s'",
                          s->request->model, named, option);
    s->revision = named[0] ? named : option ? option : "main";
    if (!hub_revision_is_safe(s->revision))
        return status_set(st, STATUS_INVALID, "--revision: '%.100s' is no branch, tag or commit",
                          s->revision);
    return true;
}

bool hub_session_open(struct hub_session *s, const struct hub_request *r, struct status *st)
{
    *s = (struct hub_session){ .request = r };
    if (!hub_ref_parse(r->model, &s->ref, st) || !choose_revision(s, st))
        return false;
    if (!r->cache_dir)
        return status_set(st, STATUS_INVALID,
                          "there is no place for the hub's cache: set HF_HOME or --download-dir");
    s->file = s->ref.file[0] ? s->ref.file : NULL;
    hub_cache_init(&s->cache, r->cache_dir, s->ref.repo);
    s->http = (struct hub_http_options){
        .endpoint = r->endpoint, .token = r->token, .timeout_s = r->timeout_s, .ca_file = r->ca_file
    };
    s->site = (struct hub_site){ .http = &s->http, .repo = s->ref.repo };
    return true;
}

void hub_session_close(struct hub_session *s)
{
    hub_http_close(s->site.connection);
    hub_listing_free(&s->listing);
    hub_cache_free(&s->cache);
}

bool hub_read_file(const char *path, struct buf *out, struct status *st)
{
    char chunk[65536];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return status_set(st, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                          "cannot open %.300s: %s", path, strerror(errno));
    ssize_t n;
    do {
        n = read(fd, chunk, sizeof chunk);
        if (n > 0)
            buf_append(out, chunk, (size_t)n);
    } while ((n > 0 && !out->overflow) || (n < 0 && errno == EINTR));
    int error = errno;
    close(fd);
    if (n < 0)
        return status_set(st, STATUS_IO, "cannot read %.300s: %s", path, strerror(error));
    return !out->overflow || status_set(st, STATUS_TOO_LARGE, "%.300s is longer than %zu bytes",
                                        path, out->max_bytes);
}

/* --- the index ---------------------------------------------------------------------------------
 */

bool hub_add_shards(const struct hub_listing *l, const char *path, struct hub_selection *s,
                    struct status *st)
{
    struct buf text;
    struct arena names;
    const char **shards;
    int32_t count;
    buf_init(&text, LIMIT_SAFETENSORS_HEADER_BYTES);
    arena_init(&names);
    bool ok = hub_read_file(path, &text, st) &&
              hub_index_shards(buf_str(&text), text.len, &names, &shards, &count, st) &&
              hub_select_shards(l, shards, count, s, st);
    buf_free(&text);
    arena_free(&names);
    return ok;
}

static char *path_in(const char *dir, const char *name)
{
    struct buf path;
    buf_init(&path, 0);
    buf_printf(&path, "%s/%s", dir, name);
    return buf_take(&path);
}

/* --- what is here ------------------------------------------------------------------------------
 */

/* Whether every small file is either here or known not to exist: then nobody has to be asked. */
static bool nothing_open(const struct hub_session *s, const struct hub_listing *l)
{
    for (int32_t i = 0; i < hub_num_optional_files; i++)
        if (!hub_listing_find(l, hub_optional_files[i]) &&
            !hub_cache_is_absent(&s->cache, s->commit, hub_optional_files[i]))
            return false;
    return true;
}

/* The commit's snapshot, if it has all a model needs; `certain`: if it also has all that it could
 * have. On false `st` says what is missing. */
static bool local_snapshot(const struct hub_session *s, bool certain, char **path,
                           struct status *st)
{
    struct hub_listing found;
    struct hub_selection chosen;
    char *dir = hub_cache_snapshot_dir(&s->cache, s->commit);
    if (!hub_listing_of_directory(dir, &found, st)) {
        free(dir);
        return false;
    }
    bool ok = hub_select(&found, s->file, s->request->with_weights, &chosen, st);
    if (ok) {
        if (chosen.needs_index) {
            char *index = path_in(dir, HUB_INDEX_FILE);
            ok = hub_add_shards(&found, index, &chosen, st);
            free(index);
        }
        if (ok && certain && !s->file && !nothing_open(s, &found))
            ok = status_set(st, STATUS_NOT_FOUND, "not all small files are known");
        if (ok)
            *path = chosen.first ? path_in(dir, chosen.first) : xstrdup(dir);
        hub_selection_free(&chosen);
    }
    hub_listing_free(&found);
    free(dir);
    return ok;
}

/* The listing that huggingface_hub has left for this commit. */
static bool listing_from_tree(struct hub_session *s)
{
    struct status ignored;
    struct buf text;
    char *path = hub_cache_tree_path(&s->cache, s->commit);
    buf_init(&text, LIMIT_HUB_ANSWER_BYTES);
    bool ok = hub_read_file(path, &text, &ignored) &&
              hub_listing_parse_tree(buf_str(&text), text.len, &s->listing, &ignored);
    if (ok)
        memcpy(s->listing.commit, s->commit, sizeof s->listing.commit);
    buf_free(&text);
    free(path);
    return ok;
}

static bool offline(struct hub_session *s, char **path, struct status *st)
{
    if (s->commit[0] && local_snapshot(s, false, path, st))
        return true;
    if (!s->commit[0])
        status_set(st, STATUS_NOT_FOUND, "nothing of it is in %.200s", s->request->cache_dir);
    return status_prefix(st, "%s, revision %.60s, offline (HF_HUB_OFFLINE): ", s->ref.repo,
                         s->revision);
}

/* A commit stands for itself; anything else would end up under a name that nobody asked for. */
static bool check_commit(const struct hub_session *s, struct status *st)
{
    return !hub_is_commit(s->revision) || strcmp(s->revision, s->listing.commit) == 0 ||
           status_set(st, STATUS_IO, "asked for the commit %s, the hub answers with %s",
                      s->revision, s->listing.commit);
}

static bool ask_hub(struct hub_session *s, char **path, bool *is_here, struct status *st)
{
    struct status local;
    char *kept = NULL;
    bool have = s->commit[0] && local_snapshot(s, false, &kept, &local);
    s->site.connection = hub_http_open(&s->http);
    if (hub_api_list(&s->site, s->revision, !have, &s->listing, st) && check_commit(s, st)) {
        memcpy(s->commit, s->listing.commit, sizeof s->commit);
        free(kept);
        return true;
    }
    if (!have)
        return false;
    log_warning("hub: %s; using the snapshot %.12s of %s that is here", st->message, s->commit,
                s->ref.repo);
    status_clear(st);
    *path = kept;
    *is_here = true;
    return true;
}

bool hub_resolve(struct hub_session *s, char **path, bool *is_here, struct status *st)
{
    struct status ignored;
    bool pinned = hub_is_commit(s->revision);
    *is_here = false;
    if (pinned)
        memcpy(s->commit, s->revision, sizeof s->commit);
    else
        hub_cache_read_ref(&s->cache, s->revision, s->commit);
    if (s->request->offline)
        return *is_here = offline(s, path, st);
    if (pinned && local_snapshot(s, true, path, &ignored)) {
        *is_here = true;
        return true;
    }
    if (pinned && listing_from_tree(s)) {
        s->site.connection = hub_http_open(&s->http);
        return true;
    }
    return ask_hub(s, path, is_here, st);
}

/* --- fetching ----------------------------------------------------------------------------------
 */

/* Refuses before an hour of downloading what the disk cannot hold. */
static bool check_space(const struct hub_session *s, const struct hub_file *const *missing,
                        int32_t count, struct status *st)
{
    struct statvfs disk;
    uint64_t needed = 0;
    for (int32_t i = 0; i < count; i++) {
        uint64_t size = missing[i]->size_bytes;
        uint64_t reserved = hub_parts_reserved(s->cache.blobs_dir, missing[i]->digest);
        needed += size > reserved ? size - reserved : 0;
    }
    if (statvfs(s->cache.blobs_dir, &disk) != 0)
        return true; /* where that cannot be asked, the writes will tell */
    uint64_t available = (uint64_t)disk.f_bavail * disk.f_frsize;
    return needed <= available ||
           status_set(st, STATUS_IO,
                      "%s needs another %s in %.200s, where %s are free: make room, or choose "
                      "another place with --download-dir or HF_HOME",
                      s->ref.repo, hub_size_show((double)needed).text, s->cache.root,
                      hub_size_show((double)available).text);
}

static bool fetch(struct hub_session *s, const struct hub_file *const *files, int32_t count,
                  struct status *st)
{
    const struct hub_file **missing = xcalloc((size_t)count + 1, sizeof *missing);
    int32_t num_missing = 0;
    bool ok = true;
    for (int32_t i = 0; i < count && ok; i++) {
        if (files[i]->digest[0] == '\0')
            ok =
                status_set(st, STATUS_INVALID, "the hub gives no hash of '%.200s'", files[i]->path);
        else if (!hub_cache_has_blob(&s->cache, files[i]->digest, files[i]->size_bytes))
            missing[num_missing++] = files[i];
        else /* killed between the rename and the end of it, a run leaves its record */
            hub_parts_discard(s->cache.blobs_dir, files[i]->digest);
    }
    const struct hub_transfer_options options = { .site = &s->site,
                                                  .cache = &s->cache,
                                                  .commit = s->commit,
                                                  .show_bars = s->request->show_bars,
                                                  .on_progress = s->request->on_progress,
                                                  .progress_arg = s->request->progress_arg };
    if (ok && num_missing > 0)
        ok = hub_cache_create(&s->cache, st) && check_space(s, missing, num_missing, st) &&
             hub_transfer(&options, missing, num_missing, st);
    free(missing);
    return ok;
}

/* The index is fetched first, for what it names. */
static bool fetch_index(struct hub_session *s, struct hub_selection *chosen, struct status *st)
{
    const struct hub_file *index = hub_listing_find(&s->listing, HUB_INDEX_FILE);
    if (!fetch(s, &index, 1, st))
        return false;
    char *path = hub_cache_blob_path(&s->cache, index->digest);
    bool ok = hub_add_shards(&s->listing, path, chosen, st);
    free(path);
    return ok;
}

/* Makes the snapshot visible: what it has not, what it has, and config.json last of all. */
static bool link_snapshot(struct hub_session *s, const struct hub_selection *chosen,
                          struct status *st)
{
    for (int32_t i = 0; i < hub_num_optional_files && !s->file; i++)
        if (!hub_listing_find(&s->listing, hub_optional_files[i]) &&
            !hub_cache_is_absent(&s->cache, s->commit, hub_optional_files[i]))
            hub_cache_note_absent(&s->cache, s->commit, hub_optional_files[i]);
    for (int32_t i = 0; i < chosen->num_files; i++) {
        const struct hub_file *file = chosen->files[i];
        if (!hub_cache_link(&s->cache, s->commit, file->path, file->digest, file->size_bytes, st))
            return false;
    }
    struct status ref;
    if (strcmp(s->revision, s->commit) != 0 &&
        !hub_cache_write_ref(&s->cache, s->revision, s->commit, &ref))
        log_warning("hub: %s; without it the next start needs the hub", ref.message);
    return true;
}

static bool fetch_snapshot(struct hub_session *s, char **path, struct status *st)
{
    struct hub_selection chosen;
    if (!hub_select(&s->listing, s->file, s->request->with_weights, &chosen, st))
        return status_prefix(st, "%s at %.12s: ", s->ref.repo, s->commit);
    bool ok = (!chosen.needs_index || fetch_index(s, &chosen, st)) &&
              fetch(s, chosen.files, chosen.num_files, st) && link_snapshot(s, &chosen, st);
    if (ok) {
        char *dir = hub_cache_snapshot_dir(&s->cache, s->commit);
        *path = chosen.first ? path_in(dir, chosen.first) : xstrdup(dir);
        free(dir);
    }
    hub_selection_free(&chosen);
    return ok;
}

bool hub_snapshot(const struct hub_request *r, char **path, struct status *st)
{
    struct hub_session s;
    bool is_here;
    if (!hub_session_open(&s, r, st))
        return false;
    bool ok = hub_resolve(&s, path, &is_here, st) && (is_here || fetch_snapshot(&s, path, st));
    if (ok)
        log_info("hub: %s at %s: %s", s.ref.repo, s.commit, *path);
    hub_session_close(&s);
    return ok;
}
