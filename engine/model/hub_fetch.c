/* hub_fetch.c - one part of one file, again and again until it is here or that is hopeless. Where
 * the hub redirects to is remembered for the file, so that the hub is asked once and not once per
 * part; any failure there leads back to the hub, since such URLs expire. */
#include "engine/model/hub_transfer_internal.h"

#include "base/alloc.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* Fewer bytes than this between two failures count as none: a server that drips must not keep a
 * download alive forever. */
enum { PROGRESS_BYTES = 1 << 20 };

struct fetch {
    struct item *item;
    int32_t part;        /* or STREAM */
    uint64_t begin, end; /* of this request, within the file */
    uint64_t got;        /* of this request */
    bool asked_range;
    bool no_ranges;
    bool disk_failed;
};

static bool fetch_begin(void *arg, const struct hub_http_head *head, struct status *st)
{
    struct fetch *f = arg;
    return hub_api_check_range(head, f->begin, f->end, f->item->file->size_bytes, &f->no_ranges,
                               st);
}

/* In one stream the parts fill one after the other. */
static bool store(struct fetch *f, const char *data, size_t len, struct status *st)
{
    struct hub_parts *p = &f->item->parts;
    while (len > 0) {
        uint64_t at = f->begin + f->got;
        int32_t part = f->part == STREAM ? (int32_t)(at / LIMIT_HUB_PART_BYTES) : f->part;
        uint64_t room = hub_parts_begin(p, part) + hub_parts_length(p, part) - at;
        uint32_t n = len < room ? (uint32_t)len : (uint32_t)room;
        if (!hub_parts_write(p, part, data, n, st)) {
            f->disk_failed = true;
            return false;
        }
        f->got += n;
        data += n;
        len -= n;
    }
    return true;
}

static bool fetch_body(void *arg, const void *data, size_t len, struct status *st)
{
    struct fetch *f = arg;
    uint64_t left = f->end - f->begin - f->got;
    if (!store(f, data, len < left ? len : (size_t)left, st))
        return false;
    return len <= left || status_set(st, STATUS_IO, "the server sends more than the %llu bytes due",
                                     (unsigned long long)(f->end - f->begin));
}

/* --- where to ask ------------------------------------------------------------------------------
 */

static char *known_location(struct transfer *t, struct item *item)
{
    pthread_mutex_lock(&t->mutex);
    char *url = item->location ? xstrdup(item->location) : NULL;
    pthread_mutex_unlock(&t->mutex);
    return url;
}

/* `url` NULL forgets it. */
static void set_location(struct transfer *t, struct item *item, const char *url)
{
    pthread_mutex_lock(&t->mutex);
    free(item->location);
    item->location = url ? xstrdup(url) : NULL;
    pthread_mutex_unlock(&t->mutex);
}

static enum hub_http_result request(struct transfer *t, struct hub_http *h, struct fetch *f,
                                    struct hub_http_head *head, struct status *st)
{
    char *location = known_location(t, f->item);
    char *url =
        location ? location : hub_api_file_url(&t->site, t->options->commit, f->item->file->path);
    const struct hub_http_request r = {
        .url = url,
        .without_token = location != NULL,
        .has_range = f->begin != 0 || f->end != f->item->file->size_bytes,
        .begin = f->begin,
        .end = f->end,
        .sink = { fetch_begin, fetch_body, f },
    };
    enum hub_http_result result = hub_http_get(h, &r, head, st);
    bool arrived = f->got == f->end - f->begin;
    if (arrived && !location && head->left_endpoint)
        set_location(t, f->item, head->url);
    else if (!arrived && location)
        set_location(t, f->item, NULL);
    free(url);
    return result;
}

/* --- one part ----------------------------------------------------------------------------------
 */

/* What is still missing; false: nothing. */
static bool next_request(struct fetch *f)
{
    const struct hub_parts *p = &f->item->parts;
    f->got = 0;
    f->begin = 0;
    f->end = p->size_bytes;
    if (f->part != STREAM) {
        f->begin = hub_parts_begin(p, f->part) + atomic_load(&p->received[f->part]);
        f->end = hub_parts_begin(p, f->part) + hub_parts_length(p, f->part);
    }
    return f->begin < f->end;
}

/* After a request that did not bring all: whether to try again. */
static bool try_again(struct transfer *t, struct hub_http *h, struct fetch *f,
                      enum hub_http_result result, const struct hub_http_head *head,
                      struct hub_http_pause *pause, struct status *st)
{
    if (f->disk_failed || atomic_load(&t->stop))
        return false;
    if (result == HUB_HTTP_REFUSED && !head->left_endpoint)
        return hub_api_explain(&t->site, t->options->commit, f->item->file->path, head, st);
    if (result == HUB_HTTP_OK)
        status_set(st, STATUS_IO, "the answer ended after %llu of %llu bytes",
                   (unsigned long long)f->got, (unsigned long long)(f->end - f->begin));
    if (f->got >= PROGRESS_BYTES && f->part != STREAM)
        pause->failures = 0;
    log_debug("hub: %s: %s; trying again", f->item->file->path, st->message);
    if (!hub_http_pause(h, pause, head->retry_after_s, st))
        return false;
    /* Without ranges there is no going on in the middle. */
    return f->part != STREAM || hub_parts_reset(&f->item->parts, st);
}

enum fetch_result hub_fetch_part(struct transfer *t, struct hub_http *h, struct item *item,
                                 int32_t part, struct status *st)
{
    struct fetch f = { .item = item, .part = part };
    struct hub_http_pause pause = { 0 };
    struct hub_http_head head;
    if (part == STREAM && !hub_parts_reset(&item->parts, st))
        return FETCH_FAILED;
    while (next_request(&f)) {
        enum hub_http_result result = request(t, h, &f, &head, st);
        if (f.got == f.end - f.begin)
            return FETCH_DONE;
        if (f.no_ranges)
            return FETCH_NO_RANGES;
        if (!try_again(t, h, &f, result, &head, &pause, st)) {
            status_prefix(st, "%.200s: ", item->file->path);
            return FETCH_FAILED;
        }
    }
    return FETCH_DONE;
}
