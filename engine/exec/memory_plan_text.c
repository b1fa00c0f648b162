/* memory_plan_text.c - a plan's printed forms, and what to change where there is none. */
#include "engine/exec/memory_plan.h"
#include "kernels/backend.h"

#include <inttypes.h>
#include <stdio.h>

/* --- the plan --------------------------------------------------------------------------------- */

struct plan_row {
    const char *key, *label;
    size_t bytes;
    bool per_rank;
};

static size_t linears_bytes(const struct weights_size *w)
{
    size_t sum = 0;
    for (int32_t i = 0; i < w->num_formats; i++)
        sum += w->formats[i].bytes;
    return sum;
}

static void describe_json(const struct memory_plan *p, const struct plan_row *rows, size_t num_rows,
                          struct buf *out)
{
    const struct weights_size *w = &p->weights;
    buf_append_char(out, '{');
    for (size_t i = 0; i < num_rows; i++)
        buf_printf(out, "\"%s\": %zu, ", rows[i].key, rows[i].bytes);
    buf_append_str(out, "\"weights_by_format\": {");
    for (int32_t i = 0; i < w->num_formats; i++)
        buf_printf(out, "\"%s\": %zu, ", w->formats[i].format, w->formats[i].bytes);
    buf_printf(out, "\"vectors\": %zu}, ", w->bytes - linears_bytes(w));
    buf_printf(out,
               "\"tensor_parallel_size\": %d, \"block_size\": %d, \"num_blocks\": %d, "
               "\"num_kv_cache_groups\": %d, "
               "\"kv_cache_tokens\": %" PRId64 ", \"max_model_len\": %d, \"longest_len\": %d, "
               "\"max_concurrency\": %.4f}\n",
               p->num_ranks, p->block_size, p->num_blocks, p->kv_spec.num_groups,
               p->kv_cache_tokens, p->max_model_len, p->longest_len, p->max_concurrency);
}

/* `ranks`: what to say of a size that each rank has. */
static void print_bytes(struct buf *out, const char *label, const char *detail, size_t bytes,
                        const char *ranks)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", label, detail);
    buf_printf(out, "%-24s %16zu bytes  %10.2f MiB%s\n", name, bytes, (double)bytes / (1 << 20),
               ranks);
}

static void describe_table(const struct memory_plan *p, const struct plan_row *rows,
                           size_t num_rows, struct buf *out)
{
    const struct weights_size *w = &p->weights;
    char ranks[48] = "";
    if (p->num_ranks > 1)
        snprintf(ranks, sizeof ranks, "  on each of %d ranks", p->num_ranks);
    for (size_t i = 0; i < num_rows; i++)
        print_bytes(out, rows[i].label, "", rows[i].bytes, rows[i].per_rank ? ranks : "");
    for (int32_t i = 0; i < w->num_formats; i++)
        print_bytes(out, "weights in ", w->formats[i].format, w->formats[i].bytes, ranks);
    print_bytes(out, "weights, vectors", "", w->bytes - linears_bytes(w), ranks);
    buf_printf(out, "%-24s %16d of %d tokens\n", "KV blocks", p->num_blocks, p->block_size);
    buf_printf(out, "%-24s %16d\n", "KV groups", p->kv_spec.num_groups);
    buf_printf(out, "%-24s %16" PRId64 "\n", "KV tokens", p->kv_cache_tokens);
    buf_printf(out, "%-24s %16d tokens\n", "max model len", p->max_model_len);
    buf_printf(out, "%-24s %16d tokens, one request alone\n", "longest context", p->longest_len);
    buf_printf(out, "%-24s %16.2f full-length requests at once\n", "max concurrency",
               p->max_concurrency);
}

void memory_plan_describe(const struct memory_plan *p, bool json, struct buf *out)
{
    const struct plan_row rows[] = {
        { "memory_total_bytes", "memory in all", p->memory.total_bytes, false },
        { "memory_available_bytes", "memory available", p->memory.available_bytes, false },
        { "comm_bytes", "taken for ranks to meet", p->comm_bytes, true },
        { "weights_bytes", "weights", p->weights.bytes, true },
        { "activation_bytes", "activations", p->activation_bytes, true },
        { "workspace_bytes", "workspace", p->workspace_bytes, true },
        { "graph_bytes", "graphs, estimated", p->graph_bytes, true },
        { "batch_bytes", "batch staging", p->batch_bytes, false },
        { "kv_cache_bytes", "KV cache", p->kv_cache_bytes, true },
        { "total_bytes", "sum", memory_plan_total_bytes(p), false },
        { "block_bytes", "one KV block", p->block_bytes, true },
        { "kv_cache_bytes_per_token", "KV cache per token", kv_cache_bytes_per_token(&p->kv_spec),
          true },
    };
    const size_t num_rows = sizeof rows / sizeof rows[0];
    if (json)
        describe_json(p, rows, num_rows, out);
    else
        describe_table(p, rows, num_rows, out);
}

/* --- what would fit --------------------------------------------------------------------------- */

/* Each makes one option smaller; false where there is nothing to gain. */
struct advice {
    bool (*change)(const struct model *m, const struct device *d, struct memory_plan_options *o);
    const char *text;
};

static bool smaller_kv_dtype(const struct model *m, const struct device *d,
                             struct memory_plan_options *o)
{
    (void)m;
    bool smaller = dtype_size(o->kv_cache_dtype) > 1 && (d->backend->caps & BACKEND_KV_8BIT);
    o->kv_cache_dtype = DTYPE_F8_E4M3;
    return smaller;
}

static bool fewer_batched_tokens(const struct model *m, const struct device *d,
                                 struct memory_plan_options *o)
{
    (void)m;
    (void)d;
    bool smaller = o->max_num_batched_tokens > 512;
    o->max_num_batched_tokens = 512;
    return smaller;
}

static bool fewer_sequences(const struct model *m, const struct device *d,
                            struct memory_plan_options *o)
{
    (void)m;
    (void)d;
    bool smaller = o->max_num_seqs > 16;
    o->max_num_seqs = 16;
    return smaller;
}

static bool all_memory(const struct model *m, const struct device *d, struct memory_plan_options *o)
{
    (void)m;
    (void)d;
    bool more = o->memory_utilization < 0.98 && o->kv_cache_memory_bytes == 0;
    o->memory_utilization = 0.98;
    return more;
}

static bool computed_blocks(const struct model *m, const struct device *d,
                            struct memory_plan_options *o)
{
    (void)m;
    (void)d;
    bool fixed = o->kv_cache_memory_bytes > 0 || o->num_blocks_override > 0;
    o->kv_cache_memory_bytes = 0;
    o->num_blocks_override = 0;
    return fixed;
}

static bool half_len(const struct model *m, const struct device *d, struct memory_plan_options *o)
{
    (void)d;
    int32_t len = o->max_model_len > 0 ? o->max_model_len : model_max_len(&m->desc);
    o->max_model_len = len / 2;
    return o->max_model_len >= 512;
}

static bool len_of_4096(const struct model *m, const struct device *d,
                        struct memory_plan_options *o)
{
    (void)d;
    int32_t len = o->max_model_len > 0 ? o->max_model_len : model_max_len(&m->desc);
    o->max_model_len = 4096;
    return len / 2 > 4096;
}

static const struct advice advice[] = {
    { all_memory, "--gpu-memory-utilization 0.98" },
    { computed_blocks, "no --kv-cache-memory-bytes or --num-gpu-blocks-override" },
    { fewer_batched_tokens, "--max-num-batched-tokens 512" },
    { fewer_sequences, "--max-num-seqs 16" },
    { smaller_kv_dtype, "--kv-cache-dtype fp8" },
    { half_len, "half the --max-model-len" },
    { len_of_4096, "--max-model-len 4096" },
};

void memory_plan_advise(const struct model *m, struct device *d,
                        const struct memory_plan_options *options, struct buf *out)
{
    for (size_t i = 0; i < sizeof advice / sizeof advice[0]; i++) {
        struct memory_plan_options changed = *options;
        struct memory_plan plan;
        struct status st;
        if (advice[i].change(m, d, &changed) && memory_plan_make(m, d, &changed, &plan, &st))
            buf_printf(out,
                       "it fits with %s: max_model_len %d, %.2f full-length requests at once\n",
                       advice[i].text, plan.max_model_len, plan.max_concurrency);
    }
}
