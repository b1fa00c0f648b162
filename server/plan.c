/* plan.c - runs the engine's first stages, those that load nothing, and prints what they found. */
#include "server/plan.h"

#include "base/log.h"
#include "engine/engine.h"

#include <stdio.h>

int plan_run(const struct config *config)
{
    struct engine *e = engine_new(config);
    struct startup stages;
    struct status st = { 0 };
    int exit_code = 1;
    startup_init(&stages);
    startup_add(&stages, engine_stages, num_engine_plan_stages, e);
    if (startup_up(&stages, &st)) {
        struct buf text;
        buf_init(&text, 0);
        engine_describe_plan(e, config->json, &text);
        if (fputs(buf_str(&text), stdout) >= 0 && fflush(stdout) == 0)
            exit_code = 0;
        else
            log_error("cannot write the plan to standard output");
        buf_free(&text);
        startup_down(&stages);
    } else {
        log_error("%s", st.message);
    }
    engine_free(e);
    return exit_code;
}
