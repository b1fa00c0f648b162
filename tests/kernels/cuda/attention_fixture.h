/* attention_fixture.h - what the tests of attention on the GPU share: random layers and sequences,
 * laid out in caches at random on both devices. */
#ifndef INFERD_TESTS_KERNELS_CUDA_ATTENTION_FIXTURE_H
#define INFERD_TESTS_KERNELS_CUDA_ATTENTION_FIXTURE_H

#include "tests/kernels/cuda/cuda_fixture.h"

#include "tests/kernels/cuda/emu_fixture.h"

enum { MAX_TOKENS = 700, MAX_LEN = 1300, MAX_PARTS = 4 };

/* --- layers and sequences --------------------------------------------------------------------- */

struct layer {
    struct attention_params params;
    enum dtype dtype;
    int32_t block_size;
    float k_scale, v_scale; /* fp8_e4m3 */
    float sinks[80];
};

static const enum dtype cache_dtypes[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3,
                                           DTYPE_I8 };
enum { NUM_CACHE_DTYPES = sizeof cache_dtypes / sizeof cache_dtypes[0] };

struct sequence {
    int32_t len;
    int32_t out_cols;
    struct tensor q, k, v; /* [len, heads * head_dim] */
};

/* Latent attention, whose values are the keys' first elements. */
static inline bool is_latent(const struct layer *l)
{
    return l->params.value_head_dim > 0;
}

static inline int32_t out_cols(const struct layer *l)
{
    return l->params.num_heads * (is_latent(l) ? l->params.value_head_dim : l->params.head_dim);
}

/* Queries [begin, end) of a sequence whose first `end` positions are in the cache. */
struct part {
    const struct sequence *seq;
    int32_t begin, end;
    struct tensor out;
};

static const char *describe(const struct layer *l)
{
    static char text[256];
    const struct attention_params *p = &l->params;
    snprintf(text, sizeof text,
             "heads %d/%d, head_dim %d, values %d, %s, block %d, window %d, softcap %g, sinks %d",
             p->num_heads, p->num_kv_heads, p->head_dim, p->value_head_dim, dtype_name(l->dtype),
             l->block_size, p->sliding_window, (double)p->logit_softcap, p->sinks != NULL);
    return text;
}

static void random_layer(struct layer *l, enum dtype dtype, int32_t head_dim)
{
    *l = (struct layer){ .dtype = dtype,
                         .block_size = RANDOM_OF(16, 16, 32, 48, 64, 8, 5, 1),
                         .k_scale = random_int(0, 1) ? 0 : random_uniform(0.1f, 2),
                         .v_scale = random_int(0, 1) ? 0 : random_uniform(0.01f, 2) };
    struct attention_params *p = &l->params;
    p->num_kv_heads = random_int(1, 2);
    p->num_heads = p->num_kv_heads * RANDOM_OF(1, 2, 3, 4, 5, 8, 9, 17, 33);
    p->head_dim = head_dim;
    p->scale = 1 / sqrtf((float)p->head_dim);
    p->sliding_window = random_int(0, 2) ? 0 : RANDOM_OF(1, 2, 17, 64, 100, 300, 600, 5000);
    p->logit_softcap = random_int(0, 2) ? 0 : random_uniform(1, 40);
    for (int i = 0; i < 80; i++)
        l->sinks[i] = random_normal();
    if (random_int(0, 2) == 0)
        p->sinks = l->sinks;
}

/* q is rounded as the kernels with tensor cores round it, so that only their weights differ. */
static struct sequence random_sequence(const struct layer *l, int32_t len)
{
    const int32_t q_cols = l->params.num_heads * l->params.head_dim;
    const int32_t kv_cols = l->params.num_kv_heads * l->params.head_dim;
    struct sequence s = { len, out_cols(l), random_tensor(len, q_cols, 2),
                          random_tensor(len, kv_cols, 1), random_tensor(len, kv_cols, 1) };
    round_floats(s.q.data, (size_t)len * (size_t)s.q.stride,
                 dtype_size(l->dtype) == 1 ? DTYPE_F16 : l->dtype);
    return s;
}

static void free_sequence(struct sequence *s)
{
    free(s->q.data);
    free(s->k.data);
    free(s->v.data);
}

static struct tensor rows_of(const struct tensor *t, int32_t begin, int32_t count)
{
    struct tensor rows = *t;
    rows.data = (float *)t->data + begin * t->stride;
    rows.rows = count;
    return rows;
}

/* --- running a batch -------------------------------------------------------------------------- */

struct run {
    const struct backend *ops;
    struct device *device;
    struct kv_layer kv;
    int32_t starts[MAX_PARTS + 1], lens[MAX_PARTS], *tables, stride;
};

/* Blocks in random order; table entries past a sequence's end lie. */
static void lay_out(struct run *r, const struct layer *l, const struct part *parts, int32_t count)
{
    int32_t used = 0, at = 0;
    r->stride = 1;
    for (int32_t i = 0; i < count; i++) {
        const int32_t blocks = (parts[i].end + l->block_size - 1) / l->block_size;
        used += blocks;
        r->stride = blocks > r->stride ? blocks : r->stride;
    }
    r->kv = (struct kv_layer){ .dtype = l->dtype,
                               .num_blocks = used + random_int(0, 5),
                               .block_size = l->block_size,
                               .num_kv_heads = l->params.num_kv_heads,
                               .head_dim = l->params.head_dim,
                               .k_scale = l->k_scale,
                               .v_scale = l->v_scale };
    int32_t *order = random_order(r->kv.num_blocks);
    r->tables = malloc((size_t)(count * r->stride + 1) * sizeof *r->tables);
    r->starts[0] = 0;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t j = 0; j < r->stride; j++)
            r->tables[i * r->stride + j] =
                j * l->block_size < parts[i].end ? order[at++] : INT32_MAX / 2;
        r->lens[i] = parts[i].end;
        r->starts[i + 1] = r->starts[i] + parts[i].end - parts[i].begin;
    }
    free(order);
}

/* The cache is full of NaN where no token was written. */
static size_t cache_bytes(const struct kv_layer *kv)
{
    return (size_t)kv->num_blocks * (size_t)kv->num_kv_heads *
           kv_layer_head_bytes(kv->dtype, kv->block_size, kv->head_dim);
}

static struct attn_metadata metadata_of(const struct run *r, const int32_t *starts,
                                        const int32_t *lens, const int32_t *tables, int32_t count)
{
    struct attn_metadata m = { .num_seqs = count,
                               .num_tokens = r->starts[count],
                               .query_start_loc = starts,
                               .seq_lens = lens,
                               .block_tables = tables,
                               .block_table_stride = r->stride };
    for (int32_t i = 0; i < count; i++) {
        const int32_t query_len = r->starts[i + 1] - r->starts[i];
        m.max_query_len = query_len > m.max_query_len ? query_len : m.max_query_len;
        m.max_seq_len = r->lens[i] > m.max_seq_len ? r->lens[i] : m.max_seq_len;
    }
    return m;
}

static int32_t *slots_of(const struct run *r, int32_t seq, int32_t len)
{
    const int32_t bs = r->kv.block_size;
    int32_t *slots = malloc((size_t)(len + 1) * sizeof *slots);
    for (int32_t p = 0; p < len; p++)
        slots[p] = r->tables[seq * r->stride + p / bs] * bs + p % bs;
    return slots;
}

/* q of all parts, one after another. The caller frees data. */
static struct tensor gather_q(const struct part *parts, int32_t count, int32_t num_tokens,
                              int32_t cols)
{
    struct tensor q = random_tensor(num_tokens > 0 ? num_tokens : 1, cols, 1);
    int32_t row = 0;
    q.rows = num_tokens;
    for (int32_t i = 0; i < count; i++)
        for (int32_t t = parts[i].begin; t < parts[i].end; t++)
            memcpy((float *)q.data + row++ * q.stride,
                   (float *)parts[i].seq->q.data + t * parts[i].seq->q.stride,
                   (size_t)cols * sizeof(float));
    return q;
}

static void scatter_out(const struct tensor *out, struct part *parts, int32_t count)
{
    int32_t row = 0;
    for (int32_t i = 0; i < count; i++)
        for (int32_t t = 0; t < parts[i].end - parts[i].begin; t++)
            memcpy((float *)parts[i].out.data + t * parts[i].out.stride,
                   (float *)out->data + row++ * out->stride, (size_t)out->cols * sizeof(float));
}

/* The two parts of each query, see struct mla_query. The caller frees their data. */
static struct mla_query split_queries(const struct layer *l, const struct tensor *q)
{
    const int32_t heads = l->params.num_heads, dim = l->params.head_dim;
    const int32_t first = l->params.value_head_dim, rest = dim - first;
    const int32_t rows = q->rows > 0 ? q->rows : 1;
    struct mla_query parts = { random_tensor(rows, heads * first, 1),
                               random_tensor(rows, heads * rest, 1) };
    parts.latent.rows = parts.rope.rows = q->rows;
    for (int32_t r = 0; r < q->rows; r++)
        for (int32_t h = 0; h < heads; h++) {
            const float *from = (const float *)q->data + r * q->stride + h * dim;
            memcpy((float *)parts.latent.data + r * parts.latent.stride + h * first, from,
                   (size_t)first * sizeof *from);
            memcpy((float *)parts.rope.data + r * parts.rope.stride + h * rest, from + first,
                   (size_t)rest * sizeof *from);
        }
    return parts;
}

static void run_cpu(const struct layer *l, struct part *parts, int32_t count)
{
    struct run r = { .ops = &backend_cpu, .device = gpu.cpu };
    lay_out(&r, l, parts, count);
    r.kv.k = malloc(cache_bytes(&r.kv));
    r.kv.v = is_latent(l) ? NULL : malloc(cache_bytes(&r.kv));
    memset(r.kv.k, 0xff, cache_bytes(&r.kv));
    if (r.kv.v)
        memset(r.kv.v, 0xff, cache_bytes(&r.kv));
    for (int32_t i = 0; i < count; i++) {
        int32_t *slots = slots_of(&r, i, parts[i].end);
        struct tensor k = rows_of(&parts[i].seq->k, 0, parts[i].end);
        struct tensor v = rows_of(&parts[i].seq->v, 0, parts[i].end);
        backend_cpu.reshape_and_cache(gpu.cpu, &r.kv, &k, r.kv.v ? &v : NULL, slots);
        free(slots);
    }
    struct attn_metadata m = metadata_of(&r, r.starts, r.lens, r.tables, count);
    const int32_t cols = l->params.num_heads * l->params.head_dim;
    struct tensor q = gather_q(parts, count, m.num_tokens, cols);
    struct tensor out = random_tensor(m.num_tokens + 1, out_cols(l), 1);
    struct mla_query split = split_queries(l, &q);
    out.rows = m.num_tokens;
    if (is_latent(l))
        backend_cpu.attention_mla(gpu.cpu, &out, &split, &r.kv, &m, &l->params);
    else
        backend_cpu.attention(gpu.cpu, &out, &q, &r.kv, &m, &l->params);
    scatter_out(&out, parts, count);
    free(split.latent.data);
    free(split.rope.data);
    free(q.data);
    free(out.data);
    free(r.kv.k);
    free(r.kv.v);
    free(r.tables);
}

static void run_gpu(const struct layer *l, struct part *parts, int32_t count)
{
    struct run r = { .ops = gpu.ops, .device = gpu.device };
    lay_out(&r, l, parts, count);
    void *nothing = malloc(cache_bytes(&r.kv));
    memset(nothing, 0xff, cache_bytes(&r.kv));
    r.kv.k = gpu_put(&gpu, nothing, cache_bytes(&r.kv));
    r.kv.v = is_latent(l) ? NULL : gpu_put(&gpu, nothing, cache_bytes(&r.kv));
    free(nothing);
    for (int32_t i = 0; i < count; i++) {
        int32_t *slots = slots_of(&r, i, parts[i].end);
        struct tensor k = rows_of(&parts[i].seq->k, 0, parts[i].end);
        struct tensor v = rows_of(&parts[i].seq->v, 0, parts[i].end);
        struct tensor k_at = gpu_tensor(&gpu, &k), v_at = gpu_tensor(&gpu, &v);
        int32_t *slots_at = gpu_put(&gpu, slots, (size_t)parts[i].end * sizeof *slots);
        gpu.ops->reshape_and_cache(gpu.device, &r.kv, &k_at, r.kv.v ? &v_at : NULL, slots_at);
        free(slots);
    }
    struct attn_metadata m =
        metadata_of(&r, gpu_put(&gpu, r.starts, (size_t)(count + 1) * sizeof(int32_t)),
                    gpu_put(&gpu, r.lens, (size_t)count * sizeof(int32_t)),
                    gpu_put(&gpu, r.tables, (size_t)(count * r.stride) * sizeof(int32_t)), count);
    /* Bounds may be greater than what is there. */
    m.max_query_len += random_int(0, 1) * random_int(0, 20);
    m.max_seq_len += random_int(0, 1) * random_int(0, MAX_LEN - m.max_seq_len);
    const int32_t cols = l->params.num_heads * l->params.head_dim;
    struct attention_params params = l->params;
    if (params.sinks)
        params.sinks = gpu_put(&gpu, l->sinks, (size_t)params.num_heads * sizeof(float));
    struct tensor q = gather_q(parts, count, m.num_tokens, cols);
    struct tensor out = random_tensor(m.num_tokens + 1, out_cols(l), 1);
    /* NaN: what was there before is not to be read. */
    memset(out.data, 0xff, (size_t)out.rows * (size_t)out.stride * sizeof(float));
    struct mla_query split = split_queries(l, &q);
    out.rows = m.num_tokens;
    struct tensor q_at = gpu_tensor(&gpu, &q), out_at = gpu_tensor(&gpu, &out);
    struct mla_query split_at = { gpu_tensor(&gpu, &split.latent), gpu_tensor(&gpu, &split.rope) };
    if (is_latent(l))
        gpu.ops->attention_mla(gpu.device, &out_at, &split_at, &r.kv, &m, &params);
    else
        gpu.ops->attention(gpu.device, &out_at, &q_at, &r.kv, &m, &params);
    gpu_get_tensor(&gpu, &out, &out_at);
    scatter_out(&out, parts, count);
    free(split.latent.data);
    free(split.rope.data);
    free(q.data);
    free(out.data);
    free(r.tables);
    gpu_release(&gpu);
}

static struct part new_part(const struct sequence *s, int32_t begin, int32_t end)
{
    struct tensor out = random_tensor(end - begin + 1, s->out_cols, 1);
    out.rows = end - begin;
    return (struct part){ s, begin, end, out };
}

/* --- checks -----------------------------------------------------------------------------------
 */

/* Weights are rounded to the cache's dtype where tensor cores use them, and with a cache of 8 bits
 * to float16, as are then its elements once they have been scaled. */
static double tolerance(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 2e-5 : dtype == DTYPE_BF16 ? 2e-2 : 3e-3;
}

/* The last `queries` positions of a sequence, against the CPU. */
static void check_layer(const struct layer *l, int32_t len, int32_t queries)
{
    struct sequence s = random_sequence(l, len);
    struct part want = new_part(&s, len - queries, len), got = new_part(&s, len - queries, len);
    char what[400];
    snprintf(what, sizeof what, "%s, %d of %d positions", describe(l), queries, len);
    run_cpu(l, &want, 1);
    run_gpu(l, &got, 1);
    assert_tensors_close(&got.out, &want.out, tolerance(l->dtype), tolerance(l->dtype), what);
    free(want.out.data);
    free(got.out.data);
    free_sequence(&s);
}

/* The same sequence whole and alone; then cut at random, in company. Every layout of blocks is new.
 */
static void check_layer_bits(const struct layer *l, int32_t len)
{
    struct sequence s = random_sequence(l, len), other = random_sequence(l, random_int(1, 100));
    struct part whole = new_part(&s, 0, len);
    char what[400];
    run_gpu(l, &whole, 1);
    for (int32_t begin = 0; begin < len;) {
        int32_t end = begin + RANDOM_OF(1, 1, 2, 3, 5, 9, 16, 70, 200);
        end = end < len ? end : len;
        const int32_t count = random_int(1, MAX_PARTS);
        struct part parts[MAX_PARTS] = { new_part(&s, begin, end) };
        for (int32_t i = 1; i < count; i++) {
            const int32_t from = random_int(0, other.len - 1);
            parts[i] = new_part(&other, from, random_int(from, other.len));
        }
        const int32_t mine = random_int(0, count - 1);
        struct part swap = parts[mine];
        parts[mine] = parts[0];
        parts[0] = swap;
        run_gpu(l, parts, count);
        snprintf(what, sizeof what, "%s, queries [%d, %d) of %d, %d sequences", describe(l), begin,
                 end, len, count);
        struct tensor same = rows_of(&whole.out, begin, end - begin);
        assert_tensors_equal(&parts[mine].out, &same, what);
        for (int32_t i = 0; i < count; i++)
            free(parts[i].out.data);
        begin = end + random_int(0, len / 6);
    }
    free(whole.out.data);
    free_sequence(&s);
    free_sequence(&other);
}

/* A GPU of capability 8.9 gives a block 99 KiB, 9.0 gives it more: the bits are the same. */
static void check_less_shared_memory(const struct layer *l, const struct workspace_desc *w,
                                     int32_t len, int32_t queries)
{
    const struct emu_control emu = emu_get_control();
    struct sequence s = random_sequence(l, len);
    struct part want = new_part(&s, len - queries, len), got = new_part(&s, len - queries, len);
    struct gpu large = gpu;
    char what[400];
    snprintf(what, sizeof what, "%s, %d of %d positions, 99 KiB", describe(l), queries, len);
    run_gpu(l, &want, 1);
    emu.set_device(8, 9, (size_t)2 << 30);
    gpu_open(&gpu, w);
    run_gpu(l, &got, 1);
    gpu_close(&gpu);
    gpu = large;
    emu.set_device(9, 0, (size_t)2 << 30);
    assert_tensors_equal(&got.out, &want.out, what);
    free(want.out.data);
    free(got.out.data);
    free_sequence(&s);
}

#endif
