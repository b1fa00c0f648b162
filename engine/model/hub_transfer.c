/* hub_transfer.c - the main thread opens files and shows progress; workers take jobs: to hash parts
 * that have arrived, which comes first because it is what the rename waits for, or to fetch one.
 *
 * Locks of other processes are only ever tried, never waited for while holding one of our own, so
 * that two processes that want the same files in different orders cannot block each other. */
#include "engine/model/hub_transfer_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 100, HASH_BYTES = 1 << 20, MAX_BROKEN = 2 };

enum job_kind { JOB_HASH, JOB_FETCH };

struct job {
    enum job_kind kind;
    struct item *item;
    int32_t part; /* of JOB_FETCH; or STREAM */
};

static void fail(struct transfer *t, const struct status *st)
{
    if (!t->failed)
        t->failure = *st;
    t->failed = true;
    atomic_store(&t->stop, true);
    pthread_cond_broadcast(&t->work);
    pthread_cond_signal(&t->done);
}

/* --- opening and closing files -----------------------------------------------------------------
 */

static void close_item(struct transfer *t, struct item *item, enum item_state state)
{
    if (item->state == ITEM_ACTIVE)
        t->num_active--;
    hub_parts_close(&item->parts);
    hub_digest_free(item->digest);
    item->digest = NULL;
    free(item->taken);
    item->taken = NULL;
    free(item->location);
    item->location = NULL;
    if (item->lock_fd >= 0)
        close(item->lock_fd);
    item->lock_fd = -1;
    item->state = state;
    if (state == ITEM_DONE)
        t->num_done++;
}

/* The hash and the parts begin anew; what the parts have counts as taken. */
static bool begin_item(struct item *item, struct status *st)
{
    hub_digest_free(item->digest);
    item->digest = hub_digest_new(item->file->digest, item->file->size_bytes, st);
    if (!item->digest)
        return false;
    item->num_hashed = item->next_part = 0;
    item->in_one_stream = item->stream_taken = false;
    item->found_bytes = 0;
    for (int32_t i = 0; i < item->parts.num_parts; i++) {
        item->taken[i] = hub_parts_is_whole(&item->parts, i);
        item->found_bytes += atomic_load(&item->parts.received[i]);
    }
    item->begun_ns = clock_now_ns();
    return true;
}

static bool open_item(struct transfer *t, struct item *item, struct status *st)
{
    const struct hub_cache *cache = t->options->cache;
    const struct hub_file *file = item->file;
    item->lock_fd = hub_cache_lock(cache, file->digest, st);
    if (item->lock_fd == -2)
        return false;
    if (item->lock_fd == -1) {
        if (item->state != ITEM_BUSY)
            log_info("hub: another process downloads %s; waiting for it", file->path);
        item->state = ITEM_BUSY;
        return true;
    }
    if (hub_cache_has_blob(cache, file->digest, file->size_bytes)) {
        close_item(t, item, ITEM_DONE);
        return true;
    }
    if (!hub_parts_open(&item->parts, cache->blobs_dir, file->digest, file->size_bytes, st))
        return false;
    item->taken = xcalloc((size_t)item->parts.num_parts + 1, sizeof *item->taken);
    item->state = ITEM_ACTIVE;
    t->num_active++;
    pthread_cond_broadcast(&t->work);
    return begin_item(item, st);
}

static void open_items(struct transfer *t)
{
    struct status st;
    for (int32_t i = 0; i < t->num_items && t->num_active < LIMIT_HUB_CONNECTIONS; i++) {
        struct item *item = &t->items[i];
        if ((item->state == ITEM_NEW || item->state == ITEM_BUSY) && !t->failed &&
            !open_item(t, item, &st)) {
            status_prefix(&st, "%.200s: ", item->file->path);
            fail(t, &st);
        }
    }
}

/* --- jobs --------------------------------------------------------------------------------------
 */

static bool can_hash(const struct item *item)
{
    return !item->hashing && (item->num_hashed == item->parts.num_parts ||
                              hub_parts_is_whole(&item->parts, item->num_hashed));
}

static bool take_part(struct item *item, int32_t *part)
{
    if (item->in_one_stream) {
        /* All of it is written anew: nobody else may be at it. */
        if (item->stream_taken || item->num_running > 0 || item->hashing)
            return false;
        item->stream_taken = true;
        *part = STREAM;
        return true;
    }
    while (item->next_part < item->parts.num_parts && item->taken[item->next_part])
        item->next_part++;
    if (item->next_part == item->parts.num_parts)
        return false;
    *part = item->next_part;
    item->taken[item->next_part++] = true;
    return true;
}

static bool take_job(struct transfer *t, struct job *job)
{
    for (int32_t i = 0; i < t->num_items; i++) {
        struct item *item = &t->items[i];
        /* While a stream is due or on its way, parts that look whole are about to be written. */
        bool stable = !item->in_one_stream || (item->stream_taken && item->num_running == 0);
        if (item->state == ITEM_ACTIVE && stable && can_hash(item)) {
            item->hashing = true;
            *job = (struct job){ .kind = JOB_HASH, .item = item };
            return true;
        }
    }
    for (int32_t i = 0; i < t->num_items; i++) {
        struct item *item = &t->items[i];
        if (item->state == ITEM_ACTIVE && take_part(item, &job->part)) {
            item->num_running++;
            job->kind = JOB_FETCH;
            job->item = item;
            return true;
        }
    }
    return false;
}

/* --- hashing, and the end of a file ------------------------------------------------------------
 */

static bool hash_part(struct item *item, int32_t part, void *buffer, struct status *st)
{
    const struct hub_parts *p = &item->parts;
    uint64_t at = hub_parts_begin(p, part), end = at + hub_parts_length(p, part);
    while (at < end) {
        uint32_t n = end - at < HASH_BYTES ? (uint32_t)(end - at) : HASH_BYTES;
        if (!hub_parts_read(p, at, buffer, n, st))
            return false;
        hub_digest_update(item->digest, buffer, n);
        at += n;
    }
    return true;
}

/* A wrong hash may come from a crash of the machine or a bad wire: once is no reason to give up. */
static bool begin_again(struct item *item, const char *found, struct status *st)
{
    if (++item->num_broken == MAX_BROKEN) {
        hub_parts_remove(&item->parts);
        return status_set(st, STATUS_IO,
                          "came %d times with the hash %s instead of %s: the hub or something on "
                          "the way to it changes the contents; what came is discarded",
                          item->num_broken, found, item->file->digest);
    }
    log_warning("hub: %s has the hash %s instead of %s; fetching all of it again", item->file->path,
                found, item->file->digest);
    free(item->location);
    item->location = NULL;
    return hub_parts_reset(&item->parts, st) && begin_item(item, st);
}

/* All parts are hashed. Called with the mutex, which is released while the disk works. */
static bool finish_item(struct transfer *t, struct item *item, struct status *st)
{
    char found[65];
    const struct hub_file *file = item->file;
    if (!hub_digest_matches(item->digest, found))
        return begin_again(item, found, st);
    char *path = hub_cache_blob_path(t->options->cache, file->digest);
    pthread_mutex_unlock(&t->mutex);
    bool ok = hub_parts_publish(&item->parts, path, st);
    pthread_mutex_lock(&t->mutex);
    free(path);
    if (!ok)
        return false;
    double seconds = clock_seconds_between(item->begun_ns, clock_now_ns());
    uint64_t fetched = file->size_bytes - item->found_bytes;
    log_debug("hub: %s: %llu bytes in %.3f s, verified", file->path, (unsigned long long)fetched,
              seconds);
    close_item(t, item, ITEM_DONE);
    return true;
}

/* Hashes for as long as the next part is there. With the mutex, but for the hashing itself. */
static bool run_hash(struct transfer *t, struct item *item, void *buffer, struct status *st)
{
    bool ok = true;
    while (ok && item->num_hashed < item->parts.num_parts &&
           hub_parts_is_whole(&item->parts, item->num_hashed)) {
        int32_t part = item->num_hashed;
        pthread_mutex_unlock(&t->mutex);
        ok = !atomic_load(&t->stop) && hash_part(item, part, buffer, st);
        pthread_mutex_lock(&t->mutex);
        item->num_hashed += ok;
    }
    if (ok && item->num_hashed == item->parts.num_parts)
        ok = finish_item(t, item, st);
    item->hashing = false;
    return ok;
}

/* --- fetching ----------------------------------------------------------------------------------
 */

static bool run_fetch(struct transfer *t, struct hub_http *h, const struct job *job,
                      struct status *st)
{
    struct item *item = job->item;
    if (job->part == STREAM) { /* nobody hashes now: what was hashed is written anew */
        hub_digest_free(item->digest);
        item->num_hashed = 0;
        item->digest = hub_digest_new(item->file->digest, item->file->size_bytes, st);
        if (!item->digest)
            return false;
    }
    pthread_mutex_unlock(&t->mutex);
    enum fetch_result result = hub_fetch_part(t, h, item, job->part, st);
    pthread_mutex_lock(&t->mutex);
    item->num_running--;
    if (result == FETCH_NO_RANGES && !item->in_one_stream) {
        log_warning("hub: %s: the server knows no ranges; fetching it over one connection, which "
                    "cannot be resumed",
                    item->file->path);
        item->in_one_stream = true;
    }
    return result != FETCH_FAILED;
}

static void *worker_main(void *arg)
{
    struct transfer *t = arg;
    struct hub_http *h = hub_http_open(&t->http);
    void *buffer = xmalloc(HASH_BYTES);
    struct job job;
    struct status st = { 0 };
    pthread_mutex_lock(&t->mutex);
    while (!t->over && !t->failed) {
        if (!take_job(t, &job)) {
            pthread_cond_wait(&t->work, &t->mutex);
            continue;
        }
        bool ok =
            job.kind == JOB_HASH ? run_hash(t, job.item, buffer, &st) : run_fetch(t, h, &job, &st);
        if (!ok) {
            if (job.kind == JOB_HASH)
                status_prefix(&st, "%.200s: ", job.item->file->path);
            fail(t, &st);
        }
        pthread_cond_broadcast(&t->work);
        pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->mutex);
    free(buffer);
    hub_http_close(h);
    return NULL;
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static uint64_t received_bytes(const struct item *item)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < item->parts.num_parts; i++)
        sum += atomic_load(&item->parts.received[i]);
    return sum;
}

static uint64_t show(struct transfer *t, struct hub_progress *progress)
{
    struct hub_progress_row rows[LIMIT_HUB_CONNECTIONS];
    int32_t num_rows = 0;
    uint64_t done_bytes = 0;
    for (int32_t i = 0; i < t->num_items; i++) {
        const struct item *item = &t->items[i];
        uint64_t bytes = item->state == ITEM_DONE     ? item->file->size_bytes
                         : item->state == ITEM_ACTIVE ? received_bytes(item)
                                                      : 0;
        done_bytes += bytes;
        if (item->state == ITEM_ACTIVE && num_rows < LIMIT_HUB_CONNECTIONS)
            rows[num_rows++] =
                (struct hub_progress_row){ item->file->path, bytes, item->file->size_bytes };
    }
    hub_progress_tick(progress, rows, num_rows, done_bytes, t->num_done);
    return done_bytes;
}

static void wait_tick(struct transfer *t)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&t->done, &t->mutex, &until);
}

static void main_loop(struct transfer *t)
{
    struct hub_progress progress;
    uint64_t total = 0, found = 0;
    for (int32_t i = 0; i < t->num_items; i++) {
        const struct hub_file *file = t->items[i].file;
        total += file->size_bytes;
        found += hub_parts_left(t->options->cache->blobs_dir, file->digest, file->size_bytes);
    }
    hub_progress_begin(&progress, total, found, t->num_items, t->options->show_bars);
    pthread_mutex_lock(&t->mutex);
    while (!t->failed && t->num_done < t->num_items) {
        open_items(t);
        wait_tick(t);
        uint64_t now_bytes = show(t, &progress);
        if (t->options->on_progress)
            t->options->on_progress(t->options->progress_arg, now_bytes, total);
    }
    uint64_t done_bytes = show(t, &progress);
    t->over = true;
    pthread_cond_broadcast(&t->work);
    int32_t num_done = t->num_done;
    pthread_mutex_unlock(&t->mutex);
    hub_progress_end(&progress, done_bytes, num_done);
}

static int32_t wanted_workers(const struct transfer *t)
{
    uint64_t jobs = 0;
    for (int32_t i = 0; i < t->num_items; i++)
        jobs += 1 + t->items[i].file->size_bytes / LIMIT_HUB_PART_BYTES;
    return jobs < LIMIT_HUB_CONNECTIONS ? (int32_t)jobs : LIMIT_HUB_CONNECTIONS;
}

static void run(struct transfer *t)
{
    pthread_t threads[LIMIT_HUB_CONNECTIONS];
    int32_t wanted = wanted_workers(t), started = 0;
    struct status st;
    for (; started < wanted; started++) {
        char name[16];
        snprintf(name, sizeof name, "hub %d", started);
        if (!thread_start(&threads[started], name, worker_main, t, &st))
            break;
    }
    if (started == 0) {
        pthread_mutex_lock(&t->mutex);
        fail(t, &st);
        pthread_mutex_unlock(&t->mutex);
    }
    main_loop(t);
    for (int32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

bool hub_transfer(const struct hub_transfer_options *o, const struct hub_file *const *files,
                  int32_t count, struct status *st)
{
    struct transfer t = { .options = o, .http = *o->site->http, .num_items = count };
    pthread_condattr_t monotonic;
    if (count == 0)
        return true;
    t.http.stop = &t.stop;
    t.site = (struct hub_site){ .http = &t.http, .repo = o->site->repo };
    t.items = xcalloc((size_t)count, sizeof *t.items);
    for (int32_t i = 0; i < count; i++)
        t.items[i] = (struct item){ .file = files[i],
                                    .lock_fd = -1,
                                    .parts = { .fd = -1, .record_fd = -1 } };
    pthread_mutex_init(&t.mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&t.work, NULL);
    pthread_cond_init(&t.done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    run(&t);
    for (int32_t i = 0; i < count; i++)
        if (t.items[i].state != ITEM_DONE)
            close_item(&t, &t.items[i], ITEM_NEW);
    pthread_cond_destroy(&t.work);
    pthread_cond_destroy(&t.done);
    pthread_mutex_destroy(&t.mutex);
    free(t.items);
    if (t.failed)
        *st = t.failure;
    return !t.failed;
}
