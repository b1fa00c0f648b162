/* hub_api.c - URLs, and answers turned into sentences. */
#include "engine/model/hub_api.h"

#include <stdlib.h>
#include <string.h>

/* --- URLs --------------------------------------------------------------------------------------
 */

char *hub_api_file_url(const struct hub_site *s, const char *commit, const char *path)
{
    struct buf url;
    buf_init(&url, 0);
    buf_printf(&url, "%s/%s/resolve/", s->http->endpoint, s->repo);
    hub_http_escape(&url, commit, false);
    buf_append_char(&url, '/');
    hub_http_escape(&url, path, true);
    return buf_take(&url);
}

static char *list_url(const struct hub_site *s, const char *revision)
{
    struct buf url;
    buf_init(&url, 0);
    buf_printf(&url, "%s/api/models/%s/revision/", s->http->endpoint, s->repo);
    hub_http_escape(&url, revision, false);
    buf_append_str(&url, "?blobs=true");
    return buf_take(&url);
}

/* --- refusals ----------------------------------------------------------------------------------
 */

static bool explain_gated(const struct hub_site *s, const struct hub_http_head *head,
                          struct status *st)
{
    bool has_token = s->http->token != NULL;
    enum status_code code = head->code == 401 ? STATUS_UNAUTHORIZED : STATUS_FORBIDDEN;
    if (strcmp(head->error_code, "GatedRepo") == 0)
        return status_set(st, code, "%s is gated (%d): accept its conditions at %s/%s%s", s->repo,
                          head->code, s->http->endpoint, s->repo,
                          has_token ? " with the account that the token belongs to"
                                    : ", then give a token of your account (HF_TOKEN or "
                                      "--hf-token)");
    if (head->code == 403)
        return status_set(st, code,
                          "%s refuses %s (403)%s%s; does the token have the right to "
                          "read it?",
                          s->http->endpoint, s->repo, head->error_message[0] ? ": " : "",
                          head->error_message);
    if (has_token)
        return status_set(st, code,
                          "%s shows no model %s to this token (401): is the name right, "
                          "and the token valid?",
                          s->http->endpoint, s->repo);
    return status_set(st, code,
                      "%s shows no model %s without a token (401): is the name right? A "
                      "private model needs HF_TOKEN or --hf-token",
                      s->http->endpoint, s->repo);
}

bool hub_api_explain(const struct hub_site *s, const char *revision, const char *path,
                     const struct hub_http_head *head, struct status *st)
{
    if (head->code == 401 || head->code == 403)
        return explain_gated(s, head, st);
    if (head->code != 404)
        return status_prefix(st, "%s: ", s->http->endpoint);
    if (path)
        return status_set(st, STATUS_NOT_FOUND, "%s has no file '%.200s' in %s at %.60s (404)",
                          s->http->endpoint, path, s->repo, revision);
    if (strcmp(head->error_code, "RevisionNotFound") == 0)
        return status_set(st, STATUS_NOT_FOUND,
                          "%s has %s, but no branch, tag or commit '%.100s' of it (404)",
                          s->http->endpoint, s->repo, revision);
    return status_set(st, STATUS_NOT_FOUND,
                      "%s has no model %s (404), and there is no directory of that name here",
                      s->http->endpoint, s->repo);
}

/* --- ranges ------------------------------------------------------------------------------------
 */

bool hub_api_check_range(const struct hub_http_head *head, uint64_t begin, uint64_t end,
                         uint64_t size_bytes, bool *ignored, struct status *st)
{
    bool whole = begin == 0 && end == size_bytes;
    *ignored = false;
    if (head->code != 206) {
        *ignored = !whole;
        if (!whole)
            return status_set(st, STATUS_IO, "the server ignores that a range was asked for");
    } else if (!head->has_range || head->range_begin != begin || head->range_end != end ||
               (head->range_size && head->range_size != size_bytes)) {
        return status_set(st, STATUS_IO,
                          "asked for bytes %llu-%llu of %llu, the server answers with %llu-%llu of "
                          "%llu",
                          (unsigned long long)begin, (unsigned long long)end,
                          (unsigned long long)size_bytes, (unsigned long long)head->range_begin,
                          (unsigned long long)head->range_end,
                          (unsigned long long)head->range_size);
    }
    if (head->has_length && head->length != end - begin)
        return status_set(st, STATUS_IO, "the server announces %llu bytes where %llu are due",
                          (unsigned long long)head->length, (unsigned long long)(end - begin));
    return true;
}

/* --- requests ----------------------------------------------------------------------------------
 */

static bool take_text(void *arg, const void *data, size_t len, struct status *st)
{
    struct buf *out = arg;
    buf_append(out, data, len);
    return !out->overflow ||
           status_set(st, STATUS_TOO_LARGE, "the answer is longer than %zu bytes", out->max_bytes);
}

static bool get_list(const struct hub_site *s, const char *url, const char *revision, bool patient,
                     struct buf *text, struct status *st)
{
    struct hub_http_head head;
    struct hub_http_pause pause = { 0 };
    const struct hub_http_request request = { .url = url,
                                              .max_seconds = LIMIT_HUB_ANSWER_SECONDS,
                                              .sink = { .body = take_text, .arg = text } };
    for (;;) {
        buf_clear(text);
        switch (hub_http_get(s->connection, &request, &head, st)) {
        case HUB_HTTP_OK:
            return true;
        case HUB_HTTP_REFUSED:
            return hub_api_explain(s, revision, NULL, &head, st);
        case HUB_HTTP_ENDED:
            return status_prefix(st, "%s: ", s->http->endpoint);
        case HUB_HTTP_RETRY:
            if (!patient || !hub_http_pause(s->connection, &pause, head.retry_after_s, st))
                return status_prefix(st, "%s: ", s->http->endpoint);
        }
    }
}

bool hub_api_list(const struct hub_site *s, const char *revision, bool patient,
                  struct hub_listing *out, struct status *st)
{
    struct buf text;
    char *url = list_url(s, revision);
    buf_init(&text, LIMIT_HUB_ANSWER_BYTES);
    bool ok = get_list(s, url, revision, patient, &text, st) &&
              hub_listing_parse(buf_str(&text), text.len, out, st);
    buf_free(&text);
    free(url);
    return ok;
}

/* A range on its way into a buffer. */
struct range_read {
    uint64_t begin, end, size_bytes;
    struct buf *out;
};

static bool range_begin(void *arg, const struct hub_http_head *head, struct status *st)
{
    const struct range_read *r = arg;
    bool ignored;
    if (hub_api_check_range(head, r->begin, r->end, r->size_bytes, &ignored, st))
        return true;
    /* The whole file, from its first byte: what is wanted may be its beginning. */
    return ignored && r->begin == 0;
}

static bool range_body(void *arg, const void *data, size_t len, struct status *st)
{
    struct range_read *r = arg;
    uint64_t left = r->end - r->begin;
    buf_append(r->out, data, len < left ? len : (size_t)left);
    r->begin += len < left ? len : left;
    return len <= left || status_set(st, STATUS_CANCELLED, "all that was wanted is here");
}

bool hub_api_read(const struct hub_site *s, const char *commit, const struct hub_file *file,
                  uint64_t begin, uint64_t end, struct buf *out, struct status *st)
{
    struct hub_http_head head;
    struct hub_http_pause pause = { 0 };
    struct range_read read = { begin, end, file->size_bytes, out };
    char *url = hub_api_file_url(s, commit, file->path);
    bool ok = true;
    while (ok && read.begin < end) {
        const struct hub_http_request request = {
            .url = url,
            .has_range = read.begin != 0 || end != file->size_bytes,
            .begin = read.begin,
            .end = end,
            .sink = { range_begin, range_body, &read },
        };
        enum hub_http_result result = hub_http_get(s->connection, &request, &head, st);
        if (read.begin == end)
            break;
        if (result == HUB_HTTP_REFUSED && !head.left_endpoint)
            ok = hub_api_explain(s, commit, file->path, &head, st);
        else if (result == HUB_HTTP_OK)
            status_set(st, STATUS_IO, "the answer ended early");
        ok = ok && hub_http_pause(s->connection, &pause, head.retry_after_s, st);
    }
    free(url);
    return ok || status_prefix(st, "%.200s: ", file->path);
}
