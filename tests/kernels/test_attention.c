/* test_attention.c - the scalar kernel against the formula in double, every other row against it,
 * and that the bits of a row depend on nothing but its own sequence up to its own position. */
#include "tests/kernels/cpu_fixture.h"

#include "kernels/cpu/kv_layout.h"

/* --- one attention layer and some sequences --------------------------------------------------- */

struct layer {
    struct attention_params params;
    enum dtype dtype;
    int32_t block_size;
    float k_scale, v_scale; /* fp8_e4m3 */
    float sinks[64];
};

struct sequence {
    int32_t len;
    /* [len, heads * head_dim], k and v rounded to the cache's dtype; v is k where the values are
     * part of the keys */
    float *q, *k, *v;
};

static bool values_in_keys(const struct layer *l)
{
    return l->params.value_head_dim > 0;
}

static int32_t value_dim(const struct layer *l)
{
    return values_in_keys(l) ? l->params.value_head_dim : l->params.head_dim;
}

/* Queries [begin, end) of a sequence, of which end positions are in the cache. */
struct part {
    const struct sequence *seq;
    int32_t begin, end;
    float *out; /* [end - begin, num_heads * value_dim] */
};

static const char *describe(const struct layer *l)
{
    static char text[256];
    const struct attention_params *p = &l->params;
    snprintf(text, sizeof text,
             "heads %d/%d, head_dim %d (%d), %s, block %d, window %d, softcap %g, sinks %d",
             p->num_heads, p->num_kv_heads, p->head_dim, p->value_head_dim, dtype_name(l->dtype),
             l->block_size, p->sliding_window, (double)p->logit_softcap, p->sinks != NULL);
    return text;
}

static struct layer random_layer(void)
{
    struct layer l = { .dtype =
                           RANDOM_OF(DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3, DTYPE_I8),
                       .k_scale = RANDOM_OF(0, 1, 0.01f, 3),
                       .v_scale = RANDOM_OF(0, 1, 0.01f, 3),
                       .block_size = RANDOM_OF(16, 16, 32, 48, 64, 128, 8, 5, 1) };
    struct attention_params *p = &l.params;
    p->num_kv_heads = random_int(1, 3);
    p->num_heads = p->num_kv_heads * RANDOM_OF(1, 2, 3, 4, 5, 7, 8, 9);
    p->head_dim = RANDOM_OF(64, 64, 128, 32, 16, 8, 24, 40, 72, 80, 96, 256, 1, 7, 33, 34, 62);
    if (random_int(0, 3) == 0) {
        p->head_dim = RANDOM_OF(64, 576, 192, 40, 31, 2, 72);
        p->value_head_dim = random_int(1, p->head_dim);
        p->value_head_dim = random_int(0, 1) ? p->head_dim * 8 / 9 : p->value_head_dim;
    }
    p->scale = 1 / sqrtf((float)p->head_dim);
    p->sliding_window = random_int(0, 2) ? 0 : RANDOM_OF(1, 2, 17, 64, 100, 300, 600, 5000);
    p->logit_softcap = random_int(0, 2) ? 0 : random_uniform(1, 40);
    for (int i = 0; i < 64; i++)
        l.sinks[i] = random_normal();
    return l;
}

/* What the cache makes of one head's vector. */
static void round_vector(float *x, int32_t dim, enum dtype dtype, float scale)
{
    uint32_t bits;
    float max = 0;
    scale = scale > 0 ? scale : 1;
    for (int32_t i = 0; i < dim; i++)
        max = fmaxf(max, fabsf(x[i]));
    for (int32_t i = 0; i < dim; i++) {
        if (dtype == DTYPE_I8) {
            x[i] = max > 0 ? rintf(x[i] / (max / 127)) * (max / 127) : 0;
        } else if (dtype == DTYPE_F8_E4M3) {
            x[i] = fp8_e4m3_to_f32(fp8_e4m3_from_f32(x[i] / scale)) * scale;
        } else {
            dtype_convert(&bits, dtype, &x[i], DTYPE_F32, 1);
            dtype_convert(&x[i], DTYPE_F32, &bits, dtype, 1);
        }
    }
}

static void round_to_cache(const struct layer *l, float *x, size_t count, float scale)
{
    for (size_t i = 0; i < count; i += (size_t)l->params.head_dim)
        round_vector(x + i, l->params.head_dim, l->dtype, scale);
}

static struct sequence random_sequence(const struct layer *l, int32_t len)
{
    size_t q = (size_t)len * (size_t)(l->params.num_heads * l->params.head_dim);
    size_t kv = (size_t)len * (size_t)(l->params.num_kv_heads * l->params.head_dim);
    struct sequence s = { len, random_floats(q, 2), random_floats(kv, 1), NULL };
    s.v = values_in_keys(l) ? s.k : random_floats(kv, 1);
    round_to_cache(l, s.k, kv, l->k_scale);
    if (!values_in_keys(l))
        round_to_cache(l, s.v, kv, l->v_scale);
    return s;
}

static void free_sequence(struct sequence *s)
{
    free(s->q);
    if (s->v != s->k)
        free(s->v);
    free(s->k);
}

static struct cpu_device *open_for(enum cpu_isa isa, int32_t threads)
{
    struct workspace_desc w = { .max_num_tokens = 8192,
                                .max_num_seqs = 64,
                                .max_model_len = 4096,
                                .block_size = 16,
                                .num_heads = 24,
                                .num_kv_heads = 3,
                                .head_dim = 576,
                                .vocab_size = 16 };
    return fixture_open(isa, threads, &w);
}

/* --- running a batch -------------------------------------------------------------------------- */

struct batch {
    struct kv_layer kv;
    int32_t *tables, *slots, *query_start_loc, *seq_lens;
    int32_t stride, num_tokens, num_cached;
};

/* Blocks in random order; all that no sequence owns is NaN, and table entries past the end lie. */
static struct batch make_batch(const struct layer *l, const struct part *parts, int32_t num_parts)
{
    struct batch b = { 0 };
    const int32_t bs = l->block_size;
    int32_t used = 0, at = 0;
    for (int32_t i = 0; i < num_parts; i++) {
        int32_t blocks = (parts[i].end + bs - 1) / bs;
        used += blocks;
        b.stride = blocks > b.stride ? blocks : b.stride;
        b.num_tokens += parts[i].end - parts[i].begin;
        b.num_cached += parts[i].end;
    }
    b.stride += random_int(0, 3);
    b.kv = (struct kv_layer){ .dtype = l->dtype,
                              .k_scale = l->k_scale,
                              .v_scale = l->v_scale,
                              .num_blocks = used + random_int(0, 5),
                              .block_size = bs,
                              .num_kv_heads = l->params.num_kv_heads,
                              .head_dim = l->params.head_dim };
    size_t bytes = (size_t)b.kv.num_blocks * kv_block_bytes(&b.kv);
    b.kv.k = malloc(bytes);
    memset(b.kv.k, 0xff, bytes);
    if (!values_in_keys(l)) {
        b.kv.v = malloc(bytes);
        memset(b.kv.v, 0xff, bytes);
    }
    int32_t *order = random_order(b.kv.num_blocks);
    b.tables = malloc((size_t)(num_parts * b.stride + 1) * sizeof *b.tables);
    b.query_start_loc = calloc((size_t)num_parts + 1, sizeof *b.query_start_loc);
    b.seq_lens = malloc((size_t)num_parts * sizeof *b.seq_lens);
    for (int32_t i = 0; i < num_parts; i++) {
        for (int32_t j = 0; j < b.stride; j++)
            b.tables[i * b.stride + j] = j * bs < parts[i].end ? order[at++] : INT32_MAX / 2;
        b.seq_lens[i] = parts[i].end;
        b.query_start_loc[i + 1] = b.query_start_loc[i] + parts[i].end - parts[i].begin;
    }
    free(order);
    return b;
}

static void fill_cache(struct cpu_device *d, const struct batch *b, const struct part *parts,
                       int32_t num_parts)
{
    const int32_t cols = b->kv.num_kv_heads * b->kv.head_dim;
    for (int32_t i = 0; i < num_parts; i++) {
        int32_t *slots = malloc((size_t)parts[i].end * sizeof *slots);
        for (int32_t p = 0; p < parts[i].end; p++)
            slots[p] = b->tables[i * b->stride + p / b->kv.block_size] * b->kv.block_size +
                       p % b->kv.block_size;
        struct tensor k = tensor_view(parts[i].seq->k, DTYPE_F32, parts[i].end, cols);
        struct tensor v = tensor_view(parts[i].seq->v, DTYPE_F32, parts[i].end, cols);
        cpu_reshape_and_cache(&d->base, &b->kv, &k, b->kv.v ? &v : NULL, slots);
        free(slots);
    }
}

/* With values that are part of the keys, queries may come in two parts: the first value_dim
 * elements of every head, and the others. */
static void run_attention(struct cpu_device *d, const struct layer *l, struct tensor *out,
                          const struct tensor *q, const struct batch *b,
                          const struct attn_metadata *m)
{
    const int32_t heads = l->params.num_heads, dim = l->params.head_dim, first = value_dim(l);
    const int32_t rest = dim - first;
    if (!values_in_keys(l) || random_int(0, 1)) {
        cpu_attention(&d->base, out, q, &b->kv, m, &l->params);
        return;
    }
    float *latent = malloc(((size_t)(q->rows * heads * first) + 1) * sizeof *latent);
    float *rope = malloc(((size_t)(q->rows * heads * rest) + 1) * sizeof *rope);
    for (int32_t i = 0; i < q->rows * heads; i++) {
        const float *from = (const float *)q->data + i / heads * q->stride + i % heads * dim;
        memcpy(latent + i * first, from, (size_t)first * sizeof *from);
        memcpy(rope + i * rest, from + first, (size_t)rest * sizeof *from);
    }
    struct mla_query parts = { tensor_view(latent, DTYPE_F32, q->rows, heads * first),
                               tensor_view(rope, DTYPE_F32, q->rows, heads * rest) };
    cpu_attention_mla(&d->base, out, &parts, &b->kv, m, &l->params);
    free(latent);
    free(rope);
}

/* The cache gives back blocks that lie wholly before a window: their entries lie, too. */
static void give_back(const struct layer *l, const struct batch *b, const struct part *parts,
                      int32_t num_parts)
{
    const int32_t window = l->params.sliding_window;
    for (int32_t i = 0; i < num_parts && window > 0; i++)
        for (int32_t j = 0; (j + 1) * l->block_size <= parts[i].begin + 1 - window; j++)
            b->tables[i * b->stride + j] = INT32_MAX / 2;
}

static void run_parts(struct cpu_device *d, const struct layer *l, struct part *parts,
                      int32_t num_parts)
{
    struct batch b = make_batch(l, parts, num_parts);
    const int32_t cols = l->params.num_heads * l->params.head_dim;
    const int32_t out_cols = l->params.num_heads * value_dim(l);
    const int32_t stride = cols + random_int(0, 20), out_stride = out_cols + random_int(0, 20);
    float *q = malloc((size_t)b.num_tokens * (size_t)stride * sizeof *q);
    float *out = malloc((size_t)b.num_tokens * (size_t)out_stride * sizeof *out);
    struct tensor q_view = { q, DTYPE_F32, b.num_tokens, cols, stride };
    struct tensor out_view = { out, DTYPE_F32, b.num_tokens, out_cols, out_stride };
    struct attn_metadata m = { .num_seqs = num_parts,
                               .num_tokens = b.num_tokens,
                               .query_start_loc = b.query_start_loc,
                               .seq_lens = b.seq_lens,
                               .block_tables = b.tables,
                               .block_table_stride = b.stride };
    int32_t row = 0;
    for (int32_t i = 0; i < num_parts; i++) {
        int32_t query_len = parts[i].end - parts[i].begin;
        m.max_query_len = query_len > m.max_query_len ? query_len : m.max_query_len;
        m.max_seq_len = parts[i].end > m.max_seq_len ? parts[i].end : m.max_seq_len;
        for (int32_t t = parts[i].begin; t < parts[i].end; t++)
            memcpy(q + (size_t)stride * (size_t)row++, parts[i].seq->q + (size_t)cols * (size_t)t,
                   (size_t)cols * sizeof *q);
    }
    fill_cache(d, &b, parts, num_parts);
    give_back(l, &b, parts, num_parts);
    run_attention(d, l, &out_view, &q_view, &b, &m);
    row = 0;
    for (int32_t i = 0; i < num_parts; i++)
        for (int32_t t = 0; t < parts[i].end - parts[i].begin; t++)
            memcpy(parts[i].out + (size_t)out_cols * (size_t)t,
                   out + (size_t)out_stride * (size_t)row++, (size_t)out_cols * sizeof *out);
    free(q);
    free(out);
    free(b.kv.k);
    free(b.kv.v);
    free(b.tables);
    free(b.query_start_loc);
    free(b.seq_lens);
}

static struct part new_part(const struct layer *l, const struct sequence *s, int32_t begin,
                            int32_t end)
{
    size_t cols = (size_t)(l->params.num_heads * value_dim(l));
    return (struct part){ s, begin, end, malloc((size_t)(end - begin + 1) * cols * sizeof(float)) };
}

/* --- the formula ------------------------------------------------------------------------------ */

static void formula(const struct layer *l, const struct sequence *s, int32_t position, int32_t head,
                    double *out)
{
    const struct attention_params *p = &l->params;
    const int32_t dim = p->head_dim, kv_head = head / (p->num_heads / p->num_kv_heads);
    const int32_t kv_cols = p->num_kv_heads * dim;
    const float *q = s->q + (int64_t)position * p->num_heads * dim + head * dim;
    int32_t begin = 0;
    double *score = malloc((size_t)(position + 1) * sizeof *score), max = -INFINITY, sum = 0;
    if (p->sliding_window > 0 && position + 1 > p->sliding_window)
        begin = position + 1 - p->sliding_window;
    if (p->sinks)
        max = p->sinks[head];
    for (int32_t i = begin; i <= position; i++) {
        const float *k = s->k + (int64_t)i * kv_cols + kv_head * dim;
        score[i] = 0;
        for (int32_t j = 0; j < dim; j++)
            score[i] += (double)q[j] * k[j];
        score[i] *= p->scale;
        if (p->logit_softcap > 0)
            score[i] = p->logit_softcap * tanh(score[i] / p->logit_softcap);
        max = score[i] > max ? score[i] : max;
    }
    if (p->sinks)
        sum = exp(p->sinks[head] - max);
    memset(out, 0, (size_t)value_dim(l) * sizeof *out);
    for (int32_t i = begin; i <= position; i++) {
        const float *v = s->v + (int64_t)i * kv_cols + kv_head * dim;
        double weight = exp(score[i] - max);
        sum += weight;
        for (int32_t j = 0; j < value_dim(l); j++)
            out[j] += weight * v[j];
    }
    for (int32_t j = 0; j < value_dim(l); j++)
        out[j] /= sum;
    free(score);
}

static void check_formula(const struct layer *l, const struct part *part, int32_t samples,
                          const char *isa)
{
    const int32_t dim = value_dim(l), cols = l->params.num_heads * dim;
    double *want = malloc((size_t)dim * sizeof *want);
    char what[400];
    for (int32_t i = 0; i < samples; i++) {
        int32_t position = i == 0 ? part->end - 1 : random_int(part->begin, part->end - 1);
        int32_t head = random_int(0, l->params.num_heads - 1);
        formula(l, part->seq, position, head, want);
        snprintf(what, sizeof what, "%s, %s, position %d, head %d", isa, describe(l), position,
                 head);
        assert_close(part->out + (int64_t)(position - part->begin) * cols + head * dim, want,
                     (size_t)dim, 2e-5, 1e-4, what);
    }
    free(want);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void follows_the_formula(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = open_for(isas[i], 2);
        for (int round = 0; round < (isas[i] == CPU_ISA_SCALAR ? 12 : 60); round++) {
            struct layer l = random_layer();
            if (random_int(0, 2) == 0)
                l.params.sinks = l.sinks;
            int32_t len = RANDOM_OF(1, 2, 15, 16, 17, 63, 64, 65, 130, 511, 512, 513, 700, 1100);
            int32_t queries = random_int(1, len < 40 ? len : 40);
            struct sequence s = random_sequence(&l, len);
            struct part part = new_part(&l, &s, len - queries, len);
            run_parts(d, &l, &part, 1);
            check_formula(&l, &part, 30, cpu_isa_name(isas[i]));
            free(part.out);
            free_sequence(&s);
        }
        fixture_close(d);
    }
}

/* The same sequence whole and alone on one thread; then cut at random, in company, on 1 to 4
 * threads. Every layout of blocks is new. */
static void check_bits(struct cpu_device *const *devices, enum cpu_isa isa)
{
    enum { MAX_PARTS = 8 };
    struct layer l = random_layer();
    if (random_int(0, 2) == 0)
        l.params.sinks = l.sinks;
    const int32_t max = isa == CPU_ISA_SCALAR ? 150 : 1300;
    const size_t cols = (size_t)(l.params.num_heads * value_dim(&l));
    struct sequence s = random_sequence(&l, random_int(1, max));
    struct sequence other = random_sequence(&l, random_int(1, max / 2));
    struct part whole = new_part(&l, &s, 0, s.len);
    char what[400];
    run_parts(devices[0], &l, &whole, 1);
    for (int32_t begin = 0; begin < s.len;) {
        int32_t longest = random_int(0, 1) ? 3 : s.len;
        int32_t end = begin + random_int(1, longest);
        end = end < s.len ? end : s.len;
        if (begin > 40 && random_int(0, 3) && longest == 3)
            end = begin + 1; /* a decode step */
        int32_t count = random_int(1, 3);
        struct part parts[3] = { new_part(&l, &s, begin, end) };
        for (int32_t i = 1; i < count; i++) {
            int32_t from = random_int(0, other.len - 1);
            parts[i] = new_part(&l, &other, from, random_int(from, other.len));
        }
        int32_t mine = random_int(0, count - 1);
        struct part swap = parts[mine];
        parts[mine] = parts[0];
        parts[0] = swap;
        run_parts(devices[random_int(0, 3)], &l, parts, count);
        snprintf(what, sizeof what, "%s, %s, queries [%d, %d) of %d, %d sequences",
                 cpu_isa_name(isa), describe(&l), begin, end, s.len, count);
        assert_same_bits(parts[mine].out, whole.out + (size_t)begin * cols,
                         (size_t)(end - begin) * cols, what);
        for (int32_t i = 0; i < count; i++)
            free(parts[i].out);
        begin = longest == 3 && begin > 40 ? end + random_int(0, s.len / 8) : end;
    }
    free(whole.out);
    free_sequence(&s);
    free_sequence(&other);
}

static void bits_depend_on_own_sequence_only(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *devices[4];
        for (int t = 0; t < 4; t++)
            devices[t] = open_for(isas[i], t + 1);
        for (int round = 0; round < 25; round++)
            check_bits(devices, isas[i]);
        for (int t = 0; t < 4; t++)
            fixture_close(devices[t]);
    }
}

/* What comes later in the same sequence may be NaN or infinite without an earlier row noticing. */
static void later_tokens_do_not_reach_back(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = open_for(isas[i], 2);
        for (int round = 0; round < 12; round++) {
            struct layer l = random_layer();
            const int32_t len = random_int(2, 200), cut = random_int(1, len - 1);
            const int32_t kv_cols = l.params.num_kv_heads * l.params.head_dim;
            struct sequence s = random_sequence(&l, len);
            struct part before = new_part(&l, &s, 0, len), after = new_part(&l, &s, 0, len);
            run_parts(d, &l, &before, 1);
            for (int32_t j = cut * kv_cols; j < len * kv_cols; j++) {
                s.k[j] = random_int(0, 1) ? NAN : INFINITY;
                s.v[j] = random_int(0, 1) ? NAN : -INFINITY;
            }
            s.k[cut * kv_cols] = s.v[cut * kv_cols] = NAN; /* which row `cut` itself must notice */
            run_parts(d, &l, &after, 1);
            size_t cols = (size_t)(l.params.num_heads * value_dim(&l));
            assert_same_bits(after.out, before.out, (size_t)cut * cols, describe(&l));
            assert_true(isnan(after.out[(size_t)cut * cols]));
            free(before.out);
            free(after.out);
            free_sequence(&s);
        }
        fixture_close(d);
    }
}

/* Sequences without queries in this step, and a batch of none. */
static void empty_queries(void **state)
{
    (void)state;
    struct cpu_device *d = open_for(cpu_isa_detect(), 2);
    struct layer l = random_layer();
    struct sequence s = random_sequence(&l, 30);
    struct part parts[3] = { new_part(&l, &s, 30, 30), new_part(&l, &s, 10, 30),
                             new_part(&l, &s, 7, 7) };
    run_parts(d, &l, parts, 3);
    check_formula(&l, &parts[1], 10, "with empty neighbours");
    run_parts(d, &l, parts, 1);
    run_parts(d, &l, parts, 0);
    for (int i = 0; i < 3; i++)
        free(parts[i].out);
    free_sequence(&s);
    fixture_close(d);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_formula),
        cmocka_unit_test(bits_depend_on_own_sequence_only),
        cmocka_unit_test(later_tokens_do_not_reach_back),
        cmocka_unit_test(empty_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
