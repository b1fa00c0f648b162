/* engine_stages.c - how the engine comes up, stage by stage, and goes down again. */
#include "engine/engine_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/thread.h"
#include "engine/gguf_text.h"
#include "engine/model/tensor_parallel.h"
#include "engine/spec/ngram.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "kernels/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- model files --- */

static bool model_up(void *context, struct status *st)
{
    struct engine *e = context;
    const struct config *c = e->config;
    struct model_options options = { .path = e->model_path,
                                     .load_format = c->load_format,
                                     .dtype = c->dtype,
                                     .quantization = c->quantization,
                                     .packed_weights_cache = c->packed_weights_cache };
    if (!model_open(&options, &e->model, st))
        return false;
    if (!tensor_parallel_check(e->model, (int32_t)c->tensor_parallel_size, st)) {
        model_close(e->model);
        e->model = NULL;
        return false;
    }
    e->info.architecture = e->model->desc.architecture;
    e->info.dtype = e->model->weight_format->name;
    e->info.vocab_size = e->model->desc.vocab_size;
    e->info.num_parameters = model_num_parameters(e->model);
    e->info.sampling_defaults = &e->model->generation_defaults;
    e->info.generation_max_new_tokens = e->model->generation_max_new_tokens;
    if (strcmp(c->generation_config, "none") == 0) {
        struct sampling_params *p = &e->model->generation_defaults, plain;
        sampling_params_defaults(&plain);
        plain.num_eos_token_ids = p->num_eos_token_ids;
        plain.eos_token_ids = p->eos_token_ids;
        *p = plain;
        e->info.generation_max_new_tokens = 0;
    }
    log_info("%s: %s, %.3f billion parameters, %s", c->model, e->info.architecture,
             (double)e->info.num_parameters * 1e-9, e->info.dtype);
    return true;
}

static void model_down(void *context)
{
    struct engine *e = context;
    model_close(e->model);
    e->model = NULL;
}

/* --- tokenizer and chat template --- */

/* From the files of a directory. */
static bool load_text(struct engine *e, const char *dir, struct status *st)
{
    const struct config *c = e->config;
    if (!tokenizer_load(dir, &e->tokenizer, st)) {
        if (strcmp(c->load_format, "dummy") != 0 || c->tokenizer)
            return false;
        log_warning("no tokenizer (%s): only prompts of token ids can be served", st->message);
        status_clear(st);
        e->tokenizer = tokenizer_none();
    }
    return chat_template_load(dir, c->chat_template, &e->chat_template, st);
}

/* From the model's own keys, which also say what ends an answer. */
static bool load_gguf_text(struct engine *e, struct status *st)
{
    struct token_list ends = { 0 };
    bool ok = gguf_text_load(e->model->gguf, e->config->chat_template, &e->tokenizer,
                             &e->chat_template, &ends, st);
    for (size_t i = 0; ok && i < ends.len; i++)
        ok = model_add_eos(e->model, ends.ids[i], st);
    token_list_free(&ends);
    return ok;
}

static void tokenizer_down(void *context)
{
    struct engine *e = context;
    chat_template_free(e->chat_template);
    e->chat_template = NULL;
    tokenizer_free(e->tokenizer);
    e->tokenizer = NULL;
}

static bool tokenizer_up(void *context, struct status *st)
{
    struct engine *e = context;
    const char *dir = e->tokenizer_path ? e->tokenizer_path : e->model_path;
    if (e->sketch_dir) { /* a plan of what is still on the hub, where the tokenizer is too */
        e->tokenizer = tokenizer_none();
        return true;
    }
    bool ok = e->model->gguf && !e->tokenizer_path ? load_gguf_text(e, st) : load_text(e, dir, st);
    if (ok && tokenizer_vocab_size(e->tokenizer) > e->model->desc.vocab_size)
        ok = status_set(st, STATUS_INVALID,
                        "%s: the tokenizer has %d ids, the model's vocab_size is %d; they do not "
                        "belong together",
                        dir, tokenizer_vocab_size(e->tokenizer), e->model->desc.vocab_size);
    if (!ok) {
        tokenizer_down(e);
        return false;
    }
    e->info.tokenizer = e->tokenizer;
    e->info.chat_template = e->chat_template;
    return true;
}

/* --- devices --- */

static bool devices_up(void *context, struct status *st)
{
    struct engine *e = context;
    const struct config *c = e->config;
    struct device_options options = { .num_threads = (int32_t)c->num_threads,
                                      .isa = c->cpu_isa,
                                      .pin_threads = c->pin_threads };
    struct executor_ranks ranks = { (int32_t)c->tensor_parallel_size, c->device_ids };
    if (!executor_open(&e->executor, c->device, &options, &ranks, st))
        return false;
    struct device *d = e->executor.workers[0].device;
    bool plan_only = d->backend->caps & BACKEND_PLAN_ONLY;
    bool ok = plan_only ? c->command == COMMAND_PLAN ||
                              status_set(st, STATUS_UNSUPPORTED,
                                         "--device %s: a GPU's name is for `inferd plan`; to run "
                                         "on one it is cuda",
                                         c->device)
                        : decoder_check_ops(&e->model->desc, d->backend, st);
    if (!ok) {
        executor_close(&e->executor);
        return false;
    }
    e->info.device = d->description;
    if (ranks.count > 1)
        log_info("%d ranks, each on %s; they meet through %s", ranks.count, d->description,
                 e->executor.workers[0].comm->description);
    else
        log_info("device: %s", d->description);
    return true;
}

static void devices_down(void *context)
{
    struct engine *e = context;
    executor_close(&e->executor);
}

/* --- memory plan --- */

static bool choose_asked_dtype(const char *asked, uint32_t caps, enum dtype *out, struct status *st)
{
    if (!kv_cache_dtype_parse(asked, out))
        return status_set(st, STATUS_INVALID, "--kv-cache-dtype %s: unknown", asked);
    if (dtype_size(*out) == 1 && !(caps & BACKEND_KV_8BIT))
        return status_set(st, STATUS_UNSUPPORTED,
                          "--kv-cache-dtype %s: this device has no 8-bit KV cache", asked);
    return true;
}

static bool choose_kv_cache_dtype(const struct engine *e, enum dtype *out, struct status *st)
{
    const char *asked = e->config->kv_cache_dtype;
    const uint32_t caps = e->executor.workers[0].device->backend->caps;
    if (strcmp(asked, "auto") != 0)
        return choose_asked_dtype(asked, caps, out, st);
    *out = e->model->weight_format->dtype;
    if (*out == DTYPE_BF16 && (caps & BACKEND_F16_KV_FOR_BF16))
        *out = DTYPE_F16;
    return true;
}

/* Steps that may be under way at a time. Two keep a GPU busy while the host prepares the next; on
 * the CPU that would only delay what comes anew. Drafts need the tokens of the step before. */
static int32_t choose_num_batches(const struct engine *e)
{
    const char *asked = e->config->async_scheduling;
    const bool host_memory = e->executor.workers[0].device->backend->caps & BACKEND_HOST_MEMORY;
    if (e->config->speculative.num_tokens > 0 || strcmp(asked, "false") == 0 ||
        (strcmp(asked, "auto") == 0 && host_memory))
        return 1;
    if (host_memory && e->executor.num_workers > 1) {
        log_warning("--async-scheduling does nothing: ranks on the CPU share their batch");
        return 1;
    }
    return 2;
}

/* Only who asked for graphs is told that this device has none. */
static enum graph_mode choose_graph_mode(const struct engine *e)
{
    const struct config *c = e->config;
    const struct backend *backend = e->executor.workers[0].device->backend;
    const bool asked = strcmp(c->cudagraph_mode, "full") == 0 ||
                       strcmp(c->cudagraph_mode, "lazy") == 0 || c->cudagraph_capture_sizes;
    if (c->enforce_eager || strcmp(c->cudagraph_mode, "none") == 0)
        return GRAPH_MODE_NONE;
    if ((backend->caps & BACKEND_CAN_CAPTURE) && !e->executor.workers[0].comm->can_capture) {
        log_info("no graphs: ranks that share a GPU meet on the host");
        return GRAPH_MODE_NONE;
    }
    if (asked && !(backend->caps & BACKEND_CAN_CAPTURE))
        log_warning("--cudagraph-mode %s does nothing: device %s captures no graphs",
                    c->cudagraph_mode, backend->name);
    return strcmp(c->cudagraph_mode, "lazy") == 0 ? GRAPH_MODE_LAZY : GRAPH_MODE_FULL;
}

/* What is wrong goes to the caller; here, what would help. */
static void log_advice(const struct model *m, struct device *d,
                       const struct memory_plan_options *options)
{
    struct buf lines;
    buf_init(&lines, 0);
    memory_plan_advise(m, d, options, &lines);
    char *rest = NULL, *text = buf_take(&lines);
    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest))
        log_info("%s", line);
    free(text);
}

static bool plan_up(void *context, struct status *st)
{
    struct engine *e = context;
    const struct config *c = e->config;
    enum dtype kv_dtype;
    if (!choose_kv_cache_dtype(e, &kv_dtype, st))
        return false;
    struct memory_plan_options options = {
        .memory_utilization = c->gpu_memory_utilization,
        .kv_cache_memory_bytes = c->kv_cache_memory_bytes,
        .num_blocks_override = (int32_t)c->num_gpu_blocks_override,
        .max_model_len = (int32_t)c->max_model_len,
        .block_size = (int32_t)c->block_size,
        .max_num_seqs = (int32_t)c->max_num_seqs,
        .max_num_batched_tokens = (int32_t)c->max_num_batched_tokens,
        .max_logprobs = (int32_t)c->max_logprobs,
        .max_draft_tokens = c->speculative.num_tokens,
        .long_prefill_token_threshold = (int32_t)c->long_prefill_token_threshold,
        .tensor_parallel_size = (int32_t)c->tensor_parallel_size,
        .ranks_per_device = e->executor.ranks_per_device,
        .num_batches = choose_num_batches(e),
        .comm_bytes = e->executor.comm_bytes,
        .batch_variant = !c->batch_invariant,
        .kv_cache_dtype = kv_dtype,
        .graph_mode = choose_graph_mode(e),
        .graph_sizes = c->cudagraph_capture_sizes,
        .max_seq_len_to_capture = (int32_t)c->max_seq_len_to_capture,
    };
    const struct memory_plan *p = &e->plan;
    struct device *d = executor_fullest_device(&e->executor, st);
    if (!d)
        return false;
    if (!memory_plan_make(e->model, d, &options, &e->plan, st)) {
        log_advice(e->model, d, &options);
        return false;
    }
    model_set_max_len(e->model, p->max_model_len);
    e->info.max_model_len = p->max_model_len;
    e->info.decode_weight_bytes = (int64_t)p->weights.decode_bytes * p->num_ranks;
    e->info.block_size = p->block_size;
    e->info.num_blocks = p->num_blocks;
    e->info.num_kv_cache_groups = p->kv_spec.num_groups;
    e->info.max_logprobs = (int32_t)c->max_logprobs;
    if (p->num_ranks > 1)
        log_info("memory plan of each of %d ranks%s:", p->num_ranks,
                 d->backend->caps & BACKEND_HOST_MEMORY ? " (the batch is all ranks')" : "");
    if (p->comm_bytes > 0)
        log_info("memory: each rank took %.1f MiB for messages to the others",
                 (double)p->comm_bytes / (1 << 20));
    log_info("memory plan: weights %zu, activations %zu, workspace %zu, graphs %zu, batch %zu, "
             "KV cache %zu bytes; %d blocks of %d tokens = %lld tokens; %.2f requests of %d tokens "
             "at once",
             p->weights.bytes, p->activation_bytes, p->workspace_bytes, p->graph_bytes,
             p->batch_bytes, p->kv_cache_bytes, p->num_blocks, p->block_size,
             (long long)p->kv_cache_tokens, p->max_concurrency, p->max_model_len);
    return true;
}

/* --- weights --- */

static bool weights_up(void *context, struct status *st)
{
    struct engine *e = context;
    if (!executor_load_weights(&e->executor, e->model, st))
        return false;
    size_t taken = executor_taken_bytes(&e->executor);
    size_t planned = (size_t)e->plan.num_ranks * e->plan.weights.bytes;
    if (taken != planned) {
        executor_unload_weights(&e->executor);
        return status_set(st, STATUS_INTERNAL, "weights took %zu bytes, %zu were planned", taken,
                          planned);
    }
    return true;
}

static void weights_down(void *context)
{
    struct engine *e = context;
    executor_unload_weights(&e->executor);
}

/* --- KV cache, activations, batch --- */

static bool kv_cache_up(void *context, struct status *st)
{
    struct engine *e = context;
    if (!executor_allocate(&e->executor, &e->plan, st))
        return false;
    const size_t graphs = (size_t)e->plan.ranks_per_device * e->plan.graph_bytes; /* not yet */
    const size_t devices = (size_t)(e->plan.num_ranks / e->plan.ranks_per_device);
    const size_t planned = devices * (memory_plan_total_bytes(&e->plan) - graphs);
    size_t taken = executor_taken_bytes(&e->executor);
    log_info("memory taken: %zu bytes, planned: %zu", taken, planned);
    /* Other devices round what they give out. */
    if (taken == planned || !(e->executor.workers[0].device->backend->caps & BACKEND_HOST_MEMORY))
        return true;
    executor_release(&e->executor);
    return status_set(st, STATUS_INTERNAL, "the device gave out %zu bytes, %zu were planned", taken,
                      planned);
}

static void kv_cache_down(void *context)
{
    struct engine *e = context;
    executor_release(&e->executor);
}

/* --- workers, and the graphs that they capture --- */

static bool workers_up(void *context, struct status *st)
{
    struct engine *e = context;
    return executor_start(&e->executor, st);
}

static void workers_down(void *context)
{
    struct engine *e = context;
    executor_stop(&e->executor);
}

/* Of the rank that took most. */
static void log_graphs(const struct engine *e, double seconds)
{
    const struct graph_pool *most = &e->executor.workers[0].runner.graphs;
    for (int32_t i = 1; i < e->executor.num_workers; i++)
        if (graph_pool_bytes(&e->executor.workers[i].runner.graphs) > graph_pool_bytes(most))
            most = &e->executor.workers[i].runner.graphs;
    const struct memory_plan *p = &e->plan;
    const size_t bytes = graph_pool_bytes(most), own = memory_plan_rank_bytes(p);
    const double taken = (double)p->memory.available_bytes - (double)most->available_bytes;
    log_info("captured %d graphs in %.2f s, %.1f MiB (planned: %.1f)", most->num_captured, seconds,
             (double)bytes / (1 << 20), (double)p->graph_bytes / (1 << 20));
    log_info("device memory: %.1f MiB taken since the plan, planned %.1f, free %.1f",
             taken / (1 << 20), (double)own / (1 << 20), (double)most->available_bytes / (1 << 20));
    if (bytes > p->graph_bytes)
        log_warning("graphs took more memory than was planned; fewer --cudagraph-capture-sizes "
                    "take less");
}

static void tell_captured(void *arg, int32_t done, int32_t total)
{
    char text[32];
    snprintf(text, sizeof text, "%d of %d", done, total);
    engine_set_progress(arg, text);
}

static bool graphs_up(void *context, struct status *st)
{
    struct engine *e = context;
    const struct graph_buckets *graphs = &e->plan.graphs;
    const uint64_t begin = clock_now_ns();
    if (graph_buckets_count(graphs) == 0)
        return true;
    if (graphs->mode == GRAPH_MODE_LAZY) {
        log_info("up to %d graphs are captured as steps ask for them", graph_buckets_count(graphs));
        return true;
    }
    bool ok = executor_capture(&e->executor, tell_captured, e, st);
    engine_set_progress(e, "");
    if (!ok) {
        log_info("--enforce-eager starts without graphs");
        return false;
    }
    log_graphs(e, clock_seconds_between(begin, clock_now_ns()));
    return true;
}

/* --- engine thread --- */

static void set_cache_config_labels(struct engine *e)
{
    const struct config *c = e->config;
    snprintf(e->metrics->cache_config_labels, sizeof e->metrics->cache_config_labels,
             "block_size=\"%d\",num_gpu_blocks=\"%d\",cache_dtype=\"%s\","
             "gpu_memory_utilization=\"%g\",enable_prefix_caching=\"%s\","
             "kv_cache_memory_bytes=\"%zu\"",
             e->plan.block_size, e->plan.num_blocks, dtype_name(e->plan.kv_spec.dtype),
             c->gpu_memory_utilization, c->enable_prefix_caching ? "True" : "False",
             e->plan.kv_cache_bytes);
}

static void open_step(struct engine *e)
{
    size_t seqs = (size_t)e->config->max_num_seqs;
    size_t stride = 1 + (size_t)e->info.max_logprobs;
    e->num_turns = e->plan.num_batches;
    for (int32_t i = 0; i < e->num_turns; i++)
        e->steps[i].seqs = xcalloc(seqs, sizeof *e->steps[i].seqs);
    size_t rows = seqs * (size_t)(1 + e->config->speculative.num_tokens);
    e->output.max_sampled = 1 + e->config->speculative.num_tokens;
    e->output.num_sampled = xcalloc(seqs, sizeof *e->output.num_sampled);
    e->output.sampled_ids = xcalloc(rows, sizeof *e->output.sampled_ids);
    e->output.logprobs = xcalloc(rows * stride, sizeof *e->output.logprobs);
    e->output.logprobs_stride = (int32_t)stride;
    e->drained = xcalloc((size_t)e->config->max_num_queued_reqs, sizeof *e->drained);
}

static void close_step(struct engine *e)
{
    for (int32_t i = 0; i < e->num_turns; i++)
        free(e->steps[i].seqs);
    free(e->output.num_sampled);
    free(e->output.sampled_ids);
    free(e->output.logprobs);
    free(e->drained);
    scheduler_free(e->scheduler);
    request_queue_free(e->queue);
    metrics_free(e->metrics);
    e->scheduler = NULL;
    e->queue = NULL;
    e->metrics = NULL;
}

/* The first of --served-model-name's names, or MODEL. */
static void metrics_model_name(const struct config *c, char *out, size_t size)
{
    const char *name = c->served_model_name ? c->served_model_name : c->model;
    snprintf(out, size, "%.*s", c->served_model_name ? (int)strcspn(name, ",") : (int)strlen(name),
             name);
}

static bool thread_up(void *context, struct status *st)
{
    struct engine *e = context;
    const struct config *c = e->config;
    e->scheduler_config = (struct scheduler_config){
        .max_num_seqs = (int32_t)c->max_num_seqs,
        .max_num_batched_tokens = (int32_t)c->max_num_batched_tokens,
        .max_model_len = e->plan.max_model_len,
        .long_prefill_token_threshold = (int32_t)c->long_prefill_token_threshold,
        .block_size = e->plan.block_size,
        .num_blocks = e->plan.num_blocks,
        .num_kv_groups = e->plan.kv_spec.num_groups,
        .max_waiting = (int32_t)c->max_num_queued_reqs,
        .max_logprobs = e->info.max_logprobs,
        .enable_prefix_caching = c->enable_prefix_caching,
    };
    if (c->speculative.num_tokens > 0)
        e->scheduler_config.proposer = &proposer_ngram;
    e->scheduler_config.proposer_config =
        (struct proposer_config){ c->speculative.num_tokens, c->speculative.prompt_lookup_min,
                                  c->speculative.prompt_lookup_max };
    memcpy(e->scheduler_config.sliding_window, e->plan.kv_spec.sliding_window,
           sizeof e->scheduler_config.sliding_window);
    rng_system(&e->scheduler_config.hash_key, sizeof e->scheduler_config.hash_key);
    char name[256];
    metrics_model_name(c, name, sizeof name);
    e->metrics = metrics_new(name, e->plan.max_model_len);
    e->metrics->num_speculative_tokens = c->speculative.num_tokens;
    set_cache_config_labels(e);
    e->scheduler = scheduler_new(&e->scheduler_config);
    e->queue = request_queue_new((int32_t)c->max_num_queued_reqs, c->max_num_queued_tokens);
    open_step(e);
    scheduler_get_stats(e->scheduler, &e->stats);
    atomic_store(&e->idle, true);
    if (!thread_start(&e->thread, "engine", engine_main, e, st)) {
        close_step(e);
        return false;
    }
    e->thread_started = true;
    atomic_store(&e->state, ENGINE_READY);
    return true;
}

static void thread_down(void *context)
{
    struct engine *e = context;
    engine_drain(e);
    atomic_store(&e->stopping, true);
    request_queue_close(e->queue);
    request_queue_wake(e->queue);
    pthread_join(e->thread, NULL);
    e->thread_started = false;
    close_step(e);
    atomic_store(&e->state, ENGINE_STOPPED);
}

const struct startup_stage engine_stages[] = {
    { "hub", engine_hub_up, engine_hub_down },
    { "model files", model_up, model_down },
    { "tokenizer", tokenizer_up, tokenizer_down },
    { "devices", devices_up, devices_down },
    { "memory plan", plan_up, NULL },
    { "weights", weights_up, weights_down },
    { "KV cache", kv_cache_up, kv_cache_down },
    { "workers", workers_up, workers_down },
    { "graphs", graphs_up, NULL },
    { "engine thread", thread_up, thread_down },
};
const int32_t num_engine_stages = sizeof engine_stages / sizeof engine_stages[0];
const int32_t num_engine_pull_stages = 1;
const int32_t num_engine_plan_stages = 5;
