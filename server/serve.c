/* serve.c - the daemon's life. The listening socket comes first, so that a health check can be told
 * what the rest is waiting for; it goes last but one step: once nothing is connected any more, the
 * engine can be taken down without a thread looking at it. */
#include "server/serve.h"
#include "base/clock.h"
#include "base/log.h"
#include "server/http.h"
#include "server/notify.h"
#include "server/routes.h"
#include "server/server.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    TICK_MS = 200,
    DRAIN_TICK_MS = 20,
    /* What ends the streams after an abort: each needs one engine step and one write. */
    ABORT_GRACE_MS = 3000,
    EXTEND_TIMEOUT_USEC = 2000000000, /* half an hour from then on */
    /* Descriptors beside those of connections: model files, logs, the listening socket. */
    OTHER_DESCRIPTORS = 192
};

struct daemon {
    const struct config *config;
    struct startup startup;
    struct engine *engine;
    struct server server;
    struct http_server *http; /* NULL while not listening */
    struct notifier notifier;
    sigset_t signals;
    uint64_t told_ns; /* when the supervisor was last told of progress */
};

enum { GIVE_UP_MS = 5000 }; /* what a failed engine's clients have to read their errors */

/* --- signals ------------------------------------------------------------------------------------
 */

static void block_signals(struct daemon *d)
{
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&d->signals);
    sigaddset(&d->signals, SIGTERM);
    sigaddset(&d->signals, SIGINT);
    sigaddset(&d->signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &d->signals, NULL);
}

/* Nothing is served yet, so nothing has to end properly. A handler, since a process that is the
 * first of its container ignores signals that have none. */
static void end_while_loading(int number)
{
    static const char text[] = "stopped while loading\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    (void)number;
    _exit(0); /* it was asked for: no failure that a supervisor should answer */
}

/* Between the two, SIGTERM and SIGINT end the process at once. The threads of the HTTP server must
 * have been started before the first: they inherit which signals are blocked. */
static void begin_loading(void)
{
    struct sigaction action = { .sa_handler = end_while_loading };
    sigset_t ending;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &ending, NULL);
}

static void end_loading(struct daemon *d)
{
    pthread_sigmask(SIG_BLOCK, &d->signals, NULL);
}

/* The next signal within the time, or 0. */
static int wait_signal(struct daemon *d, int32_t timeout_ms)
{
    struct timespec timeout = { .tv_sec = timeout_ms / 1000,
                                .tv_nsec = (long)(timeout_ms % 1000) * 1000000 };
    int number = sigtimedwait(&d->signals, NULL, &timeout);
    return number > 0 ? number : 0;
}

/* --- the listening socket as a stage ------------------------------------------------------------
 */

/* As many connections as asked for, as far as descriptors go. */
static int32_t descriptors_for_connections(int32_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return wanted;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= (rlim_t)wanted + OTHER_DESCRIPTORS)
        return wanted;
    int32_t possible = limit.rlim_max > 2 * OTHER_DESCRIPTORS
                           ? (int32_t)limit.rlim_max - OTHER_DESCRIPTORS
                           : OTHER_DESCRIPTORS / 2;
    if (possible >= wanted)
        return wanted;
    log_warning("only %d connections instead of --max-connections %d: the limit of open files is "
                "%llu",
                possible, wanted, (unsigned long long)limit.rlim_max);
    return possible;
}

static bool listen_up(void *context, struct status *st)
{
    struct daemon *d = context;
    const struct http_options options = {
        .host = d->config->host,
        .port = (int32_t)d->config->port,
        .max_connections = descriptors_for_connections((int32_t)d->config->max_connections),
        .max_body_bytes = (size_t)d->config->max_body_bytes,
        .idle_timeout_s = d->config->connection_timeout,
        .screen = routes_screen,
        .handle = routes_handle,
        .completed = routes_completed,
        .app = &d->server,
    };
    if (!http_start(&options, &d->http, st))
        return false;
    begin_loading();
    log_info("listening on %s; until the model is loaded, /health says what is being done",
             http_url(d->http));
    return true;
}

static void listen_down(void *context)
{
    struct daemon *d = context;
    if (d->http)
        http_stop(d->http);
    d->http = NULL;
}

static const struct startup_stage listen_stage = { "listening socket", listen_up, listen_down };

/* A download may take longer than the supervisor waits for READY=1 (TimeoutStartSec): as long as it
 * goes on, the wait is extended. The last extension covers the stages that follow. */
static void tell_progress(void *arg, const char *text)
{
    struct daemon *d = arg;
    uint64_t now = clock_now_ns();
    if (now - d->told_ns < UINT64_C(1000000000))
        return;
    d->told_ns = now;
    notify_send(&d->notifier, "STATUS=loading: %s, %s\nEXTEND_TIMEOUT_USEC=%d",
                startup_current(&d->startup), text, EXTEND_TIMEOUT_USEC);
}

static void tell_stage(void *arg, const char *name)
{
    struct daemon *d = arg;
    notify_send(&d->notifier, "STATUS=loading: %s", name);
}

/* --- serving -------------------------------------------------------------------------------------
 */

static void reload(struct daemon *d)
{
    notify_send(&d->notifier, "RELOADING=1\nMONOTONIC_USEC=%llu",
                (unsigned long long)(clock_now_ns() / 1000));
    log_info("SIGHUP: nothing is read again while running; restart to change the configuration");
    notify_send(&d->notifier, "READY=1");
}

/* Serves until a signal (true) or until the engine fails (false). */
static bool serve_until_told(struct daemon *d)
{
    for (;;) {
        int number = wait_signal(d, notify_sleep_ms(&d->notifier, TICK_MS));
        if (number == SIGHUP) {
            reload(d);
        } else if (number) {
            log_info("%s: no new requests; what runs may finish within %g s", strsignal(number),
                     d->config->shutdown_timeout);
            return true;
        }
        if (engine_state(d->engine) == ENGINE_FAILED)
            return false;
        notify_watchdog(&d->notifier, clock_now_ns(), engine_heartbeat(d->engine));
    }
}

/* --- the end ------------------------------------------------------------------------------------
 */

/* Waits until every answer has left. Gives up at the time or, with `may_hurry`, at a signal. */
static void wait_for_answers(struct daemon *d, uint64_t until_ns, bool may_hurry)
{
    while (http_num_active(d->http) > 0 && clock_now_ns() < until_ns) {
        int number = wait_signal(d, DRAIN_TICK_MS);
        if (may_hurry && (number == SIGTERM || number == SIGINT)) {
            log_info("second signal: ending %d running requests now",
                     engine_num_unfinished(d->engine));
            return;
        }
        notify_watchdog(&d->notifier, clock_now_ns(), engine_heartbeat(d->engine));
    }
}

static void drain(struct daemon *d, double timeout_s)
{
    notify_send(&d->notifier, "STOPPING=1\nSTATUS=finishing running requests");
    engine_drain(d->engine);
    http_quiesce(d->http);
    wait_for_answers(d, clock_now_ns() + (uint64_t)(timeout_s * 1e9), true);
    if (http_num_active(d->http) > 0) {
        engine_abort_all(d->engine);
        wait_for_answers(d, clock_now_ns() + UINT64_C(1000000) * ABORT_GRACE_MS, false);
    }
    listen_down(d);
}

static void log_failure(struct daemon *d)
{
    struct status st;
    engine_get_failure(d->engine, &st);
    log_error("the engine has failed: %s", st.message);
    notify_send(&d->notifier, "STATUS=the engine has failed: %s", st.message);
}

static void tell_ready(struct daemon *d)
{
    log_info("ready: serving %s at %s", d->server.names[0], http_url(d->http));
    notify_send(&d->notifier, "READY=1\nSTATUS=serving %s at %s", d->server.names[0],
                http_url(d->http));
}

static bool bring_up(struct daemon *d, struct status *st)
{
    startup_init(&d->startup);
    d->startup.on_stage = tell_stage;
    d->startup.on_stage_arg = d;
    startup_add(&d->startup, &listen_stage, 1, d);
    startup_add(&d->startup, engine_stages, num_engine_stages, d->engine);
    bool ok = startup_up(&d->startup, st);
    end_loading(d);
    return ok;
}

static void log_start(const struct config *config)
{
    struct buf text;
    buf_init(&text, 0);
    config_describe(config, &text);
    log_info("inferd %s, model %s, pid %d, options: %s", INFERD_VERSION,
             config->model ? config->model : "(none)", (int)getpid(),
             text.len ? buf_str(&text) : "all at their defaults");
    buf_free(&text);
}

int serve_run(const struct config *config)
{
    struct daemon d = { .config = config };
    struct status st;
    bool ok = false;
    block_signals(&d);
    log_start(config);
    notify_open(&d.notifier, config->notify_socket, config->watchdog_usec);
    d.engine = engine_new(config);
    engine_on_progress(d.engine, tell_progress, &d);
    if (server_init(&d.server, config, d.engine, &d.startup, &st)) {
        if (bring_up(&d, &st)) {
            tell_ready(&d);
            ok = serve_until_told(&d);
            if (!ok)
                log_failure(&d);
            drain(&d, ok ? config->shutdown_timeout : GIVE_UP_MS / 1e3);
            startup_down(&d.startup);
            log_info("stopped");
        } else {
            log_error("%s", st.message);
            notify_send(&d.notifier, "STATUS=%s", st.message);
        }
        server_free(&d.server);
    } else {
        log_error("%s", st.message);
    }
    engine_free(d.engine);
    notify_close(&d.notifier);
    return ok ? 0 : 1;
}
