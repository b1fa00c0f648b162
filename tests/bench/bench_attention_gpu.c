/* bench_attention_gpu.c - attention of a plug-in alone, for comparison with another library's on
 * the same shapes: a bfloat16 cache in blocks, float32 queries and results, as a layer has them.
 *
 *   bench_attention_gpu PLUGIN HEADS KV_HEADS HEAD_DIM SHAPE...
 *
 * PLUGIN is a file, or "cpu". SHAPE is SEQS:QUERY_LEN:SEQ_LEN, queries at the end of their
 * sequences. Prints one line for each: the shape and the seconds of one call, the best of several
 * rounds. */
#include "base/clock.h"
#include "kernels/plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_SIZE = 16, MAX_BUFFERS = 8, ROUNDS = 5, CALLS = 4 };

struct bench {
    const struct backend *ops;
    struct device *device;
    struct buffer buffers[MAX_BUFFERS];
    int32_t num_buffers;
};

struct shape {
    int32_t num_seqs, query_len, seq_len;
};

static void fail(const char *what, const struct status *st)
{
    fprintf(stderr, "bench_attention_gpu: %s: %s\n", what, st->message);
    exit(1);
}

static void *put(struct bench *b, const void *host, size_t bytes)
{
    struct status st;
    struct buffer *room = &b->buffers[b->num_buffers++];
    if (!b->ops->alloc(b->device, room, bytes, MEMORY_DEVICE, &st))
        fail("alloc", &st);
    b->ops->copy(b->device, room->data, host, bytes, COPY_TO_DEVICE);
    if (!b->ops->sync(b->device, &st))
        fail("copy", &st);
    return room->data;
}

/* Numbers of the same size and both signs: 16-bit halves as bfloat16, or 32-bit words as float32.
 */
static void *put_numbers(struct bench *b, size_t bytes)
{
    uint16_t *halves = malloc(bytes);
    if (!halves)
        abort();
    for (size_t i = 0; i < bytes / sizeof *halves; i++)
        halves[i] = (uint16_t)(0x3e00u | (i * 2654435761u >> 13 & 0x807fu));
    void *at = put(b, halves, bytes);
    free(halves);
    return at;
}

/* Blocks of all sequences in a scattered order, as a long-running server has them. */
static struct attn_metadata put_metadata(struct bench *b, struct shape s)
{
    const int32_t stride = (s.seq_len + BLOCK_SIZE - 1) / BLOCK_SIZE, blocks = stride * s.num_seqs;
    int32_t *tables = malloc((size_t)blocks * sizeof *tables);
    int32_t *starts = malloc(((size_t)s.num_seqs + 1) * sizeof *starts);
    int32_t *lens = malloc((size_t)s.num_seqs * sizeof *lens);
    if (!tables || !starts || !lens)
        abort();
    for (int32_t i = 0; i < blocks; i++)
        tables[i] = blocks % 7919 == 0 ? i : (int32_t)((int64_t)i * 7919 % blocks);
    for (int32_t i = 0; i <= s.num_seqs; i++)
        starts[i] = i * s.query_len;
    for (int32_t i = 0; i < s.num_seqs; i++)
        lens[i] = s.seq_len;
    struct attn_metadata m = {
        .num_seqs = s.num_seqs,
        .num_tokens = s.num_seqs * s.query_len,
        .max_query_len = s.query_len,
        .max_seq_len = s.seq_len,
        .query_start_loc = put(b, starts, ((size_t)s.num_seqs + 1) * sizeof *starts),
        .seq_lens = put(b, lens, (size_t)s.num_seqs * sizeof *lens),
        .block_tables = put(b, tables, (size_t)blocks * sizeof *tables),
        .block_table_stride = stride,
    };
    free(tables);
    free(starts);
    free(lens);
    return m;
}

static double best_seconds(struct bench *b, struct shape s, const struct attention_params *p)
{
    struct status st;
    double best = INFINITY;
    const struct attn_metadata m = put_metadata(b, s);
    const int32_t cols = p->num_heads * p->head_dim;
    const size_t rows_bytes = (size_t)m.num_tokens * (size_t)cols * sizeof(float);
    const int32_t blocks = m.block_table_stride * s.num_seqs;
    const size_t cache_bytes =
        2 * (size_t)blocks * BLOCK_SIZE * (size_t)p->num_kv_heads * (size_t)p->head_dim;
    const struct kv_layer kv = { .dtype = DTYPE_BF16,
                                 .num_blocks = blocks,
                                 .block_size = BLOCK_SIZE,
                                 .num_kv_heads = p->num_kv_heads,
                                 .head_dim = p->head_dim,
                                 .k = put_numbers(b, cache_bytes),
                                 .v = put_numbers(b, cache_bytes) };
    const struct tensor q = tensor_view(put_numbers(b, rows_bytes), DTYPE_F32, m.num_tokens, cols);
    struct tensor out = tensor_view(put_numbers(b, rows_bytes), DTYPE_F32, m.num_tokens, cols);
    for (int round = 0; round <= ROUNDS; round++) { /* the first finds caches cold */
        const uint64_t begin = clock_now_ns();
        for (int i = 0; i < CALLS; i++)
            b->ops->attention(b->device, &out, &q, &kv, &m, p);
        if (!b->ops->sync(b->device, &st))
            fail("attention", &st);
        const double seconds = clock_seconds_between(begin, clock_now_ns()) / CALLS;
        if (round > 0 && seconds < best)
            best = seconds;
    }
    while (b->num_buffers > 0)
        b->ops->free(b->device, &b->buffers[--b->num_buffers]);
    return best;
}

/* A device of its own for each: the workspace is that of the shape. */
static bool measure(const struct backend *ops, const struct attention_params *p, const char *text)
{
    struct shape s;
    struct status st;
    struct bench b = { .ops = ops };
    const struct device_options options = { 0 };
    if (sscanf(text, "%d:%d:%d", &s.num_seqs, &s.query_len, &s.seq_len) != 3 || s.num_seqs < 1 ||
        s.query_len < 1 || s.seq_len < s.query_len || s.seq_len > 1 << 20 || s.num_seqs > 1024)
        return false;
    const struct workspace_desc w = { .max_num_tokens = s.num_seqs * s.query_len,
                                      .max_num_seqs = s.num_seqs,
                                      .max_logits_rows = 1,
                                      .max_model_len = s.seq_len,
                                      .block_size = BLOCK_SIZE,
                                      .max_in_features = 64,
                                      .max_out_features = 64,
                                      .num_heads = p->num_heads,
                                      .num_kv_heads = p->num_kv_heads,
                                      .head_dim = p->head_dim,
                                      .vocab_size = 16 };
    if (!ops->open(&b.device, &options, &st) || !ops->reserve_workspace(b.device, &w, &st))
        fail("open", &st);
    ops->bind_thread(b.device);
    printf("%s %.9f\n", text, best_seconds(&b, s, p));
    fflush(stdout);
    ops->close(b.device);
    return true;
}

int main(int argc, char **argv)
{
    struct status st;
    if (argc < 6) {
        fprintf(stderr, "bench_attention_gpu PLUGIN HEADS KV_HEADS HEAD_DIM SHAPE...\n");
        return 1;
    }
    const struct backend *ops =
        strcmp(argv[1], "cpu") == 0 ? &backend_cpu : backend_load(argv[1], &st);
    if (!ops)
        fail(argv[1], &st);
    struct attention_params p = { .num_heads = atoi(argv[2]),
                                  .num_kv_heads = atoi(argv[3]),
                                  .head_dim = atoi(argv[4]) };
    p.scale = 1 / sqrtf((float)p.head_dim);
    for (int i = 5; i < argc; i++)
        if (!measure(ops, &p, argv[i])) {
            fprintf(stderr, "not a shape: %s\n", argv[i]);
            return 1;
        }
    return 0;
}
