/* engine.h - the facade that servers see: open, submit, drain, close, state, stats.
 *
 * Life: engine_new, its stages up (engine_stages, run by a struct startup), requests, engine_drain,
 * stages down, engine_free. What engine_info returns is constant from READY on. Any thread may
 * call what is below unless it says otherwise. */
#ifndef INFERD_ENGINE_ENGINE_H
#define INFERD_ENGINE_ENGINE_H

#include "base/buf.h"
#include "config/config.h"
#include "engine/metrics.h"
#include "engine/request.h"
#include "engine/startup.h"

struct chat_template;
struct tokenizer;

enum engine_state {
    ENGINE_LOADING,  /* stages are coming up */
    ENGINE_READY,    /* requests are served */
    ENGINE_DRAINING, /* running requests end, new ones are refused */
    ENGINE_FAILED,   /* the device or the engine broke: nothing more will be served */
    ENGINE_STOPPED
};

struct engine_info {
    const char *model_path;   /* MODEL as given */
    const char *architecture; /* "LlamaForCausalLM" */
    const char *device;       /* description of the device */
    const char *dtype;        /* of the weights: "bfloat16" */
    int32_t max_model_len, vocab_size, block_size, num_blocks, max_logprobs;
    int32_t num_kv_cache_groups; /* block tables of a sequence */
    int64_t num_parameters;
    int64_t decode_weight_bytes; /* of weights that a decode step reads, whatever its batch size */
    const struct tokenizer *tokenizer;
    const struct chat_template *chat_template;       /* NULL: the model has none */
    const struct sampling_params *sampling_defaults; /* generation_config.json over ours; holds the
                                                        model's eos_token_ids */
    int32_t generation_max_new_tokens;               /* server-wide cap; 0: none */
};

struct engine_stats {
    int32_t num_running, num_waiting;
    double kv_cache_usage; /* 0..1 */
    uint64_t num_steps;
    uint64_t prompt_tokens, generation_tokens, prefix_cache_queries, prefix_cache_hits, preemptions;
};

struct engine;

/* `config` must outlive the engine. */
struct engine *engine_new(const struct config *config);
void engine_free(struct engine *e);
/* The engine's own stages: hub, model files, tokenizer, devices, memory plan, weights, KV cache,
 * engine thread. Their context is the struct engine. */
extern const struct startup_stage engine_stages[];
extern const int32_t num_engine_stages;
/* How many of them, from the first, `inferd plan` needs: nothing is loaded by those. */
extern const int32_t num_engine_plan_stages;
/* How many of them, from the first, `inferd pull` needs: those that make MODEL a path. */
extern const int32_t num_engine_pull_stages;
/* That path, once the stage "hub" is up: a directory, or a .gguf file. */
const char *engine_local_path(struct engine *e);

/* Who is told, on the thread that runs the stages and a few times a second, how far a stage is that
 * takes its time: "45 % of 600 MB". Set before the stages run. */
void engine_on_progress(struct engine *e, void (*told)(void *arg, const char *text), void *arg);
/* The same for anybody; empty when it is not known. */
void engine_get_progress(struct engine *e, char *out, size_t size);

enum engine_state engine_state(struct engine *e);
const struct engine_info *engine_info(struct engine *e);
struct metrics *engine_metrics(struct engine *e);
void engine_get_stats(struct engine *e, struct engine_stats *out);
/* Why the state is FAILED. */
void engine_get_failure(struct engine *e, struct status *out);

/* Refuses what can never run: STATUS_INVALID, reason "context_length_exceeded". */
bool engine_check_length(struct engine *e, int32_t num_prompt_tokens, int32_t max_tokens,
                         struct status *st);
/* Queues all of them or none. The engine takes a reference of its own to each. Fails with
 * STATUS_OVERLOADED when the queue is full, STATUS_UNAVAILABLE unless READY. */
bool engine_submit(struct engine *e, struct request *const *requests, int32_t count,
                   struct status *st);
/* The requests that were submitted and have not ended. */
int32_t engine_num_unfinished(struct engine *e);

/* READY -> DRAINING: later submits are refused; what was submitted runs on. */
void engine_drain(struct engine *e);
/* Ends everything unfinished with FINISH_ABORT at the next step. */
void engine_abort_all(struct engine *e);
/* Advances while the engine makes progress; constant while it is stuck. While there is nothing to
 * do it counts as progress. For the watchdog. */
uint64_t engine_heartbeat(struct engine *e);

/* The memory plan, once its stage is up: a table for people, or JSON. */
void engine_describe_plan(struct engine *e, bool json, struct buf *out);

#endif
