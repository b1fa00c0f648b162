/* pull.c - runs the engine's first stage alone. */
#include "server/pull.h"

#include "base/log.h"
#include "engine/engine.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* A handler, since a process that is the first of its container ignores signals that have none.
 * What has arrived is on disk already, whenever the process ends. */
static void end_pull(int number)
{
    static const char text[] = "\nstopped; what has arrived is kept for the next run\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    _exit(128 + number);
}

int pull_run(const struct config *config)
{
    const struct sigaction action = { .sa_handler = end_pull };
    struct engine *e = engine_new(config);
    struct startup stages;
    struct status st = { 0 };
    int exit_code = 1;
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    startup_init(&stages);
    startup_add(&stages, engine_stages, num_engine_pull_stages, e);
    if (startup_up(&stages, &st)) {
        if (puts(engine_local_path(e)) >= 0 && fflush(stdout) == 0)
            exit_code = 0;
        else
            log_error("cannot write the path to standard output");
        startup_down(&stages);
    } else {
        log_error("%s", st.message);
    }
    engine_free(e);
    return exit_code;
}
