/* startup.c - runs the stage table up and down, and says how long each stage took. */
#include "engine/startup.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <string.h>

void startup_init(struct startup *s)
{
    memset(s, 0, sizeof *s);
    atomic_init(&s->current, "starting");
}

void startup_add(struct startup *s, const struct startup_stage *stages, int32_t count,
                 void *context)
{
    assert(s->num_steps + count <= STARTUP_MAX_STAGES);
    for (int32_t i = 0; i < count; i++) {
        s->steps[s->num_steps].stage = &stages[i];
        s->steps[s->num_steps++].context = context;
    }
}

bool startup_up(struct startup *s, struct status *st)
{
    uint64_t begin = clock_now_ns();
    while (s->num_up < s->num_steps) {
        const struct startup_stage *stage = s->steps[s->num_up].stage;
        atomic_store(&s->current, stage->name);
        if (s->on_stage)
            s->on_stage(s->on_stage_arg, stage->name);
        uint64_t start = clock_now_ns();
        if (!stage->up(s->steps[s->num_up].context, st)) {
            status_prefix(st, "%s: ", stage->name);
            startup_down(s);
            return false;
        }
        s->steps[s->num_up].seconds = clock_seconds_between(start, clock_now_ns());
        log_info("stage %d/%d %s: %.3f s", s->num_up + 1, s->num_steps, stage->name,
                 s->steps[s->num_up].seconds);
        s->num_up++;
    }
    atomic_store(&s->current, "ready");
    log_info("all stages up in %.3f s", clock_seconds_between(begin, clock_now_ns()));
    return true;
}

void startup_down(struct startup *s)
{
    while (s->num_up > 0) {
        s->num_up--;
        const struct startup_stage *stage = s->steps[s->num_up].stage;
        atomic_store(&s->current, "shutting down");
        if (stage->down)
            stage->down(s->steps[s->num_up].context);
    }
}

const char *startup_current(struct startup *s)
{
    return atomic_load(&s->current);
}
