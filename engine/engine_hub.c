/* engine_hub.c - the stage that turns MODEL into a path on this machine: nothing where it is one
 * already, else a snapshot of the hub's. */
#include "engine/engine_internal.h"

#include "base/alloc.h"
#include "base/log.h"
#include "config/limits.h"
#include "engine/model/hub.h"
#include "engine/model/hub_progress.h"
#include "engine/model/hub_ref.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What `hf auth login` has kept; *token stays NULL where there is no such file. */
static bool read_token_file(const char *path, char **token, struct status *st)
{
    char text[LIMIT_HUB_TOKEN_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return true;
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return status_set(st, STATUS_IO, "cannot read the hub's token in %.200s: %s", path,
                          strerror(error));
    while (n > 0 && strchr(" \r\n\t", text[n - 1]))
        n--;
    for (ssize_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] >= 0x7f)
            return status_set(st, STATUS_INVALID, "%.200s does not hold a token", path);
    *token = n > 0 ? xstrndup(text, (size_t)n) : NULL;
    return true;
}

static void begin_request(const struct config *c, struct hub_request *r)
{
    *r = (struct hub_request){
        .model = c->model,
        .revision = c->revision,
        .with_weights = strcmp(c->load_format, "dummy") != 0,
        .cache_dir = c->hub.cache_dir,
        .endpoint = c->hub.endpoint,
        .token = c->hub.token,
        .offline = c->hub.offline,
        .show_bars = !c->hub.no_bars && !c->journal_stream,
        .timeout_s = c->hub.timeout_s,
        .tmp_dir = c->hub.tmp_dir,
        .ca_file = c->hub.ca_file,
    };
}

/* "45 % of 600 MB", for health checks and the supervisor. */
static void tell_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    struct engine *e = arg;
    char text[sizeof e->progress];
    double share = total_bytes ? (double)done_bytes / (double)total_bytes : 1;
    snprintf(text, sizeof text, "%.0f %% of %s", 100 * share,
             hub_size_show((double)total_bytes).text);
    engine_set_progress(e, text);
}

static bool find_model(struct engine *e, const struct hub_request *r, struct status *st)
{
    const char *model = e->config->model;
    if (hub_ref_is_local(model)) {
        e->model_path = xstrdup(model);
        /* The next stage would say so too, and `pull` has none. */
        return access(model, F_OK) == 0 ||
               status_set(st, STATUS_NOT_FOUND,
                          "model '%.300s': %s, and that is no ORG/NAME of a model on the hub",
                          model, strerror(errno));
    }
    return e->config->command == COMMAND_PLAN ? hub_sketch(r, &e->model_path, &e->sketch_dir, st)
                                              : hub_snapshot(r, &e->model_path, st);
}

/* --tokenizer takes the same names; --revision belongs to MODEL. */
static bool find_tokenizer(struct engine *e, const struct hub_request *model, struct status *st)
{
    const char *tokenizer = e->config->tokenizer;
    if (!tokenizer || e->sketch_dir) /* a sketch is planned with, and no plan needs a tokenizer */
        return true;
    if (hub_ref_is_local(tokenizer)) {
        e->tokenizer_path = xstrdup(tokenizer);
        return true;
    }
    struct hub_request r = *model;
    r.model = tokenizer;
    r.revision = NULL;
    r.with_weights = false;
    return hub_snapshot(&r, &e->tokenizer_path, st) || status_prefix(st, "--tokenizer: ");
}

bool engine_hub_up(void *context, struct status *st)
{
    struct engine *e = context;
    const struct config *c = e->config;
    struct hub_request r;
    char *token = NULL;
    begin_request(c, &r);
    r.on_progress = tell_progress;
    r.progress_arg = e;
    if (c->revision && hub_ref_is_local(c->model))
        log_warning("--revision is for models of the hub; '%s' is on this machine", c->model);
    bool asks = !hub_ref_is_local(c->model) || (c->tokenizer && !hub_ref_is_local(c->tokenizer));
    bool ok = !asks || r.token || !c->hub.token_file || c->hub.offline ||
              read_token_file(c->hub.token_file, &token, st);
    if (token)
        r.token = token;
    ok = ok && find_model(e, &r, st) && find_tokenizer(e, &r, st);
    free(token);
    engine_set_progress(e, ""); /* of this stage alone */
    if (!ok)
        engine_hub_down(e);
    return ok;
}

void engine_hub_down(void *context)
{
    struct engine *e = context;
    if (e->sketch_dir)
        hub_sketch_remove(e->sketch_dir);
    free(e->sketch_dir);
    free(e->model_path);
    free(e->tokenizer_path);
    e->sketch_dir = e->model_path = e->tokenizer_path = NULL;
}
