/* test_attention_cuda.c - paged attention on the GPU against the scalar CPU: prompts, decode and
 * mixtures of both, windows, soft caps, sinks, every cache dtype; and that the bits of a row depend
 * on nothing but its own sequence up to its own position. */
#include "tests/kernels/cuda/cuda_fixture.h"

static struct gpu gpu;

enum { MAX_TOKENS = 700, MAX_LEN = 1300, MAX_PARTS = 4 };

static int open_gpu(void **state)
{
    (void)state;
    struct workspace_desc w = { .max_num_tokens = MAX_TOKENS,
                                .max_num_seqs = MAX_PARTS,
                                .max_logits_rows = 1,
                                .max_model_len = MAX_LEN,
                                .block_size = 16,
                                .max_in_features = 64,
                                .max_out_features = 64,
                                .num_heads = 24,
                                .num_kv_heads = 2,
                                .head_dim = 256,
                                .vocab_size = 16 };
    gpu_open(&gpu, &w);
    return 0;
}

static int close_gpu(void **state)
{
    (void)state;
    gpu_close(&gpu);
    return 0;
}

/* --- layers and sequences --------------------------------------------------------------------- */

struct layer {
    struct attention_params params;
    enum dtype dtype;
    int32_t block_size;
    float k_scale, v_scale; /* fp8_e4m3 */
    float sinks[32];
};

static const enum dtype cache_dtypes[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3,
                                           DTYPE_I8 };
enum { NUM_CACHE_DTYPES = sizeof cache_dtypes / sizeof cache_dtypes[0] };

struct sequence {
    int32_t len;
    struct tensor q, k, v; /* [len, heads * head_dim] */
};

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
             "heads %d/%d, head_dim %d, %s, block %d, window %d, softcap %g, sinks %d",
             p->num_heads, p->num_kv_heads, p->head_dim, dtype_name(l->dtype), l->block_size,
             p->sliding_window, (double)p->logit_softcap, p->sinks != NULL);
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
    p->num_heads = p->num_kv_heads * RANDOM_OF(1, 2, 3, 4, 5, 8, 9);
    p->head_dim = head_dim;
    p->scale = 1 / sqrtf((float)p->head_dim);
    p->sliding_window = random_int(0, 2) ? 0 : RANDOM_OF(1, 2, 17, 64, 100, 300, 600, 5000);
    p->logit_softcap = random_int(0, 2) ? 0 : random_uniform(1, 40);
    for (int i = 0; i < 32; i++)
        l->sinks[i] = random_normal();
    if (random_int(0, 2) == 0)
        p->sinks = l->sinks;
}

/* q is rounded as the kernels with tensor cores round it, so that only their weights differ. */
static struct sequence random_sequence(const struct layer *l, int32_t len)
{
    const int32_t q_cols = l->params.num_heads * l->params.head_dim;
    const int32_t kv_cols = l->params.num_kv_heads * l->params.head_dim;
    struct sequence s = { len, random_tensor(len, q_cols, 2), random_tensor(len, kv_cols, 1),
                          random_tensor(len, kv_cols, 1) };
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
    int32_t *order = malloc((size_t)r->kv.num_blocks * sizeof *order + 1);
    for (int32_t i = 0; i < r->kv.num_blocks; i++) {
        const int32_t other = random_int(0, i);
        order[i] = order[other];
        order[other] = i;
    }
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

static void run_cpu(const struct layer *l, struct part *parts, int32_t count)
{
    struct run r = { .ops = &backend_cpu, .device = gpu.cpu };
    lay_out(&r, l, parts, count);
    r.kv.k = malloc(cache_bytes(&r.kv));
    r.kv.v = malloc(cache_bytes(&r.kv));
    memset(r.kv.k, 0xff, cache_bytes(&r.kv));
    memset(r.kv.v, 0xff, cache_bytes(&r.kv));
    for (int32_t i = 0; i < count; i++) {
        int32_t *slots = slots_of(&r, i, parts[i].end);
        struct tensor k = rows_of(&parts[i].seq->k, 0, parts[i].end);
        struct tensor v = rows_of(&parts[i].seq->v, 0, parts[i].end);
        backend_cpu.reshape_and_cache(gpu.cpu, &r.kv, &k, &v, slots);
        free(slots);
    }
    struct attn_metadata m = metadata_of(&r, r.starts, r.lens, r.tables, count);
    const int32_t cols = l->params.num_heads * l->params.head_dim;
    struct tensor q = gather_q(parts, count, m.num_tokens, cols), out = copy_tensor(&q);
    backend_cpu.attention(gpu.cpu, &out, &q, &r.kv, &m, &l->params);
    scatter_out(&out, parts, count);
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
    r.kv.v = gpu_put(&gpu, nothing, cache_bytes(&r.kv));
    free(nothing);
    for (int32_t i = 0; i < count; i++) {
        int32_t *slots = slots_of(&r, i, parts[i].end);
        struct tensor k = rows_of(&parts[i].seq->k, 0, parts[i].end);
        struct tensor v = rows_of(&parts[i].seq->v, 0, parts[i].end);
        struct tensor k_at = gpu_tensor(&gpu, &k), v_at = gpu_tensor(&gpu, &v);
        int32_t *slots_at = gpu_put(&gpu, slots, (size_t)parts[i].end * sizeof *slots);
        gpu.ops->reshape_and_cache(gpu.device, &r.kv, &k_at, &v_at, slots_at);
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
    struct tensor q = gather_q(parts, count, m.num_tokens, cols), out = copy_tensor(&q);
    struct tensor q_at = gpu_tensor(&gpu, &q), out_at = gpu_tensor(&gpu, &out);
    gpu.ops->attention(gpu.device, &out_at, &q_at, &r.kv, &m, &params);
    gpu_get_tensor(&gpu, &out, &out_at);
    scatter_out(&out, parts, count);
    free(q.data);
    free(out.data);
    free(r.tables);
    gpu_release(&gpu);
}

static struct part new_part(const struct sequence *s, int32_t begin, int32_t end)
{
    struct tensor out = random_tensor(end - begin + 1, s->q.cols, 1);
    out.rows = end - begin;
    return (struct part){ s, begin, end, out };
}

/* --- tests ------------------------------------------------------------------------------------ */

/* Weights are rounded to the cache's dtype where tensor cores use them, and with a cache of 8 bits
 * to float16, as are then its elements once they have been scaled. */
static double tolerance(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 2e-5 : dtype == DTYPE_BF16 ? 2e-2 : 3e-3;
}

static void check_one(enum dtype dtype, int32_t head_dim, int32_t len, int32_t queries)
{
    struct layer l;
    random_layer(&l, dtype, head_dim);
    struct sequence s = random_sequence(&l, len);
    struct part want = new_part(&s, len - queries, len), got = new_part(&s, len - queries, len);
    char what[400];
    snprintf(what, sizeof what, "%s, %d of %d positions", describe(&l), queries, len);
    run_cpu(&l, &want, 1);
    run_gpu(&l, &got, 1);
    assert_tensors_close(&got.out, &want.out, tolerance(dtype), tolerance(dtype), what);
    free(want.out.data);
    free(got.out.data);
    free_sequence(&s);
}

static void follows_the_cpu(void **state)
{
    (void)state;
    static const int32_t dims[] = { 64, 128, 256, 8, 80, 96, 33, 40 };
    for (int n = 0; n < NUM_CACHE_DTYPES; n++) {
        const enum dtype dtype = cache_dtypes[n];
        for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
            const int32_t len = RANDOM_OF(1, 15, 16, 17, 63, 64, 65, 130);
            check_one(dtype, dims[i], len, len);
            check_one(dtype, dims[i], RANDOM_OF(1, 64, 200, 511, 512, 513, 700), 1);
        }
        check_one(dtype, 64, RANDOM_OF(520, 600, 1100), random_int(2, 40));
    }
}

/* The same sequence whole and alone; then cut at random, in company. Every layout of blocks is new.
 */
static void check_bits(enum dtype dtype, int32_t head_dim, int32_t len)
{
    struct layer l;
    random_layer(&l, dtype, head_dim);
    struct sequence s = random_sequence(&l, len), other = random_sequence(&l, random_int(1, 100));
    struct part whole = new_part(&s, 0, len);
    char what[400];
    run_gpu(&l, &whole, 1);
    for (int32_t begin = 0; begin < len;) {
        int32_t end = begin + RANDOM_OF(1, 1, 2, 3, 5, 70, 200);
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
        run_gpu(&l, parts, count);
        snprintf(what, sizeof what, "%s, queries [%d, %d) of %d, %d sequences", describe(&l), begin,
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

static void bits_depend_on_own_sequence_only(void **state)
{
    (void)state;
    check_bits(DTYPE_F32, 24, random_int(1, 90));
    check_bits(DTYPE_BF16, 64, random_int(1, 130));
    check_bits(DTYPE_BF16, 128, random_int(100, 130));
    check_bits(DTYPE_BF16, 64, random_int(513, 600));
    check_bits(DTYPE_F16, 72, random_int(60, 130));
    check_bits(DTYPE_F16, 256, random_int(60, 90));
    check_bits(DTYPE_BF16, 33, random_int(1, 60));
    check_bits(DTYPE_F8_E4M3, 64, random_int(60, 130));
    check_bits(DTYPE_I8, 128, random_int(60, 130));
    check_bits(DTYPE_I8, 64, random_int(513, 560));
    check_bits(DTYPE_I8, 33, random_int(1, 60));
}

/* Past the first span: what prefill computes among others, decode computes alone. */
static void spans_are_merged_alike(void **state)
{
    (void)state;
    for (int n = 1; n < NUM_CACHE_DTYPES; n++) {
        struct layer l;
        random_layer(&l, cache_dtypes[n], RANDOM_OF(64, 128));
        l.params.sliding_window = RANDOM_OF(0, 900, 530);
        const int32_t len = random_int(1040, 1090);
        struct sequence s = random_sequence(&l, len);
        struct part many = new_part(&s, len - 20, len), one = new_part(&s, len - 1, len);
        run_gpu(&l, &many, 1);
        run_gpu(&l, &one, 1);
        struct tensor same = rows_of(&many.out, 19, 1);
        assert_tensors_equal(&one.out, &same, describe(&l));
        free(many.out.data);
        free(one.out.data);
        free_sequence(&s);
    }
}

/* Sequences without queries in this step, a batch of none, and padded rows at the end. */
static void empty_queries(void **state)
{
    (void)state;
    for (int n = 0; n < NUM_CACHE_DTYPES; n++) {
        struct layer l;
        random_layer(&l, cache_dtypes[n], 64);
        struct sequence s = random_sequence(&l, 30);
        struct part parts[3] = { new_part(&s, 30, 30), new_part(&s, 10, 30), new_part(&s, 7, 7) };
        struct part want = new_part(&s, 10, 30);
        run_cpu(&l, &want, 1);
        run_gpu(&l, parts, 3);
        assert_tensors_close(&parts[1].out, &want.out, tolerance(l.dtype), tolerance(l.dtype),
                             "with empty neighbours");
        run_gpu(&l, parts, 1);
        run_gpu(&l, parts, 0);
        for (int i = 0; i < 3; i++)
            free(parts[i].out.data);
        free(want.out.data);
        free_sequence(&s);
    }
}

/* Rows with slot -1 write nothing. */
static void padded_rows(void **state)
{
    (void)state;
    struct kv_layer kv = {
        .dtype = DTYPE_F16, .num_blocks = 2, .block_size = 4, .num_kv_heads = 2, .head_dim = 8
    };
    const int32_t slots[3] = { 5, -1, 0 };
    struct tensor k = random_tensor(3, 16, 1), v = random_tensor(3, 16, 1);
    uint16_t cache[2 * 4 * 16];
    ((float *)k.data)[0] = 1e6f; /* held at the greatest float16 */
    struct tensor k_at = gpu_tensor(&gpu, &k), v_at = gpu_tensor(&gpu, &v);
    memset(cache, 0xff, sizeof cache);
    kv.k = gpu_put(&gpu, cache, sizeof cache);
    kv.v = gpu_put(&gpu, cache, sizeof cache);
    gpu.ops->reshape_and_cache(gpu.device, &kv, &k_at, &v_at, gpu_put(&gpu, slots, sizeof slots));
    gpu_get(&gpu, cache, kv.k, sizeof cache);
    int32_t written = 0;
    for (size_t i = 0; i < sizeof cache / sizeof cache[0]; i++)
        written += cache[i] != 0xffff;
    assert_int_equal(written, 2 * 16);
    /* Block 1, head 0, offset 1. */
    assert_true(f16_to_f32(cache[64 + 8]) == 65504.0f);
    assert_int_equal(cache[64 + 9], f16_from_f32(((float *)k.data)[1]));
    free(k.data);
    free(v.data);
    gpu_release(&gpu);
}

/* --- caches of 8 bits ------------------------------------------------------------------------- */

/* Writes k and v into both caches, full of 0xff before; `cpu` and `got` are [2][cache_bytes]. */
static void write_both(struct kv_layer kv, const struct tensor *k, const struct tensor *v,
                       const int32_t *slots, unsigned char *cpu, unsigned char *got)
{
    const size_t bytes = cache_bytes(&kv);
    memset(cpu, 0xff, 2 * bytes);
    kv.k = gpu_put(&gpu, cpu, bytes);
    kv.v = gpu_put(&gpu, cpu, bytes);
    struct tensor k_at = gpu_tensor(&gpu, k), v_at = gpu_tensor(&gpu, v);
    int32_t *slots_at = gpu_put(&gpu, slots, (size_t)k->rows * sizeof *slots);
    gpu.ops->reshape_and_cache(gpu.device, &kv, &k_at, &v_at, slots_at);
    gpu_get(&gpu, got, kv.k, bytes);
    gpu_get(&gpu, got + bytes, kv.v, bytes);
    kv.k = cpu;
    kv.v = cpu + bytes;
    backend_cpu.reshape_and_cache(gpu.cpu, &kv, k, v, slots);
    gpu_release(&gpu);
}

/* The CPU has K turned over within a head's part of a block. */
static void turn_over(unsigned char *k, const struct kv_layer *kv)
{
    const size_t part = kv_layer_head_bytes(kv->dtype, kv->block_size, kv->head_dim);
    const size_t count = (size_t)kv->block_size * (size_t)kv->head_dim;
    unsigned char *old = malloc(count);
    for (int32_t i = 0; i < kv->num_blocks * kv->num_kv_heads; i++, k += part) {
        memcpy(old, k, count);
        for (int32_t offset = 0; offset < kv->block_size; offset++)
            for (int32_t dim = 0; dim < kv->head_dim; dim++)
                k[offset * kv->head_dim + dim] = old[dim * kv->block_size + offset];
    }
    free(old);
}

/* Whether byte i is of a scale that is NaN in both: of that the bits may differ. */
static bool in_nan_scales(const struct kv_layer *kv, const unsigned char *a, const unsigned char *b,
                          size_t i)
{
    const size_t part = kv_layer_head_bytes(kv->dtype, kv->block_size, kv->head_dim);
    const size_t elements = (size_t)kv->block_size * (size_t)kv->head_dim;
    if (i % part < elements)
        return false;
    const size_t begin = i - (i % part - elements) % sizeof(float);
    float x, y;
    memcpy(&x, a + begin, sizeof x);
    memcpy(&y, b + begin, sizeof y);
    return isnan(x) && isnan(y);
}

/* Numbers of every size, and some that are none: what is stored is the CPU's, bit for bit. */
static void bytes_are_the_cpus(void **state)
{
    (void)state;
    enum { ROWS = 40 };
    for (int n = 0; n < 12; n++) {
        struct kv_layer kv = { .dtype = n % 2 ? DTYPE_I8 : DTYPE_F8_E4M3,
                               .block_size = RANDOM_OF(16, 5, 1, 8),
                               .num_kv_heads = random_int(1, 6),
                               .head_dim = RANDOM_OF(64, 33, 8, 128),
                               .k_scale = random_int(0, 1) ? 0 : random_uniform(0.01f, 3),
                               .v_scale = random_int(0, 1) ? 0 : random_uniform(0.01f, 3) };
        kv.num_blocks = ROWS / kv.block_size + 2;
        struct tensor k = random_tensor(ROWS, kv.num_kv_heads * kv.head_dim, 1);
        struct tensor v = random_tensor(ROWS, kv.num_kv_heads * kv.head_dim, 100);
        static const float special[] = { INFINITY, NAN, 1e-42f, 3e38f, -448.5f, 0x1p-10f };
        for (int i = 0; i < 6; i++)
            ((float *)k.data)[random_int(0, ROWS - 1) * k.stride + random_int(0, k.cols - 1)] =
                special[i];
        for (int i = 0; i < v.cols; i++) /* a token of next to nothing */
            ((float *)v.data)[3 * v.stride + i] *= 1e-45f;
        int32_t slots[ROWS];
        for (int32_t i = 0; i < ROWS; i++)
            slots[i] = i % 7 == 3 ? -1 : i + kv.block_size;
        slots[3] = 0;
        unsigned char *cpu = malloc(2 * cache_bytes(&kv)), *got = malloc(2 * cache_bytes(&kv));
        write_both(kv, &k, &v, slots, cpu, got);
        turn_over(cpu, &kv);
        for (size_t i = 0; i < 2 * cache_bytes(&kv); i++)
            if (cpu[i] != got[i] && !in_nan_scales(&kv, cpu, got, i))
                fail_msg("%s, block %d, head_dim %d: byte %zu is %d, not %d", dtype_name(kv.dtype),
                         kv.block_size, kv.head_dim, i, got[i], cpu[i]);
        free(k.data);
        free(v.data);
        free(cpu);
        free(got);
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_cpu),
        cmocka_unit_test(bits_depend_on_own_sequence_only),
        cmocka_unit_test(spans_are_merged_alike),
        cmocka_unit_test(empty_queries),
        cmocka_unit_test(padded_rows),
        cmocka_unit_test(bytes_are_the_cpus),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
