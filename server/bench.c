/* bench.c - requests of random token ids through the engine's own queue and scheduler, timed by the
 * stamps that the engine puts on them.
 *
 * Prefill: one request that asks for one token; its prompt length over the time to that token.
 * Decode: a batch of sequences; from the moment when the last of them has its first token, all run
 * in step, one token each. The last one asks for output_len + 1 tokens and all others for a few
 * more, so that exactly output_len steps of the whole batch lie between its first token and its
 * end. Random prompts leave the prefix cache nothing to find. */
#include "server/bench.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "config/limits.h"
#include "engine/engine.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_result {
    int32_t size; /* prompt length or batch size */
    double seconds;
    double tokens_per_second;
};

struct bench {
    struct config config; /* the caller's, with what the measurements need filled in */
    int32_t input_lens[LIMIT_LIST_ENTRIES], batch_sizes[LIMIT_LIST_ENTRIES];
    int32_t num_input_lens, num_batch_sizes;
    int32_t context_len, output_len, repeat;
    struct bench_result prefill[LIMIT_LIST_ENTRIES], decode[LIMIT_LIST_ENTRIES];
    struct engine *engine;
    uint64_t num_drawn; /* counter of the generator: no prompt comes twice */
};

/* --- what to measure -----------------------------------------------------------------------------
 */

/* "1,8,32" -> numbers from 1 to `max`; `flag` is named in the message. */
static bool parse_list(const char *flag, const char *text, int64_t max, int32_t *out,
                       int32_t *count, struct status *st)
{
    *count = 0;
    for (const char *p = text; *count < LIMIT_LIST_ENTRIES;) {
        char *end;
        long long value = strtoll(p, &end, 10);
        if (end == p || (*end != ',' && *end != '\0') || value < 1 || value > max)
            break;
        out[(*count)++] = (int32_t)value;
        if (*end == '\0')
            return true;
        p = end + 1;
    }
    return status_set(st, STATUS_INVALID,
                      "%s: '%.80s' is not valid, it must be numbers from 1 to %" PRId64
                      " with commas between them",
                      flag, text, max);
}

static int32_t max_of(const int32_t *values, int32_t count)
{
    int32_t max = 0;
    for (int32_t i = 0; i < count; i++)
        max = values[i] > max ? values[i] : max;
    return max;
}

/* How many tokens the others of a batch ask for beyond the last one: as many as they can be ahead
 * of it when its prompt is through. Each step has room for at least one token of the prompts. */
static int32_t head_start(const struct bench *b, int32_t batch_size)
{
    int64_t prompts = (int64_t)batch_size * b->context_len;
    int64_t room = b->config.max_num_batched_tokens - batch_size;
    return (int32_t)(2 + (room < 1 ? prompts : (prompts + room - 1) / room));
}

/* How many block tables a sequence of this model has: from the stages that load nothing, with more
 * blocks than can be refused. */
static bool count_kv_cache_groups(const struct bench *b, int64_t blocks, int32_t *num_groups,
                                  struct status *st)
{
    struct config config = b->config;
    struct startup stages;
    config.num_gpu_blocks_override = blocks * LIMIT_KV_CACHE_GROUPS;
    struct engine *e = engine_new(&config);
    startup_init(&stages);
    startup_add(&stages, engine_stages, num_engine_plan_stages, e);
    bool ok = startup_up(&stages, st);
    if (ok) {
        *num_groups = engine_info(e)->num_kv_cache_groups;
        startup_down(&stages);
    }
    engine_free(e);
    return ok;
}

/* A cache just large enough, so that the figures do not depend on how much memory happens to be
 * free, and no longer sequences than the measurements have. What the user sets stays. */
static bool size_cache(struct bench *b, struct status *st)
{
    int32_t num_groups = 1;
    struct config *c = &b->config;
    int64_t longest = max_of(b->input_lens, b->num_input_lens) + 1, blocks = 0;
    for (int32_t i = 0; i < b->num_batch_sizes; i++) {
        int64_t each =
            (int64_t)b->context_len + b->output_len + 1 + head_start(b, b->batch_sizes[i]);
        int64_t needed = b->batch_sizes[i] * ((each + c->block_size - 1) / c->block_size + 1);
        longest = each > longest ? each : longest;
        blocks = needed > blocks ? needed : blocks;
    }
    if (c->max_model_len == 0)
        c->max_model_len = longest;
    int64_t one_request = (c->max_model_len + c->block_size - 1) / c->block_size + 1;
    blocks = one_request > blocks ? one_request : blocks;
    c->log_stats = false; /* its lines would mix with the table */
    if (c->num_gpu_blocks_override > 0 || c->kv_cache_memory_bytes > 0)
        return true;
    blocks =
        blocks < INT32_MAX / LIMIT_KV_CACHE_GROUPS ? blocks : INT32_MAX / LIMIT_KV_CACHE_GROUPS;
    if (!count_kv_cache_groups(b, blocks, &num_groups, st))
        return false;
    c->num_gpu_blocks_override = blocks * num_groups;
    return true;
}

static bool plan_measurements(struct bench *b, struct status *st)
{
    const struct config *c = &b->config;
    b->context_len = (int32_t)c->bench_context_len;
    b->output_len = (int32_t)c->bench_output_len;
    b->repeat = (int32_t)c->bench_repeat;
    if (!parse_list("--bench-input-len", c->bench_input_len, 1 << 20, b->input_lens,
                    &b->num_input_lens, st) ||
        !parse_list("--bench-batch-size", c->bench_batch_size, 4096, b->batch_sizes,
                    &b->num_batch_sizes, st))
        return false;
    if (max_of(b->batch_sizes, b->num_batch_sizes) > c->max_num_seqs)
        return status_set(st, STATUS_INVALID,
                          "--bench-batch-size: %d is more than --max-num-seqs %" PRId64,
                          max_of(b->batch_sizes, b->num_batch_sizes), c->max_num_seqs);
    return size_cache(b, st);
}

/* --- requests ------------------------------------------------------------------------------------
 */

static struct request *new_request(struct bench *b, int32_t prompt_len, int32_t max_tokens)
{
    const struct engine_info *info = engine_info(b->engine);
    struct sampling_params params;
    int32_t *ids = xcalloc((size_t)prompt_len, sizeof(*ids));
    for (int32_t i = 0; i < prompt_len; i++) {
        uint32_t word = rng_philox((uint64_t)b->config.seed, 0, b->num_drawn++).word[0];
        ids[i] = (int32_t)(word % (uint32_t)info->vocab_size);
    }
    sampling_params_defaults(&params);
    params.temperature = 0;
    params.ignore_eos = true;
    struct request *r = request_new(ids, prompt_len, max_tokens, &params, NULL, NULL);
    free(ids);
    if (!r)
        return NULL;
    snprintf(r->id, sizeof(r->id), "bench-%" PRIu64, b->num_drawn);
    return r;
}

static void await_end(struct request *r)
{
    while (request_finish_reason(r) == FINISH_NONE)
        request_wait(r, INT32_MAX, -1);
}

static bool check_end(const struct request *r, struct status *st)
{
    enum finish_reason reason = request_finish_reason(r);
    if (reason == FINISH_LENGTH)
        return true;
    if (reason == FINISH_ERROR) {
        *st = r->error;
        return status_prefix(st, "a request failed: ");
    }
    return status_set(st, STATUS_INTERNAL, "a request ended early, after %d tokens",
                      request_num_output_tokens(r));
}

/* Submits them all, waits for the last, cancels the others, and waits for those too, so that the
 * next measurement finds an idle engine. */
static bool run_requests(struct bench *b, struct request **requests, int32_t count,
                         struct status *st)
{
    for (int32_t i = 0; i < count; i++)
        requests[i]->arrival_ns = clock_now_ns();
    if (!engine_submit(b->engine, requests, count, st))
        return false;
    await_end(requests[count - 1]);
    for (int32_t i = 0; i < count - 1; i++)
        request_cancel(requests[i]);
    for (int32_t i = 0; i < count - 1; i++)
        await_end(requests[i]);
    return check_end(requests[count - 1], st);
}

/* --- measurements --------------------------------------------------------------------------------
 */

static bool measure_prefill(struct bench *b, int32_t prompt_len, double *seconds, struct status *st)
{
    struct request *r = new_request(b, prompt_len, 1);
    if (!r)
        return status_set(st, STATUS_INVALID, "no memory for a prompt of %d tokens", prompt_len);
    bool ok = run_requests(b, &r, 1, st);
    *seconds = clock_seconds_between(r->arrival_ns, r->first_token_ns);
    request_unref(r);
    return ok;
}

static bool measure_decode(struct bench *b, int32_t batch_size, double *seconds, struct status *st)
{
    struct request **requests = xcalloc((size_t)batch_size, sizeof(struct request *));
    bool ok = true;
    for (int32_t i = 0; i < batch_size && ok; i++) {
        bool last = i == batch_size - 1;
        int32_t more = last ? 0 : head_start(b, batch_size);
        requests[i] = new_request(b, b->context_len, b->output_len + 1 + more);
        ok = requests[i] || status_set(st, STATUS_INVALID, "no memory for %d requests", batch_size);
    }
    ok = ok && run_requests(b, requests, batch_size, st);
    const struct request *last = requests[batch_size - 1];
    if (ok)
        *seconds = clock_seconds_between(last->first_token_ns, last->finished_ns);
    for (int32_t i = 0; i < batch_size && ok; i++) {
        if (requests[i]->num_preemptions > 0)
            ok = status_set(st, STATUS_INVALID,
                            "the KV cache is too small for %d sequences of %d tokens: raise "
                            "--kv-cache-memory-bytes or --num-gpu-blocks-override",
                            batch_size, b->context_len + b->output_len + 1);
        else if (requests[i]->first_token_ns > last->first_token_ns ||
                 requests[i]->finished_ns < last->finished_ns)
            ok = status_set(st, STATUS_INTERNAL, "the sequences did not all run at the same time");
    }
    for (int32_t i = 0; i < batch_size; i++)
        request_unref(requests[i]);
    free(requests);
    return ok;
}

/* The best of --bench-repeat runs; one more before them finds pages and caches cold and does not
 * count. */
static bool best_of(struct bench *b, int32_t size,
                    bool (*measure)(struct bench *, int32_t, double *, struct status *),
                    double *best, struct status *st)
{
    for (int32_t run = 0; run <= b->repeat; run++) {
        double seconds = 0;
        if (!measure(b, size, &seconds, st))
            return false;
        if (run == 1 || (run > 1 && seconds < *best))
            *best = seconds;
    }
    return true;
}

static bool measure_all(struct bench *b, struct status *st)
{
    for (int32_t i = 0; i < b->num_input_lens; i++) {
        struct bench_result *r = &b->prefill[i];
        r->size = b->input_lens[i];
        log_info("prefill of %d tokens", r->size);
        if (!best_of(b, r->size, measure_prefill, &r->seconds, st))
            return status_prefix(st, "prefill of %d tokens: ", r->size);
        r->tokens_per_second = r->size / r->seconds;
    }
    for (int32_t i = 0; i < b->num_batch_sizes; i++) {
        struct bench_result *r = &b->decode[i];
        r->size = b->batch_sizes[i];
        log_info("decode of %d sequences", r->size);
        if (!best_of(b, r->size, measure_decode, &r->seconds, st))
            return status_prefix(st, "decode of %d sequences: ", r->size);
        r->tokens_per_second = (double)r->size * b->output_len / r->seconds;
    }
    return true;
}

/* --- results -------------------------------------------------------------------------------------
 */

/* Weights are read once per step, for the whole batch. */
static double weight_gb_per_second(const struct bench *b, const struct bench_result *r)
{
    double bytes = (double)engine_info(b->engine)->decode_weight_bytes;
    return bytes * b->output_len / r->seconds * 1e-9;
}

/* Three digits and a unit: "1.24 G". */
static void append_scaled(struct buf *out, double value)
{
    static const char units[][3] = { " ", " k", " M", " G", " T" };
    size_t i = 0;
    for (; value >= 999.5 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
        value /= 1000;
    buf_printf(out, "%.3g%s", value, units[i]);
}

static void describe_table(const struct bench *b, struct buf *out)
{
    const struct engine_info *info = engine_info(b->engine);
    char title[80];
    buf_printf(out, "model    %s (%s, ", info->model_path, info->architecture);
    append_scaled(out, (double)info->num_parameters);
    buf_printf(out, " parameters, %s)\ndevice   %s\nweights  ", info->dtype, info->device);
    append_scaled(out, (double)info->decode_weight_bytes);
    buf_printf(out, "B read per decode step; best of %d\n\n", b->repeat);
    buf_printf(out, "%-30s%12s%14s\n", "prefill, one request", "tok/s", "time");
    for (int32_t i = 0; i < b->num_input_lens; i++) {
        const struct bench_result *r = &b->prefill[i];
        buf_printf(out, "  %8d tokens             %12.1f%11.1f ms\n", r->size, r->tokens_per_second,
                   r->seconds * 1e3);
    }
    snprintf(title, sizeof(title), "decode, %d tokens after %d", b->output_len, b->context_len);
    buf_printf(out, "\n%-30s%12s%14s%16s\n", title, "tok/s", "per step", "weights");
    for (int32_t i = 0; i < b->num_batch_sizes; i++) {
        const struct bench_result *r = &b->decode[i];
        buf_printf(out, "  batch %8d              %12.1f%11.2f ms%11.1f GB/s\n", r->size,
                   r->tokens_per_second, r->seconds * 1e3 / b->output_len,
                   weight_gb_per_second(b, r));
    }
}

static bool describe_json(const struct bench *b, struct buf *out)
{
    const struct engine_info *info = engine_info(b->engine);
    json_t *prefill = json_array(), *decode = json_array();
    for (int32_t i = 0; i < b->num_input_lens; i++) {
        const struct bench_result *r = &b->prefill[i];
        json_array_append_new(prefill, json_pack("{s:i, s:f, s:f}", "input_len", r->size,
                                                 "tokens_per_second", r->tokens_per_second,
                                                 "seconds", r->seconds));
    }
    for (int32_t i = 0; i < b->num_batch_sizes; i++) {
        const struct bench_result *r = &b->decode[i];
        json_array_append_new(decode,
                              json_pack("{s:i, s:i, s:i, s:f, s:f, s:f}", "batch_size", r->size,
                                        "context_len", b->context_len, "output_len", b->output_len,
                                        "tokens_per_second", r->tokens_per_second,
                                        "seconds_per_step", r->seconds / b->output_len,
                                        "weight_gb_per_second", weight_gb_per_second(b, r)));
    }
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:o, s:o}", "model", info->model_path,
                  "architecture", info->architecture, "dtype", info->dtype, "device", info->device,
                  "num_parameters", (json_int_t)info->num_parameters, "decode_weight_bytes",
                  (json_int_t)info->decode_weight_bytes, "repeat", b->repeat, "prefill", prefill,
                  "decode", decode);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (text) {
        buf_append_str(out, text);
        buf_append_char(out, '\n');
    }
    free(text);
    json_decref(root);
    return text != NULL;
}

static bool print_results(const struct bench *b, struct status *st)
{
    struct buf out;
    bool ok = true;
    buf_init(&out, 0);
    if (!b->config.json)
        describe_table(b, &out);
    else if (!describe_json(b, &out))
        ok = status_set(st, STATUS_INVALID, "%s cannot be written as JSON", b->config.model);
    if (ok && (fputs(buf_str(&out), stdout) < 0 || fflush(stdout) != 0))
        ok = status_set(st, STATUS_IO, "cannot write the results to standard output");
    buf_free(&out);
    return ok;
}

int bench_run(const struct config *config)
{
    struct bench *b = xcalloc(1, sizeof(*b));
    struct startup stages;
    struct status st = { 0 };
    b->config = *config;
    bool ok = plan_measurements(b, &st);
    if (ok) {
        b->engine = engine_new(&b->config);
        startup_init(&stages);
        startup_add(&stages, engine_stages, num_engine_stages, b->engine);
        ok = startup_up(&stages, &st);
        if (ok) {
            ok = measure_all(b, &st) && print_results(b, &st);
            engine_abort_all(b->engine);
            startup_down(&stages);
        }
        engine_free(b->engine);
    }
    if (!ok)
        log_error("%s", st.message);
    free(b);
    return ok ? 0 : 1;
}
