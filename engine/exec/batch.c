/* batch.c - the arrays of a step, carved from one block so that one copy moves them. */
#include "engine/exec/batch.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { FIELD_ALIGN = 64 };

/* Hands out pieces of one block; without a base it only counts. */
struct carver {
    char *base;
    size_t used;
};

static void *carve(struct carver *c, size_t count, size_t size)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += (count * size + FIELD_ALIGN - 1) / FIELD_ALIGN * FIELD_ALIGN;
    return p;
}

static int32_t blocks_per_seq(const struct batch_limits *l)
{
    return (l->max_model_len + l->block_size - 1) / l->block_size;
}

static size_t max_rows(const struct batch_limits *l)
{
    return (size_t)l->max_num_seqs * (size_t)(1 + l->max_draft_tokens);
}

static void carve_sampling(struct carver *c, struct batch_sampling *s, size_t rows)
{
    s->temperature = carve(c, rows, sizeof(float));
    s->top_p = carve(c, rows, sizeof(float));
    s->min_p = carve(c, rows, sizeof(float));
    s->presence_penalty = carve(c, rows, sizeof(float));
    s->frequency_penalty = carve(c, rows, sizeof(float));
    s->repetition_penalty = carve(c, rows, sizeof(float));
    s->seed = carve(c, rows, sizeof(uint64_t));
    s->position = carve(c, rows, sizeof(uint64_t));
    s->top_k = carve(c, rows, sizeof(int32_t));
    s->num_prompt_tokens = carve(c, rows, sizeof(int32_t));
    s->num_tokens = carve(c, rows, sizeof(int32_t));
    s->token_ids = carve(c, rows, sizeof(int32_t *));
    s->allowed_mask = carve(c, rows, sizeof(uint32_t *));
    s->bias_start = carve(c, rows + 1, sizeof(int32_t));
    s->bias_ids = carve(c, rows * MAX_BIAS_PER_SEQ, sizeof(int32_t));
    s->bias_values = carve(c, rows * MAX_BIAS_PER_SEQ, sizeof(float));
}

static void carve_logprobs(struct carver *c, struct logprobs_request *r, size_t rows, size_t top)
{
    r->max_top = (int32_t)top;
    r->target_logprob = carve(c, rows, sizeof(float));
    r->target_rank = carve(c, rows, sizeof(int32_t));
    r->top_ids = carve(c, rows * top, sizeof(int32_t));
    r->top_logprobs = carve(c, rows * top, sizeof(float));
}

static void carve_outputs(struct carver *c, struct batch *b, const struct batch_limits *l)
{
    size_t rows = max_rows(l), tokens = (size_t)l->max_num_tokens;
    b->sampled_ids = carve(c, rows, sizeof(int32_t));
    b->num_accepted = carve(c, (size_t)l->max_num_seqs, sizeof(int32_t));
    carve_logprobs(c, &b->logprobs, rows, (size_t)l->max_logprobs);
    carve_logprobs(c, &b->prompt_logprobs, tokens, (size_t)l->max_logprobs);
}

static size_t carve_batch(struct batch *b, const struct batch_limits *l, char *base)
{
    struct carver c = { base, 0 };
    size_t seqs = (size_t)l->max_num_seqs, tokens = (size_t)l->max_num_tokens;
    size_t groups = (size_t)l->num_kv_groups, rows = max_rows(l);
    b->block_table_stride = blocks_per_seq(l);
    b->input_ids = carve(&c, tokens, sizeof(int32_t));
    b->positions = carve(&c, tokens, sizeof(int32_t));
    b->slot_mapping = carve(&c, groups * tokens, sizeof(int32_t));
    b->query_start_loc = carve(&c, seqs + 1, sizeof(int32_t));
    b->seq_lens = carve(&c, seqs, sizeof(int32_t));
    b->block_tables = carve(&c, groups * seqs * (size_t)b->block_table_stride, sizeof(int32_t));
    b->sample_rows = carve(&c, rows, sizeof(int32_t));
    b->sample_start = carve(&c, seqs + 1, sizeof(int32_t));
    b->draft_ids = carve(&c, rows, sizeof(int32_t));
    b->feed_dst = carve(&c, 2 * seqs, sizeof(int32_t *));
    b->feed_rows = carve(&c, 2 * seqs, sizeof(int32_t));
    carve_sampling(&c, &b->sampling, rows);
    b->num_top = carve(&c, rows, sizeof(int32_t));
    b->prompt_rows = carve(&c, tokens, sizeof(int32_t));
    b->prompt_targets = carve(&c, tokens, sizeof(int32_t));
    b->prompt_num_top = carve(&c, tokens, sizeof(int32_t));
    b->prompt_seq = carve(&c, tokens, sizeof(int32_t));
    b->prompt_positions = carve(&c, tokens, sizeof(int32_t));
    carve_outputs(&c, b, l);
    return c.used;
}

/* Bytes for `count` words of the references. */
static size_t reference_bytes(size_t count)
{
    return (count * sizeof(int32_t) + FIELD_ALIGN - 1) / FIELD_ALIGN * FIELD_ALIGN;
}

static size_t mask_words(const struct batch_limits *l)
{
    return ((size_t)l->vocab_size + 31) / 32;
}

/* Each sequence may need its whole history and a mask. */
static size_t references_bytes(const struct batch_limits *l)
{
    if (!l->copy_references)
        return 0;
    return (size_t)l->max_num_seqs *
           (reference_bytes((size_t)l->max_model_len) + reference_bytes(mask_words(l)));
}

size_t batch_bytes(const struct batch_limits *limits)
{
    struct batch b;
    return carve_batch(&b, limits, NULL) + references_bytes(limits);
}

/* The twins, of which two batches that take turns have one. */
static bool open_device(struct batch *b, struct device *d, const struct batch *other,
                        struct status *st)
{
    const bool host_memory = d->backend->caps & BACKEND_HOST_MEMORY;
    b->owns_device = !host_memory && !other;
    if (!b->owns_device) {
        b->device = host_memory ? b->host : other->device;
        b->references_device = host_memory ? b->references_host : other->references_device;
        return true;
    }
    return d->backend->alloc(d, &b->device, b->host.size_bytes, MEMORY_DEVICE, st) &&
           d->backend->alloc(d, &b->references_device, b->references_host.size_bytes, MEMORY_DEVICE,
                             st);
}

bool batch_open(struct batch *b, const struct batch_limits *limits, struct device *d,
                const struct batch *other, struct status *st)
{
    memset(b, 0, sizeof *b);
    b->limits = *limits;
    b->mark = other ? 1 : 0;
    size_t bytes = carve_batch(b, limits, NULL), references = references_bytes(limits);
    if (!d->backend->alloc(d, &b->host, bytes, MEMORY_PINNED, st) ||
        !d->backend->alloc(d, &b->references_host, references, MEMORY_PINNED, st))
        return status_prefix(st, "batch staging: ");
    if (!open_device(b, d, other, st))
        return status_prefix(st, "batch: ");
    carve_batch(b, limits, b->host.data);
    return true;
}

void batch_close(struct batch *b, struct device *d)
{
    if (b->owns_device && b->device.data)
        d->backend->free(d, &b->device);
    if (b->owns_device && b->references_device.data)
        d->backend->free(d, &b->references_device);
    if (b->host.data)
        d->backend->free(d, &b->host);
    if (b->references_host.data)
        d->backend->free(d, &b->references_host);
    memset(b, 0, sizeof *b);
}

const void *batch_on_device(const struct batch *b, const void *host)
{
    return (const char *)b->device.data + ((const char *)host - (const char *)b->host.data);
}

static void add_bias(struct batch_sampling *s, int32_t *n, int32_t begin, int32_t id, float value)
{
    assert(*n - begin < MAX_BIAS_PER_SEQ);
    s->bias_ids[*n] = id;
    s->bias_values[(*n)++] = value;
}

/* logit_bias, and -inf for all that could end the sequence before min_tokens. */
static void fill_bias(struct batch_sampling *s, int32_t row, const struct sampling_params *p,
                      int32_t num_output)
{
    int32_t begin = s->bias_start[row], n = begin;
    for (int32_t i = 0; i < p->num_logit_bias; i++)
        add_bias(s, &n, begin, p->logit_bias_ids[i], p->logit_bias_values[i]);
    if (num_output < p->min_tokens) {
        for (int32_t i = 0; i < p->num_eos_token_ids; i++)
            add_bias(s, &n, begin, p->eos_token_ids[i], -INFINITY);
        for (int32_t i = 0; i < p->num_stop_token_ids; i++)
            add_bias(s, &n, begin, p->stop_token_ids[i], -INFINITY);
    }
    s->bias_start[row + 1] = n;
}

/* Where the device finds `count` words that lie at `host`. */
static const void *refer(struct batch *b, const void *host, size_t count)
{
    if (!b->limits.copy_references || !host)
        return host;
    size_t at = b->references_used;
    b->references_used += reference_bytes(count);
    assert(b->references_used <= b->references_host.size_bytes);
    memcpy((char *)b->references_host.data + at, host, count * sizeof(int32_t));
    return (char *)b->references_device.data + at;
}

static bool has_penalties(const struct sampling_params *p)
{
    return p->repetition_penalty != 1.0f || p->frequency_penalty != 0.0f ||
           p->presence_penalty != 0.0f;
}

/* The id that the step before samples for this sequence goes to `dst`. */
static void feed(struct batch *b, const struct batch *previous, const struct step_seq *q,
                 const int32_t *dst)
{
    const int32_t row = previous->sample_start[q->previous];
    assert(previous->sample_start[q->previous + 1] == row + 1);
    b->feed_dst[b->num_feeds] = (int32_t *)dst;
    b->feed_rows[b->num_feeds++] = row;
}

/* The history with the drafts, where it is looked at; its last known id may be one that is still
 * being sampled. */
static const int32_t *fill_history(struct batch *b, const struct batch *previous,
                                   const struct step_seq *q)
{
    const struct request *r = q->request;
    if (b->limits.copy_references && !has_penalties(&r->params))
        return NULL;
    const size_t num_ids = (size_t)q->num_tokens + (size_t)q->num_draft_tokens;
    const int32_t *ids = refer(b, r->token_ids, num_ids);
    if (q->fed)
        feed(b, previous, q, ids + q->num_tokens - 1);
    return ids;
}

/* The row that samples behind num_tokens ids of the sequence, whose logits are those of `row`. */
static void fill_sample_row(struct batch *b, const struct request *r, int32_t num_tokens,
                            int32_t row)
{
    struct batch_sampling *s = &b->sampling;
    const struct sampling_params *p = &r->params;
    const int32_t num_output = num_tokens - r->num_prompt_tokens;
    const int32_t i = b->num_sample_rows++;
    b->sample_rows[i] = row;
    s->temperature[i] = p->temperature;
    s->top_p[i] = p->top_p;
    s->min_p[i] = p->min_p;
    s->top_k[i] = p->top_k > 0 ? (int32_t)p->top_k : 0;
    s->presence_penalty[i] = p->presence_penalty;
    s->frequency_penalty[i] = p->frequency_penalty;
    s->repetition_penalty[i] = p->repetition_penalty;
    s->seed[i] = r->seed;
    s->position[i] = (uint64_t)num_output;
    s->num_prompt_tokens[i] = r->num_prompt_tokens;
    s->num_tokens[i] = num_tokens;
    fill_bias(s, i, p, num_output);
    b->num_top[i] = p->num_logprobs;
    b->any_logprobs |= p->num_logprobs >= 0;
}

/* The rows of a sequence: behind its last id, and behind each draft. What a row samples at is as if
 * the drafts before it were output. */
static void fill_sample_rows(struct batch *b, const struct batch *previous,
                             const struct step_seq *q, int32_t first_row)
{
    const struct request *r = q->request;
    const int32_t *history = fill_history(b, previous, q);
    const uint32_t *mask = refer(b, r->params.allowed_mask, mask_words(&b->limits));
    b->any_drafts |= q->num_draft_tokens > 0;
    for (int32_t k = 0; k <= q->num_draft_tokens; k++) {
        const int32_t i = b->num_sample_rows, num_tokens = q->num_tokens + k;
        b->draft_ids[i] = k < q->num_draft_tokens ? r->token_ids[num_tokens] : -1;
        b->sampling.token_ids[i] = history;
        b->sampling.allowed_mask[i] = mask;
        fill_sample_row(b, r, num_tokens, first_row + k);
    }
}

/* Position p of a prompt gives the log-probability of the prompt's token p + 1. A sequence that has
 * output already (it was preempted) had its prompt's values published: they are not written again,
 * since the client may be reading them. */
static void fill_prompt_rows(struct batch *b, int32_t seq, const struct step_seq *q, int32_t row)
{
    const struct request *r = q->request;
    if (r->params.num_prompt_logprobs < 0 || q->num_tokens > r->num_prompt_tokens)
        return;
    for (int32_t i = 0; i < q->num_scheduled_tokens; i++) {
        int32_t target = q->num_computed_tokens + i + 1;
        if (target >= r->num_prompt_tokens)
            break;
        int32_t n = b->num_prompt_rows++;
        b->prompt_rows[n] = row + i;
        b->prompt_targets[n] = r->token_ids[target];
        b->prompt_num_top[n] = r->params.num_prompt_logprobs;
        b->prompt_seq[n] = seq;
        b->prompt_positions[n] = target;
    }
}

int32_t *batch_block_table(const struct batch *b, int32_t group, int32_t seq)
{
    size_t row = (size_t)group * (size_t)b->limits.max_num_seqs + (size_t)seq;
    return b->block_tables + row * (size_t)b->block_table_stride;
}

/* One group's table of the sequence, from the first block that it has, and where its new tokens go.
 * What stands before that block in the staging is old; no kernel reads it. */
static void fill_group(struct batch *b, int32_t group, int32_t seq, const struct step_seq *q,
                       const int32_t *table, int32_t row)
{
    const int32_t block_size = b->limits.block_size, first = q->first_blocks[group];
    int32_t *slots = b->slot_mapping + (size_t)group * (size_t)b->limits.max_num_tokens + row;
    memcpy(batch_block_table(b, group, seq) + first, table + first,
           (size_t)(q->num_blocks - first) * sizeof(int32_t));
    for (int32_t i = 0; i < q->num_scheduled_tokens; i++) {
        int32_t position = q->num_computed_tokens + i;
        assert(table[position / block_size] >= 0);
        slots[i] = table[position / block_size] * block_size + position % block_size;
    }
}

static void fill_seq(struct batch *b, const struct batch *previous, int32_t seq,
                     const struct step *step, int32_t row)
{
    const struct step_seq *q = &step->seqs[seq];
    const int32_t num_known = q->num_tokens + q->num_draft_tokens - q->fed;
    for (int32_t g = 0; g < b->limits.num_kv_groups; g++)
        fill_group(b, g, seq, q, q->block_tables + (size_t)g * (size_t)step->block_table_stride,
                   row);
    for (int32_t i = 0; i < q->num_scheduled_tokens; i++) {
        int32_t position = q->num_computed_tokens + i;
        b->input_ids[row + i] = position < num_known ? q->request->token_ids[position] : 0;
        b->positions[row + i] = position;
        if (position >= num_known)
            feed(b, previous, q, batch_on_device(b, &b->input_ids[row + i]));
    }
    b->seq_lens[seq] = q->num_computed_tokens + q->num_scheduled_tokens;
    b->query_start_loc[seq + 1] = row + q->num_scheduled_tokens;
    fill_prompt_rows(b, seq, q, row);
    if (q->sample)
        fill_sample_rows(b, previous, q, row + q->num_scheduled_tokens - 1 - q->num_draft_tokens);
    b->sample_start[seq + 1] = b->num_sample_rows;
}

/* What the ops are told of the step: the same for all groups but for the tables and slots. */
static void describe_step(struct batch *b, int32_t num_seqs, int32_t max_query_len,
                          int32_t max_seq_len)
{
    for (int32_t g = 0; g < b->limits.num_kv_groups; g++)
        b->attn[g] = (struct attn_metadata){
            .num_seqs = num_seqs,
            .num_tokens = b->query_start_loc[num_seqs],
            .max_query_len = max_query_len,
            .max_seq_len = max_seq_len,
            .query_start_loc = batch_on_device(b, b->query_start_loc),
            .seq_lens = batch_on_device(b, b->seq_lens),
            .block_tables = batch_on_device(b, batch_block_table(b, g, 0)),
            .block_table_stride = b->block_table_stride,
            .slot_mapping =
                batch_on_device(b, b->slot_mapping + (size_t)g * (size_t)b->limits.max_num_tokens),
        };
    b->forward = (struct forward_batch){ .num_tokens = b->query_start_loc[num_seqs],
                                         .input_ids = batch_on_device(b, b->input_ids),
                                         .positions = batch_on_device(b, b->positions),
                                         .attn = b->attn };
}

void batch_fill(struct batch *b, const struct step *step, const struct batch *previous)
{
    int32_t row = 0, max_query_len = 0, max_seq_len = 0;
    assert(step->num_seqs <= b->limits.max_num_seqs);
    assert(step->num_tokens <= b->limits.max_num_tokens);
    b->num_sample_rows = b->num_prompt_rows = b->num_feeds = 0;
    b->feed_from = previous ? batch_on_device(previous, previous->sampled_ids) : NULL;
    b->any_logprobs = b->any_drafts = b->capture = false;
    b->bucket = (struct graph_bucket){ 0 };
    b->references_used = 0;
    b->sampling.bias_start[0] = 0;
    b->query_start_loc[0] = b->sample_start[0] = 0;
    for (int32_t i = 0; i < step->num_seqs; i++) {
        const struct step_seq *q = &step->seqs[i];
        assert(q->num_blocks <= b->block_table_stride);
        fill_seq(b, previous, i, step, row);
        row += q->num_scheduled_tokens;
        if (q->num_scheduled_tokens > max_query_len)
            max_query_len = q->num_scheduled_tokens;
        if (b->seq_lens[i] > max_seq_len)
            max_seq_len = b->seq_lens[i];
    }
    b->num_seqs = step->num_seqs;
    b->max_seq_len = max_seq_len;
    b->num_run_rows = b->num_sample_rows;
    b->make_logprobs = b->any_logprobs;
    describe_step(b, step->num_seqs, max_query_len, max_seq_len);
}

int32_t batch_uniform_query_len(const struct batch *b)
{
    const struct attn_metadata *m = &b->attn[0];
    const int32_t len = m->max_query_len;
    const bool uniform = b->num_prompt_rows == 0 && m->num_tokens == m->num_seqs * len &&
                         b->num_sample_rows == m->num_tokens;
    return uniform ? len : 0;
}

/* A greedy row that asks for nothing else, over the logits of its own token. */
static void fill_padded_row(struct batch *b, int32_t i)
{
    struct batch_sampling *s = &b->sampling;
    b->sample_rows[i] = i;
    s->temperature[i] = s->min_p[i] = s->presence_penalty[i] = s->frequency_penalty[i] = 0;
    s->top_p[i] = s->repetition_penalty[i] = 1;
    s->seed[i] = s->position[i] = 0;
    s->top_k[i] = s->num_prompt_tokens[i] = s->num_tokens[i] = 0;
    s->token_ids[i] = NULL;
    s->allowed_mask[i] = NULL;
    s->bias_start[i + 1] = s->bias_start[i];
    b->num_top[i] = b->draft_ids[i] = -1;
}

/* Sequences without queries, and rows of the batch that are in none: embedded as id 0, written to
 * no slot, attending to nothing. */
void batch_pad(struct batch *b, const struct graph_bucket *bucket)
{
    const int32_t num_seqs = b->num_seqs, num_rows = b->num_sample_rows;
    const int32_t num_run_rows = bucket->num_seqs * bucket->query_len;
    assert(num_rows == num_seqs * bucket->query_len);
    assert(bucket->num_seqs >= num_seqs && bucket->num_seqs <= b->limits.max_num_seqs);
    for (int32_t i = num_seqs; i < bucket->num_seqs; i++) {
        b->seq_lens[i] = 0;
        b->query_start_loc[i + 1] = b->sample_start[i + 1] = num_rows;
    }
    for (int32_t i = num_rows; i < num_run_rows; i++) {
        b->input_ids[i] = b->positions[i] = 0;
        for (int32_t g = 0; g < b->limits.num_kv_groups; g++)
            b->slot_mapping[(size_t)g * (size_t)b->limits.max_num_tokens + (size_t)i] = -1;
        fill_padded_row(b, i);
    }
    b->bucket = *bucket;
    b->num_run_rows = num_run_rows;
    b->make_logprobs = true; /* rows say for themselves whether they want them */
    b->any_drafts = bucket->query_len > 1;
    describe_step(b, bucket->num_seqs, bucket->query_len, bucket->max_seq_len);
    b->forward.num_tokens = num_run_rows;
    for (int32_t g = 0; g < b->limits.num_kv_groups; g++)
        b->attn[g].num_tokens = num_run_rows;
}

void batch_sampling_rows(const struct batch *b, int32_t begin, int32_t count,
                         struct sampling_metadata *out)
{
    const struct batch_sampling *s = &b->sampling;
    *out = (struct sampling_metadata){
        .num_rows = count,
        .temperature = batch_on_device(b, s->temperature + begin),
        .top_p = batch_on_device(b, s->top_p + begin),
        .min_p = batch_on_device(b, s->min_p + begin),
        .top_k = batch_on_device(b, s->top_k + begin),
        .presence_penalty = batch_on_device(b, s->presence_penalty + begin),
        .frequency_penalty = batch_on_device(b, s->frequency_penalty + begin),
        .repetition_penalty = batch_on_device(b, s->repetition_penalty + begin),
        .seed = batch_on_device(b, s->seed + begin),
        .position = batch_on_device(b, s->position + begin),
        .token_ids = batch_on_device(b, s->token_ids + begin),
        .num_prompt_tokens = batch_on_device(b, s->num_prompt_tokens + begin),
        .num_tokens = batch_on_device(b, s->num_tokens + begin),
        .bias_start = batch_on_device(b, s->bias_start + begin),
        .bias_ids = batch_on_device(b, s->bias_ids),
        .bias_values = batch_on_device(b, s->bias_values),
        .allowed_mask = batch_on_device(b, s->allowed_mask + begin),
    };
}

/* Rows [begin, begin + count) of a whole request for log-probabilities, device addresses. */
static void logprob_rows(const struct batch *b, const struct logprobs_request *all,
                         const int32_t *targets, const int32_t *num_top, int32_t begin,
                         struct logprobs_request *out)
{
    size_t top = (size_t)begin * (size_t)all->max_top;
    out->max_top = all->max_top;
    out->target_ids = batch_on_device(b, targets + begin);
    out->num_top = batch_on_device(b, num_top + begin);
    out->target_logprob = (float *)batch_on_device(b, all->target_logprob + begin);
    out->target_rank = (int32_t *)batch_on_device(b, all->target_rank + begin);
    out->top_ids = (int32_t *)batch_on_device(b, all->top_ids + top);
    out->top_logprobs = (float *)batch_on_device(b, all->top_logprobs + top);
}

void batch_logprob_rows(const struct batch *b, int32_t begin, int32_t count,
                        struct logprobs_request *out)
{
    logprob_rows(b, &b->logprobs, b->sampled_ids, b->num_top, begin, out);
    out->num_rows = count;
}

void batch_prompt_logprob_rows(const struct batch *b, int32_t begin, int32_t count,
                               struct logprobs_request *out)
{
    logprob_rows(b, &b->prompt_logprobs, b->prompt_targets, b->prompt_num_top, begin, out);
    out->num_rows = count;
}

/* Entry 0 is the target's; the best ones follow. */
static void collect_row(const struct logprobs_request *all, int32_t row, int32_t num_top,
                        int32_t target, struct token_logprob *out)
{
    out[0] = (struct token_logprob){ target, all->target_rank[row], all->target_logprob[row] };
    size_t top = (size_t)row * (size_t)all->max_top;
    for (int32_t k = 0; k < num_top; k++)
        out[1 + k] = (struct token_logprob){ all->top_ids[top + (size_t)k], k + 1,
                                             all->top_logprobs[top + (size_t)k] };
}

/* What sequence `seq` of the step brings: the tokens up to and behind the first wrong draft. */
static void collect_seq(const struct batch *b, int32_t seq, struct step_output *output)
{
    const int32_t begin = b->sample_start[seq], num_rows = b->sample_start[seq + 1] - begin;
    const int32_t num_accepted = num_rows > 1 ? b->num_accepted[seq] : 0;
    assert(num_accepted < num_rows && num_rows <= output->max_sampled);
    output->num_sampled[seq] = 1 + num_accepted;
    for (int32_t k = 0; k <= num_accepted; k++) {
        const int32_t i = begin + k, place = step_output_place(output, seq, k);
        output->sampled_ids[place] = b->sampled_ids[i];
        if (b->num_top[i] >= 0)
            collect_row(&b->logprobs, i, b->num_top[i], b->sampled_ids[i],
                        output->logprobs + (size_t)place * (size_t)output->logprobs_stride);
    }
}

void batch_collect(const struct batch *b, const struct step *step, struct step_output *output)
{
    for (int32_t seq = 0; seq < step->num_seqs; seq++)
        if (b->sample_start[seq + 1] > b->sample_start[seq])
            collect_seq(b, seq, output);
    for (int32_t i = 0; i < b->num_prompt_rows; i++) {
        struct request *r = step->seqs[b->prompt_seq[i]].request;
        size_t stride = 1 + (size_t)r->params.num_prompt_logprobs;
        collect_row(&b->prompt_logprobs, i, b->prompt_num_top[i], b->prompt_targets[i],
                    r->prompt_logprobs + (size_t)b->prompt_positions[i] * stride);
    }
}
