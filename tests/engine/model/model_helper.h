/* model_helper.h - drives a decoder without the engine: one block table per sequence, contiguous
 * blocks, greedy choice on the host. Include after cmocka.h. */
#ifndef INFERD_TESTS_ENGINE_MODEL_MODEL_HELPER_H
#define INFERD_TESTS_ENGINE_MODEL_MODEL_HELPER_H

#include "engine/model/checkpoint.h"
#include "engine/model/decoder.h"
#include "engine/model/kv_cache_spec.h"
#include "engine/model/tensor_parallel.h"
#include "kernels/backend.h"
#include "kernels/comm.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RIG_BLOCK_SIZE = 16,
    RIG_MAX_SEQS = 4,
    RIG_MAX_TOKENS = 512, /* of one step */
    RIG_MAX_LEN = 512,    /* of one sequence */
    RIG_BLOCKS = RIG_MAX_LEN / RIG_BLOCK_SIZE,
    RIG_INPUT_BYTES = 64 << 10
};

/* A loaded model with an empty KV cache for RIG_MAX_SEQS sequences. */
struct rig {
    struct model *whole; /* NULL: there is one rank */
    struct model *model; /* or the rank's share of it */
    struct device *device;
    struct comm *comm;
    struct weights *weights;
    struct decoder *decoder;
    struct buffer kv_memory;
    struct kv_layer *kv;
    /* Where device addresses are no host addresses: a step's arrays there, and its logits here. */
    struct buffer inputs;
    struct tensor logits;
    int32_t computed[RIG_MAX_SEQS]; /* tokens of each sequence in the cache */
    /* Its first blocks are those of another sequence: a prefix hit. */
    int32_t prefix_seq[RIG_MAX_SEQS], prefix_blocks[RIG_MAX_SEQS];
};

/* One sequence's share of a step. */
struct rig_span {
    int32_t seq;
    const int32_t *ids;
    int32_t count;
};

static inline bool file_exists(const char *path)
{
    return access(path, R_OK) == 0;
}

static inline void rig_fail(const char *what, const struct status *st)
{
    fprintf(stderr, "%s: %s\n", what, st->message);
    fail();
}

static inline void rig_open_kv(struct rig *r, enum dtype dtype)
{
    struct status st;
    const struct decoder_desc *desc = &r->model->desc;
    struct kv_cache_spec spec = kv_cache_spec_make(desc, dtype);
    /* One block too many: sequence 0 begins at block 1, so that an unset table entry shows. */
    int32_t num_blocks = RIG_MAX_SEQS * RIG_BLOCKS + 1;
    size_t one = (size_t)num_blocks * kv_cache_k_block_bytes(&spec, RIG_BLOCK_SIZE);
    if (!r->device->backend->alloc(r->device, &r->kv_memory,
                                   2 * one * (size_t)desc->num_hidden_layers, MEMORY_DEVICE, &st))
        rig_fail("KV cache", &st);
    r->kv = calloc((size_t)desc->num_hidden_layers, sizeof *r->kv);
    for (int32_t i = 0; i < desc->num_hidden_layers; i++)
        r->kv[i] = (struct kv_layer){ .k = (char *)r->kv_memory.data + 2 * (size_t)i * one,
                                      .v = spec.v_head_dim == 0 ? NULL
                                                                : (char *)r->kv_memory.data +
                                                                      (2 * (size_t)i + 1) * one,
                                      .dtype = dtype,
                                      .num_blocks = num_blocks,
                                      .block_size = RIG_BLOCK_SIZE,
                                      .num_kv_heads = desc->num_key_value_heads,
                                      .head_dim = desc->head_dim };
}

struct rig_options {
    const char *path, *load_format, *dtype, *isa;
    const char *kv_dtype;          /* as --kv-cache-dtype; NULL: that of the weights */
    int32_t served_len;            /* 0: the model's own */
    const char *quantization;      /* NULL: none */
    const struct backend *backend; /* NULL: the CPU */
    struct comm *comm;             /* NULL: there is one rank. Taken */
};

static inline void rig_open_options(struct rig *r, const struct rig_options *o)
{
    struct status st;
    const char *path = o->path, *isa = o->isa, *kv_dtype = o->kv_dtype;
    struct model_options mo = { .path = path,
                                .load_format = o->load_format,
                                .dtype = o->dtype,
                                .quantization = o->quantization };
    struct device_options dev = { .num_threads = o->comm ? 1 : 2, .isa = isa };
    memset(r, 0, sizeof *r);
    if (!model_open(&mo, &r->model, &st))
        rig_fail(path, &st);
    if (o->served_len > 0)
        model_set_max_len(r->model, o->served_len);
    const struct backend *ops = o->backend ? o->backend : &backend_cpu;
    if (!ops->open(&r->device, &dev, &st))
        rig_fail("device", &st);
    r->comm = o->comm ? o->comm : comm_self_open();
    if (o->comm) {
        r->whole = r->model;
        r->model = tensor_parallel_share(r->whole, o->comm->rank, o->comm->world_size);
    }
    struct decoder_limits limits = { RIG_MAX_TOKENS, RIG_MAX_TOKENS };
    struct workspace_desc ws = { .max_num_seqs = RIG_MAX_SEQS,
                                 .max_model_len = RIG_MAX_LEN,
                                 .block_size = RIG_BLOCK_SIZE };
    decoder_workspace(&r->model->desc, &limits, &ws);
    if (!decoder_check_ops(&r->model->desc, ops, &st) ||
        !ops->reserve_workspace(r->device, &ws, &st) ||
        !ops->alloc(r->device, &r->inputs, RIG_INPUT_BYTES, MEMORY_DEVICE, &st) ||
        !weights_load(r->model, r->device, r->comm, NULL, NULL, &r->weights, &st))
        rig_fail(path, &st);
    enum dtype kv = r->model->weight_format->dtype;
    assert_true(!kv_dtype || kv_cache_dtype_parse(kv_dtype, &kv));
    rig_open_kv(r, kv);
    if (!decoder_new(&r->model->desc, r->weights, r->device, r->comm, &limits, r->kv, &r->decoder,
                     &st))
        rig_fail("decoder", &st);
}

static inline void rig_open_with_kv(struct rig *r, const char *path, const char *load_format,
                                    const char *dtype, const char *isa, const char *kv_dtype)
{
    struct rig_options o = {
        .path = path, .load_format = load_format, .dtype = dtype, .isa = isa, .kv_dtype = kv_dtype
    };
    rig_open_options(r, &o);
}

static inline void rig_open(struct rig *r, const char *path, const char *load_format,
                            const char *dtype, const char *isa)
{
    rig_open_with_kv(r, path, load_format, dtype, isa, NULL);
}

static inline void rig_close(struct rig *r)
{
    const struct backend *ops = r->device->backend;
    decoder_free(r->decoder);
    ops->free(r->device, &r->kv_memory);
    ops->free(r->device, &r->inputs);
    free(r->logits.data);
    free(r->kv);
    weights_free(r->weights, r->device);
    r->comm->close(r->comm);
    ops->close(r->device);
    if (r->whole)
        tensor_parallel_share_free(r->model);
    model_close(r->whole ? r->whole : r->model);
}

static inline void rig_reset(struct rig *r)
{
    memset(r->computed, 0, sizeof r->computed);
    memset(r->prefix_blocks, 0, sizeof r->prefix_blocks);
}

/* Sequence `seq` begins with the first `num_blocks` blocks that `from` has filled. */
static inline void rig_hit(struct rig *r, int32_t seq, int32_t from, int32_t num_blocks)
{
    assert_true(r->computed[from] >= num_blocks * RIG_BLOCK_SIZE && r->prefix_blocks[from] == 0);
    r->prefix_seq[seq] = from;
    r->prefix_blocks[seq] = num_blocks;
    r->computed[seq] = num_blocks * RIG_BLOCK_SIZE;
}

/* The array where the device reads it; `used` of r->inputs so far. */
static inline const int32_t *rig_input(struct rig *r, const int32_t *ints, int32_t count,
                                       size_t *used)
{
    const struct backend *ops = r->device->backend;
    if (ops->caps & BACKEND_HOST_MEMORY)
        return ints;
    char *at = (char *)r->inputs.data + *used;
    *used += ((size_t)count * sizeof *ints + 63) / 64 * 64;
    assert_true(*used <= RIG_INPUT_BYTES);
    ops->copy(r->device, at, ints, (size_t)count * sizeof *ints, COPY_TO_DEVICE);
    return (const int32_t *)(const void *)at;
}

/* The logits where the host reads them, once the device is in sync. */
static inline const struct tensor *rig_logits(struct rig *r, const struct tensor *logits)
{
    const struct backend *ops = r->device->backend;
    if (ops->caps & BACKEND_HOST_MEMORY)
        return logits;
    free(r->logits.data);
    r->logits = *logits;
    size_t bytes = (size_t)logits->rows * (size_t)logits->stride * sizeof(float);
    r->logits.data = malloc(bytes);
    for (int32_t row = 0; row < logits->rows; row++)
        ops->copy(r->device, (float *)r->logits.data + row * logits->stride,
                  (const float *)logits->data + row * logits->stride,
                  (size_t)logits->cols * sizeof(float), COPY_TO_HOST);
    return &r->logits;
}

/* Runs one step over the spans; returns the logits of all their tokens, [sum of counts, vocab]. */
static inline const struct tensor *rig_step(struct rig *r, const struct rig_span *spans,
                                            int32_t num_spans)
{
    int32_t ids[RIG_MAX_TOKENS], positions[RIG_MAX_TOKENS], slots[RIG_MAX_TOKENS];
    int32_t rows[RIG_MAX_TOKENS], tables[RIG_MAX_SEQS * RIG_BLOCKS];
    int32_t starts[RIG_MAX_SEQS + 1], lens[RIG_MAX_SEQS];
    int32_t n = 0, max_query = 0, max_seq = 0;
    for (int32_t s = 0; s < num_spans; s++) {
        int32_t seq = spans[s].seq, first_block = 1 + seq * RIG_BLOCKS;
        starts[s] = n;
        for (int32_t b = 0; b < RIG_BLOCKS; b++)
            tables[s * RIG_BLOCKS + b] = b < r->prefix_blocks[seq]
                                             ? 1 + r->prefix_seq[seq] * RIG_BLOCKS + b
                                             : first_block + b;
        for (int32_t i = 0; i < spans[s].count; i++, n++) {
            assert_true(n < RIG_MAX_TOKENS && r->computed[seq] < RIG_MAX_LEN);
            ids[n] = spans[s].ids[i];
            positions[n] = r->computed[seq]++;
            slots[n] = first_block * RIG_BLOCK_SIZE + positions[n];
            rows[n] = n;
        }
        lens[s] = r->computed[seq];
        max_query = spans[s].count > max_query ? spans[s].count : max_query;
        max_seq = lens[s] > max_seq ? lens[s] : max_seq;
    }
    starts[num_spans] = n;
    size_t used = 0;
    struct attn_metadata attn = { .num_seqs = num_spans,
                                  .num_tokens = n,
                                  .max_query_len = max_query,
                                  .max_seq_len = max_seq,
                                  .query_start_loc = rig_input(r, starts, num_spans + 1, &used),
                                  .seq_lens = rig_input(r, lens, num_spans, &used),
                                  .block_tables =
                                      rig_input(r, tables, num_spans * RIG_BLOCKS, &used),
                                  .block_table_stride = RIG_BLOCKS,
                                  .slot_mapping = rig_input(r, slots, n, &used) };
    struct forward_batch batch = { n, rig_input(r, ids, n, &used),
                                   rig_input(r, positions, n, &used), &attn };
    struct status st;
    decoder_forward(r->decoder, &batch);
    const struct tensor *logits =
        rig_logits(r, decoder_logits(r->decoder, rig_input(r, rows, n, &used), n));
    if (!r->device->backend->sync(r->device, &st))
        rig_fail("step", &st);
    return logits;
}

static inline const float *logits_row(const struct tensor *logits, int32_t row)
{
    return (const float *)logits->data + (int64_t)row * logits->stride;
}

static inline int32_t argmax(const float *x, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* Continues sequence `seq`, whose last logits are `logits`, greedily. */
static inline void rig_greedy(struct rig *r, int32_t seq, const float *logits, int32_t *out,
                              int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = argmax(logits, r->model->desc.vocab_size);
        if (i + 1 < count) {
            struct rig_span span = { seq, &out[i], 1 };
            logits = logits_row(rig_step(r, &span, 1), 0);
        }
    }
}

/* --- tiny checkpoints --- */

/* Makes one in a new temporary directory, with make_tiny.py's arguments `options`. False where
 * there is no python3. Remove it with remove_dir. */
static inline bool make_tiny(char dir[64], const char *options)
{
    char command[512];
    if (system("python3 -c '' 2>/dev/null") != 0)
        return false;
    strcpy(dir, "/tmp/inferd-tiny-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command, "python3 tests/fixtures/make_tiny.py %s %s", dir, options);
    assert_int_equal(system(command), 0);
    return true;
}

static inline void remove_dir(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* --- JSON goldens --- */

static inline json_t *load_json(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (!root)
        fprintf(stderr, "%s: %s\n", path, error.text);
    assert_non_null(root);
    return root;
}

static inline int32_t json_ints(const json_t *array, int32_t *out, int32_t max)
{
    int32_t n = (int32_t)json_array_size(array);
    assert_true(n <= max);
    for (int32_t i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return n;
}

#endif
