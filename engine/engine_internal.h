/* engine_internal.h - what engine.c (the facade and the loop) and engine_stages.c (how it comes up)
 * share. Nobody else includes it. */
#ifndef INFERD_ENGINE_ENGINE_INTERNAL_H
#define INFERD_ENGINE_ENGINE_INTERNAL_H

#include "engine/engine.h"
#include "engine/exec/executor.h"
#include "engine/request_queue.h"
#include "engine/sched/scheduler.h"

struct engine {
    const struct config *config;
    struct engine_info info;

    /* --- brought up by the stages, in this order --- */
    char *model_path;     /* MODEL on this machine: a directory, or a .gguf file */
    char *tokenizer_path; /* of --tokenizer; NULL: the model's */
    char *sketch_dir;     /* model_path is there and holds headers only (hub.h); NULL: it is real */
    struct model *model;
    struct tokenizer *tokenizer;         /* tokenizer_none() with load_format dummy only */
    struct chat_template *chat_template; /* NULL: the model has none */
    struct executor executor;
    struct memory_plan plan;
    struct metrics *metrics;
    struct scheduler_config scheduler_config;
    struct scheduler *scheduler;
    struct request_queue *queue;
    struct step steps[SCHEDULER_MAX_STEPS]; /* by turn, num_turns of them in use */
    int32_t num_turns, next_turn;
    struct step_output output;

    /* --- the engine thread --- */
    pthread_t thread;
    bool thread_started;
    struct request **drained;                   /* [max_num_queued_reqs] scratch of one admission */
    struct scheduler_stats stats, logged_stats; /* as of the last step; as of the last log line */
    uint64_t logged_ns;
    int32_t num_failed_steps; /* in a row */

    /* --- shared between threads --- */
    _Atomic int32_t state; /* enum engine_state */
    _Atomic bool stopping, abort_all, idle;
    _Atomic uint64_t heartbeat, num_steps;
    _Atomic int32_t num_unfinished;
    pthread_mutex_t stats_mutex; /* guards published, failure and progress */
    struct engine_stats published;
    struct status failure;
    char progress[64]; /* of the stage in progress; empty: not known */
    void (*on_progress)(void *arg, const char *text); /* set before the stages */
    void *on_progress_arg;
};

/* The stage "hub": model_path and what goes with it. */
bool engine_hub_up(void *context, struct status *st);
void engine_hub_down(void *context);
/* How far the stage in progress is, for health checks and the supervisor; "": not known. */
void engine_set_progress(struct engine *e, const char *text);
/* The engine thread's body. */
void *engine_main(void *arg);

#endif
