/* sampling.c - the next token of each row: bias and mask, penalties, temperature, min_p, top_k,
 * top_p, then a draw; in vLLM's order.
 *
 * After the temperature every filter keeps a prefix of one order of the vocabulary: by falling
 * logit, then rising id. So the filters only have to find the last token kept, which needs no
 * sort: among the few tokens close to the best one, or all of them where these do not do, a
 * histogram over distances from the best finds the bin where the prefix ends, and a radix
 * selection within the bin finds the token. Weights are whole numbers (weight_mass), so neither
 * sums nor draws depend on the order of an addition. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/op_kernels.h"

#include "base/rng.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    BINS_PER_UNIT = 64, /* of distance; weights end at exp(-distance) = 2^-40, distance 27.7 */
    NUM_BINS = 28 * BINS_PER_UNIT,
    MAX_VOCAB = 1 << 23
};

/* One thread's part of the sampling scratch. */
struct scratch {
    uint64_t *bin_mass;  /* [NUM_BINS] */
    uint32_t *bin_count; /* [NUM_BINS] */
    float *logits;       /* [vocab] after bias, mask and penalties */
    float *weights;      /* [vocab] */
    int32_t *near;       /* [vocab] counts per token, later the ids close to the best */
    int32_t *ids;        /* [vocab] the ids of one bin */
};

static size_t scratch_bytes(int32_t vocab)
{
    size_t row = ((size_t)vocab * sizeof(float) + 63) / 64 * 64;
    return NUM_BINS * (sizeof(uint64_t) + sizeof(uint32_t)) + 4 * row;
}

static struct scratch scratch_of(const struct cpu_device *d, int32_t thread)
{
    const int32_t vocab = d->limits.vocab_size;
    size_t row = ((size_t)vocab * sizeof(float) + 63) / 64 * 64;
    char *at = (char *)d->sampling_scratch + (size_t)thread * scratch_bytes(vocab);
    struct scratch s;
    s.bin_mass = (uint64_t *)at;
    at += NUM_BINS * sizeof(uint64_t);
    s.bin_count = (uint32_t *)at;
    at += NUM_BINS * sizeof(uint32_t);
    s.logits = (float *)at;
    s.weights = (float *)(at + row);
    s.near = (int32_t *)(at + 2 * row);
    s.ids = (int32_t *)(at + 3 * row);
    return s;
}

size_t cpu_sampling_scratch_bytes(const struct cpu_device *d, const struct workspace_desc *w)
{
    return (size_t)d->num_threads * scratch_bytes(w->vocab_size);
}

/* --- bias, mask, penalties -------------------------------------------------------------------- */

static void apply_mask(float *x, int32_t vocab, const uint32_t *mask)
{
    for (int32_t i = 0; i < vocab; i++)
        if (!(mask[i / 32] >> (i % 32) & 1u))
            x[i] = -INFINITY;
}

static void apply_bias(float *x, int32_t vocab, const struct sampling_metadata *m, int32_t row)
{
    for (int32_t i = m->bias_start[row]; i < m->bias_start[row + 1]; i++) {
        int32_t id = m->bias_ids[i];
        if (id < 0 || id >= vocab)
            continue;
        /* Set, not added: -inf forbids even a logit of +inf. */
        x[id] = m->bias_values[i] == -INFINITY ? -INFINITY : x[id] + m->bias_values[i];
    }
}

static bool has_penalties(const struct sampling_metadata *m, int32_t row)
{
    return m->token_ids && m->token_ids[row] &&
           (m->repetition_penalty[row] != 1.0f || m->frequency_penalty[row] != 0.0f ||
            m->presence_penalty[row] != 0.0f);
}

/* `counts` [vocab] need not be clear. Repetition looks at the prompt and the output, the two others
 * at the output only. */
static void apply_penalties(float *x, int32_t vocab, int32_t *counts,
                            const struct sampling_metadata *m, int32_t row)
{
    const int32_t SEEN_IN_PROMPT = 1 << 30;
    const int32_t *ids = m->token_ids[row];
    const int32_t num_prompt = m->num_prompt_tokens[row], num_tokens = m->num_tokens[row];
    const float repetition = m->repetition_penalty[row];
    for (int32_t i = 0; i < num_tokens; i++)
        if (ids[i] >= 0 && ids[i] < vocab)
            counts[ids[i]] = 0;
    for (int32_t i = 0; i < num_tokens; i++) {
        if (ids[i] < 0 || ids[i] >= vocab)
            continue;
        if (i < num_prompt)
            counts[ids[i]] |= SEEN_IN_PROMPT;
        else
            counts[ids[i]]++;
    }
    for (int32_t i = 0; i < num_tokens; i++) {
        if (ids[i] < 0 || ids[i] >= vocab || counts[ids[i]] == 0)
            continue;
        float *logit = &x[ids[i]];
        int32_t in_output = counts[ids[i]] & (SEEN_IN_PROMPT - 1);
        counts[ids[i]] = 0; /* done with this token */
        *logit = *logit > 0 ? *logit / repetition : *logit * repetition;
        if (in_output > 0) {
            *logit -= m->frequency_penalty[row] * (float)in_output;
            *logit -= m->presence_penalty[row];
        }
    }
}

/* The row as the sampler sees it: the logits themselves when nothing changes them. */
static const float *processed_logits(const struct scratch *s, const float *logits, int32_t vocab,
                                     const struct sampling_metadata *m, int32_t row)
{
    const uint32_t *mask = m->allowed_mask ? m->allowed_mask[row] : NULL;
    const bool bias = m->bias_start && m->bias_start[row + 1] > m->bias_start[row];
    const bool penalties = has_penalties(m, row);
    if (!mask && !bias && !penalties)
        return logits;
    memcpy(s->logits, logits, (size_t)vocab * sizeof *logits);
    if (mask)
        apply_mask(s->logits, vocab, mask);
    if (bias)
        apply_bias(s->logits, vocab, m, row);
    if (penalties)
        apply_penalties(s->logits, vocab, s->near, m, row);
    return s->logits;
}

/* --- where the kept prefix ends --------------------------------------------------------------- */

struct row {
    const struct scratch *s;
    const float *x; /* [vocab] processed logits */
    int32_t vocab;
    struct weight_rule rule;
    int32_t num_near; /* the prefix is among this many of s->near; -1: may be anywhere */
};

/* The tokens kept: those before (logit, id) in the order, itself included. */
struct prefix {
    float logit;
    int32_t id;
    uint64_t count, mass;
};

/* Floats as integers in the same order; both zeros are one. */
static uint32_t order_key(float x)
{
    uint32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static int32_t bin_of(const struct row *r, int32_t id)
{
    int32_t bin = (int32_t)((r->rule.max - r->x[id]) * r->rule.factor * BINS_PER_UNIT);
    return bin < NUM_BINS ? bin : NUM_BINS - 1;
}

/* The tokens among which the prefix ends, in rising order of id. */
static int32_t num_candidates(const struct row *r)
{
    return r->num_near < 0 ? r->vocab : r->num_near;
}

static int32_t candidate(const struct row *r, int32_t i)
{
    return r->num_near < 0 ? i : r->s->near[i];
}

/* Looks for a small set that holds the prefix: the tokens within some distance of the best, which
 * are a prefix themselves. */
static void find_near(struct row *r, uint64_t max_count, uint64_t enough_mass,
                      const struct logits_kernel *kernel)
{
    static const float distances[] = { 1, 2, 4, 6, 8, 11, 14 };
    const int32_t most = r->vocab / 32; /* with more, the detour costs more than it saves */
    r->num_near = -1;
    for (size_t try = 0; try < sizeof distances / sizeof *distances; try++) {
        const float bound = r->rule.max - distances[try] / r->rule.factor;
        uint64_t mass = 0;
        int32_t num = 0, id = kernel->find_not_less(r->x, 0, r->vocab, bound);
        while (id < r->vocab && num < most) {
            r->s->near[num++] = id;
            mass += weight_mass(r->s->weights[id]);
            id = kernel->find_not_less(r->x, id + 1, r->vocab, bound);
        }
        if (id < r->vocab)
            return;
        if ((uint64_t)num >= max_count || mass >= enough_mass) {
            r->num_near = num;
            return;
        }
    }
}

static void fill_bins(const struct row *r)
{
    const int32_t num = num_candidates(r);
    memset(r->s->bin_mass, 0, NUM_BINS * sizeof *r->s->bin_mass);
    memset(r->s->bin_count, 0, NUM_BINS * sizeof *r->s->bin_count);
    for (int32_t i = 0; i < num; i++) {
        int32_t id = candidate(r, i);
        uint64_t mass = weight_mass(r->s->weights[id]);
        if (mass == 0)
            continue; /* can never be drawn */
        int32_t bin = bin_of(r, id);
        r->s->bin_mass[bin] += mass;
        r->s->bin_count[bin]++;
    }
}

/* Narrows the candidates to those whose key has the digit at `shift` within which the prefix ends;
 * adds what lies before it to `p`. Keeps rising order of ids. Returns how many are left. */
static int32_t narrow(const struct row *r, int32_t num, int shift, struct prefix *p,
                      uint64_t max_count, uint64_t enough_mass)
{
    uint64_t mass[256] = { 0 };
    uint32_t count[256] = { 0 };
    int32_t *ids = r->s->ids, left = 0, digit = 255;
    for (int32_t i = 0; i < num; i++) {
        uint32_t at = order_key(r->x[ids[i]]) >> shift & 0xffu;
        mass[at] += weight_mass(r->s->weights[ids[i]]);
        count[at]++;
    }
    while (p->count + count[digit] < max_count && p->mass + mass[digit] < enough_mass) {
        assert(digit > 0);
        p->count += count[digit];
        p->mass += mass[digit--];
    }
    for (int32_t i = 0; i < num; i++)
        if ((order_key(r->x[ids[i]]) >> shift & 0xffu) == (uint32_t)digit)
            ids[left++] = ids[i];
    return left;
}

/* The shortest prefix of max_count tokens or of at least enough_mass, whichever is shorter; the
 * bins are filled. */
static struct prefix find_prefix(const struct row *r, uint64_t max_count, uint64_t enough_mass)
{
    struct prefix p = { -INFINITY, INT32_MAX, 0, 0 };
    int32_t bin = 0, num = 0;
    const int32_t total = num_candidates(r);
    while (bin < NUM_BINS && p.count + r->s->bin_count[bin] < max_count &&
           p.mass + r->s->bin_mass[bin] < enough_mass) {
        p.count += r->s->bin_count[bin];
        p.mass += r->s->bin_mass[bin++];
    }
    if (bin == NUM_BINS)
        return p; /* all of them */
    for (int32_t i = 0; i < total; i++) {
        int32_t id = candidate(r, i);
        if (weight_mass(r->s->weights[id]) > 0 && bin_of(r, id) == bin)
            r->s->ids[num++] = id;
    }
    for (int shift = 24; shift >= 0; shift -= 8)
        num = narrow(r, num, shift, &p, max_count, enough_mass);
    /* What is left has one and the same logit. */
    for (int32_t i = 0; i < num && p.count < max_count && p.mass < enough_mass; i++) {
        p.id = r->s->ids[i];
        p.logit = r->x[p.id];
        p.count++;
        p.mass += weight_mass(r->s->weights[p.id]);
    }
    return p;
}

/* A token is kept by top_p while those before it weigh less than top_p of the whole. */
static uint64_t enough_of(float top_p, uint64_t whole)
{
    double wanted = ceil((double)top_p * (double)whole);
    uint64_t enough = wanted < 1 ? 1 : (uint64_t)wanted;
    return enough < whole ? enough : whole;
}

static struct prefix apply_filters(struct row *r, int32_t top_k, float top_p,
                                   const struct logits_kernel *kernel)
{
    struct prefix kept = { -INFINITY, INT32_MAX, 0, 0 };
    const bool has_top_k = top_k > 0 && top_k < r->vocab, has_top_p = top_p < 1.0f;
    const uint64_t max_count = has_top_k ? (uint64_t)top_k : UINT64_MAX;
    if (!has_top_k)
        kept.mass = kernel->sum_mass(r->s->weights, r->vocab);
    if (!has_top_k && !has_top_p)
        return kept;
    find_near(r, max_count, has_top_k ? UINT64_MAX : enough_of(top_p, kept.mass), kernel);
    fill_bins(r);
    if (has_top_k)
        kept = find_prefix(r, max_count, UINT64_MAX);
    if (!has_top_p)
        return kept;
    return find_prefix(r, max_count, enough_of(top_p, kept.mass));
}

/* --- the draw --------------------------------------------------------------------------------- */

/* Inverse of the cumulative mass over the kept tokens in rising order of id, at
 * floor(u * mass / 2^64) with u the generator's first two words. */
static int32_t draw(const struct row *r, const struct prefix *p, uint64_t seed, uint64_t position,
                    const struct logits_kernel *kernel)
{
    struct rng_block block = rng_philox(seed, 0, position);
    uint64_t u = (uint64_t)block.word[0] << 32 | block.word[1];
    uint64_t at = (uint64_t)((unsigned __int128)u * p->mass >> 64), sum = 0;
    if (p->logit == -INFINITY) {
        for (int32_t id = 0; id < r->vocab; id++) {
            sum += weight_mass(r->s->weights[id]);
            if (sum > at)
                return id;
        }
        return -1;
    }
    int32_t id = kernel->find_not_less(r->x, 0, r->vocab, p->logit);
    while (id < r->vocab) {
        if (r->x[id] > p->logit || id <= p->id) {
            sum += weight_mass(r->s->weights[id]);
            if (sum > at)
                return id;
        }
        id = kernel->find_not_less(r->x, id + 1, r->vocab, p->logit);
    }
    return -1;
}

static int32_t sample_row(const struct logits_kernel *kernel, const struct scratch *s,
                          const struct tensor *logits, const struct sampling_metadata *m,
                          int32_t row)
{
    const int32_t vocab = logits->cols;
    const float *x =
        processed_logits(s, (const float *)logits->data + row * logits->stride, vocab, m, row);
    const float max = kernel->max(x, vocab);
    if (!isfinite(max))
        return -1; /* NaN or +inf among the logits, or every token forbidden */
    if (!(m->temperature[row] > 0))
        return kernel->find(x, vocab, max);
    /* Kept finite, so that the distance of the greatest logit is 0 and not 0 * inf. */
    float factor = fminf(1.0f / m->temperature[row], 0x1p126f);
    float min_p = m->min_p[row];
    struct row r = { s, x, vocab, { max, factor, min_p > 0 ? -logf(min_p) : INFINITY }, -1 };
    kernel->weights(s->weights, x, vocab, &r.rule);
    struct prefix kept = apply_filters(&r, m->top_k[row], m->top_p[row], kernel);
    return draw(&r, &kept, m->seed[row], m->position[row], kernel);
}

/* --- the op ----------------------------------------------------------------------------------- */

struct sample_args {
    struct cpu_device *d;
    const struct logits_kernel *kernel;
    int32_t *sampled_ids;
    const struct tensor *logits;
    const struct sampling_metadata *m;
};

static void sample_task(void *arg, int32_t row, int32_t thread)
{
    const struct sample_args *a = arg;
    struct scratch s = scratch_of(a->d, thread);
    a->sampled_ids[row] = sample_row(a->kernel, &s, a->logits, a->m, row);
}

void cpu_sample(struct device *d, int32_t *sampled_ids, const struct tensor *logits,
                const struct sampling_metadata *m)
{
    struct cpu_device *c = cpu_device_of(d);
    assert(logits->dtype == DTYPE_F32 && logits->rows >= m->num_rows);
    assert(logits->cols > 0 && logits->cols <= c->limits.vocab_size && logits->cols <= MAX_VOCAB);
    struct sample_args args = { c, logits_kernel_for(c), sampled_ids, logits, m };
    thread_pool_run(c->pool, m->num_rows, sample_task, &args);
}
