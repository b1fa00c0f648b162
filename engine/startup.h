/* startup.h - initialisation as a table of timed stages, undone in reverse.
 *
 * Each stage is logged with its duration; the name of the one in progress can be read from any
 * thread, so that health checks and systemd can tell what the daemon is waiting for. */
#ifndef INFERD_ENGINE_STARTUP_H
#define INFERD_ENGINE_STARTUP_H

#include "base/status.h"
#include <stdatomic.h>
#include <stdint.h>

struct startup_stage {
    const char *name; /* what a person reads: "weights", "KV cache" */
    bool (*up)(void *context, struct status *st);
    void (*down)(void *context); /* NULL: nothing to undo */
};

enum { STARTUP_MAX_STAGES = 24 };

struct startup {
    struct {
        const struct startup_stage *stage;
        void *context;
        double seconds;
    } steps[STARTUP_MAX_STAGES];
    int32_t num_steps, num_up;
    /* Called on the main thread when a stage begins; may be NULL. */
    void (*on_stage)(void *arg, const char *name);
    void *on_stage_arg;
    _Atomic(const char *) current; /* the stage in progress, "ready" afterwards */
};

void startup_init(struct startup *s);
void startup_add(struct startup *s, const struct startup_stage *stages, int32_t count,
                 void *context);
/* Runs the stages in order. When one fails, those before it are undone in reverse and `st` says
 * which stage failed and why. */
bool startup_up(struct startup *s, struct status *st);
/* Undoes what is up, last first. */
void startup_down(struct startup *s);
const char *startup_current(struct startup *s);

#endif
