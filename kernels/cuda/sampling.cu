/* sampling.cu - the next token of each row: mask and bias, penalties, temperature, min_p, top_k,
 * top_p, then a draw; in vLLM's order. One block per row.
 *
 * As on the CPU every filter keeps a prefix of one order of the vocabulary (falling logit, then
 * rising id), and weights are whole numbers, so that no sum depends on the order of its additions.
 * Where the prefix ends is found by radix selection over the logits' bits, eleven at a time, with
 * histograms of counts and weights; nothing is sorted. */
#include "kernels/cuda/logit_order.cuh"

enum { DIGIT_BITS = 11, NUM_BINS = 1 << DIGIT_BITS, BINS_PER_THREAD = NUM_BINS / ROW_THREADS };

typedef unsigned long long u64; /* what atomicAdd takes */

/* A weight in units of 2^-40 of the greatest, which is 1. */
__device__ __forceinline__ u64 mass_of(float weight)
{
    return (u64)(int64_t)__fmul_rn(weight, 0x1p40f);
}

/* Philox4x32-10 (Salmon et al., SC 2011) with the counter's upper half 0: the first two words, the
 * same as base/rng.h gives. */
__device__ __forceinline__ u64 philox(uint64_t key, uint64_t counter)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (u64)c0 << 32 | c1;
}

/* --- bias and penalties ----------------------------------------------------------------------- */

/* Entries of one id are applied in their order, by the thread that has the first of them. */
__device__ void apply_bias(float *x, int32_t vocab, const struct sampling_metadata &m, int32_t row)
{
    const int32_t begin = m.bias_start[row], end = m.bias_start[row + 1];
    for (int32_t i = begin + (int32_t)threadIdx.x; i < end; i += ROW_THREADS) {
        const int32_t id = m.bias_ids[i];
        bool is_first = id >= 0 && id < vocab;
        for (int32_t j = begin; is_first && j < i; j++)
            is_first = m.bias_ids[j] != id;
        for (int32_t j = i; is_first && j < end; j++) {
            /* Set, not added: -inf forbids even a logit of +inf. */
            if (m.bias_ids[j] == id)
                x[id] = m.bias_values[j] == -INFINITY ? -INFINITY : x[id] + m.bias_values[j];
        }
    }
    __syncthreads();
}

__device__ __forceinline__ bool has_penalties(const struct sampling_metadata &m, int32_t row)
{
    return m.token_ids && m.token_ids[row] &&
           (m.repetition_penalty[row] != 1.0f || m.frequency_penalty[row] != 0.0f ||
            m.presence_penalty[row] != 0.0f);
}

/* `counts` [vocab] need not be clear. Repetition looks at the prompt and the output, the two others
 * at the output only. */
__device__ void apply_penalties(float *x, int32_t vocab, int32_t *counts,
                                const struct sampling_metadata &m, int32_t row)
{
    const int32_t seen_in_prompt = 1 << 30, num_tokens = m.num_tokens[row];
    const int32_t *ids = m.token_ids[row];
    const float repetition = m.repetition_penalty[row];
    /* Several threads may clear one count; stores that are not volatile must not meet. */
    for (int32_t i = threadIdx.x; i < num_tokens; i += ROW_THREADS)
        if (ids[i] >= 0 && ids[i] < vocab)
            *(volatile int32_t *)&counts[ids[i]] = 0;
    __syncthreads();
    for (int32_t i = threadIdx.x; i < num_tokens; i += ROW_THREADS) {
        if (ids[i] < 0 || ids[i] >= vocab)
            continue;
        if (i < m.num_prompt_tokens[row])
            atomicOr(&counts[ids[i]], seen_in_prompt);
        else
            atomicAdd(&counts[ids[i]], (int32_t)1);
    }
    __syncthreads();
    for (int32_t i = threadIdx.x; i < num_tokens; i += ROW_THREADS) {
        /* Whoever takes the count of a token first deals with it. */
        const bool valid = ids[i] >= 0 && ids[i] < vocab;
        const int32_t count = valid ? atomicExch(&counts[ids[i]], (int32_t)0) : 0;
        const int32_t in_output = count & (seen_in_prompt - 1);
        if (count == 0)
            continue;
        float logit = x[ids[i]];
        logit = logit > 0 ? logit / repetition : __fmul_rn(logit, repetition);
        if (in_output > 0) {
            logit = __fsub_rn(logit, __fmul_rn(m.frequency_penalty[row], (float)in_output));
            logit = __fsub_rn(logit, m.presence_penalty[row]);
        }
        x[ids[i]] = logit;
    }
    __syncthreads();
}

/* --- where the kept prefix ends --------------------------------------------------------------- */

/* The tokens kept: those with a greater key, and those with this one up to `id`. */
struct prefix {
    uint32_t key;
    int32_t id;
    u64 count, mass;
};

struct histogram {
    u64 mass[NUM_BINS];
    uint32_t count[NUM_BINS];
    int32_t digit; /* the bin within which the prefix ends; -1: behind all */
    u64 count_before, mass_before;
};

/* Fills the histogram with the digit at `shift` of those tokens whose bits above agree with key. */
__device__ void fill_bins(struct histogram *h, const float *x, const float *weights, int32_t vocab,
                          uint32_t key, int shift, int bits)
{
    for (int32_t i = threadIdx.x; i < NUM_BINS; i += ROW_THREADS) {
        h->mass[i] = 0;
        h->count[i] = 0;
    }
    __syncthreads();
    const int above = shift + bits;
    for (int32_t i = threadIdx.x; i < vocab; i += ROW_THREADS) {
        const u64 mass = mass_of(weights[i]);
        const uint32_t k = order_key(x[i]);
        if (mass == 0 || (above < 32 && k >> above != key >> above))
            continue; /* can never be drawn, or is decided */
        const uint32_t bin = k >> shift & ((1u << bits) - 1);
        atomicAdd(&h->mass[bin], mass);
        atomicAdd(&h->count[bin], 1u);
    }
    __syncthreads();
}

/* Finds the bin, from the greatest down, within which max_count or enough_mass is reached. */
__device__ void find_bin(struct histogram *h, u64 count, u64 mass, u64 max_count, u64 enough_mass)
{
    u64 my_count = 0, my_mass = 0, all;
    const int32_t top = NUM_BINS - 1 - (int32_t)threadIdx.x * BINS_PER_THREAD;
    for (int32_t i = 0; i < BINS_PER_THREAD; i++) {
        my_count += h->count[top - i];
        my_mass += h->mass[top - i];
    }
    if (threadIdx.x == 0)
        h->digit = -1;
    count += block_exclusive_sum<ROW_WARPS>(my_count, &all);
    mass += block_exclusive_sum<ROW_WARPS>(my_mass, &all);
    if (threadIdx.x == ROW_THREADS - 1) {
        h->count_before = count + my_count; /* of all, should none be found */
        h->mass_before = mass + my_mass;
    }
    __syncthreads();
    if (count < max_count && mass < enough_mass) {
        for (int32_t i = 0; i < BINS_PER_THREAD; i++) {
            const u64 next_count = count + h->count[top - i], next_mass = mass + h->mass[top - i];
            if (next_count >= max_count || next_mass >= enough_mass) {
                h->digit = top - i;
                h->count_before = count;
                h->mass_before = mass;
                break;
            }
            count = next_count;
            mass = next_mass;
        }
    }
    __syncthreads();
}

/* The id of the n-th token (from 1) in rising order of id that has this key and some weight. */
__device__ int32_t nth_equal(const float *x, const float *weights, int32_t vocab, uint32_t key,
                             u64 n)
{
    __shared__ int32_t found;
    u64 before = 0;
    for (int32_t begin = 0; begin < vocab && before < n; begin += ROW_THREADS) {
        const int32_t i = begin + (int32_t)threadIdx.x;
        const bool is_equal = i < vocab && order_key(x[i]) == key && mass_of(weights[i]) > 0;
        u64 count;
        const u64 mine = before + block_exclusive_sum<ROW_WARPS>((u64)is_equal, &count);
        if (is_equal && mine + 1 == n)
            found = i;
        before += count;
    }
    __syncthreads();
    return found;
}

/* The shortest prefix of max_count tokens or of at least enough_mass, whichever is shorter. */
__device__ struct prefix find_prefix(const float *x, const float *weights, int32_t vocab,
                                     u64 max_count, u64 enough_mass)
{
    __shared__ struct histogram h;
    struct prefix p = { 0, INT32_MAX, 0, 0 };
    const int shifts[] = { 32 - DIGIT_BITS, 32 - 2 * DIGIT_BITS, 0 };
    u64 equal_mass = 0, equals = 0;
    for (int i = 0; i < 3; i++) {
        const int bits = i == 2 ? 32 - 2 * DIGIT_BITS : (int)DIGIT_BITS;
        fill_bins(&h, x, weights, vocab, p.key, shifts[i], bits);
        find_bin(&h, p.count, p.mass, max_count, enough_mass);
        p.count = h.count_before;
        p.mass = h.mass_before;
        if (h.digit < 0)
            return p; /* all of them: key 0 is below every logit's */
        p.key |= (uint32_t)h.digit << shifts[i];
        equals = h.count[h.digit];
        equal_mass = h.mass[h.digit];
        __syncthreads(); /* read before the bins are cleared */
    }
    /* What is left has one and the same logit, and so the same weight. */
    const u64 each = equal_mass / equals, lacking = enough_mass - p.mass;
    u64 taken = lacking / each + (lacking % each != 0);
    taken = taken < max_count - p.count ? taken : max_count - p.count;
    if (taken < equals)
        p.id = nth_equal(x, weights, vocab, p.key, taken);
    else
        taken = equals;
    p.count += taken;
    p.mass += taken * each;
    return p;
}

/* A token is kept by top_p while those before it weigh less than top_p of the whole. */
__device__ __forceinline__ u64 enough_of(float top_p, u64 whole)
{
    const double wanted = ceil((double)top_p * (double)whole);
    const u64 enough = wanted < 1 ? 1 : (u64)wanted;
    return enough < whole ? enough : whole;
}

__device__ struct prefix apply_filters(const float *x, const float *weights, int32_t vocab,
                                       int32_t top_k, float top_p, u64 whole)
{
    struct prefix kept = { 0, INT32_MAX, 0, whole };
    const bool has_top_k = top_k > 0 && top_k < vocab;
    const u64 max_count = has_top_k ? (u64)top_k : ~(u64)0;
    if (has_top_k)
        kept = find_prefix(x, weights, vocab, max_count, ~(u64)0);
    if (top_p < 1.0f)
        kept = find_prefix(x, weights, vocab, max_count, enough_of(top_p, kept.mass));
    return kept;
}

/* --- the draw --------------------------------------------------------------------------------- */

/* The first token, in rising order of id, where the kept mass up to it exceeds `at`; -1: none. A
 * warp sums a piece of the row; the one that holds the answer then goes through its piece. */
__device__ int32_t draw(const float *x, const float *weights, int32_t vocab, const struct prefix &p,
                        u64 at)
{
    __shared__ u64 sums[ROW_WARPS];
    __shared__ int32_t answer;
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int32_t piece = (vocab + ROW_THREADS - 1) / ROW_THREADS * WARP;
    u64 sum = 0, before = 0;
    for (int32_t i = warp * piece + lane; i < (warp + 1) * piece && i < vocab; i += WARP) {
        const uint32_t key = order_key(x[i]);
        if (key > p.key || (key == p.key && i <= p.id))
            sum += mass_of(weights[i]);
    }
    sum = warp_reduce(sum, add_op());
    if (lane == 0)
        sums[warp] = sum;
    if (threadIdx.x == 0)
        answer = -1;
    __syncthreads();
    for (int32_t w = 0; w < warp; w++)
        before += sums[w];
    if (before <= at && at < before + sum) { /* the whole warp, or none of it */
        for (int32_t begin = warp * piece; before <= at; begin += WARP) {
            const int32_t i = begin + lane;
            const uint32_t key = i < vocab ? order_key(x[i]) : 0;
            const bool kept = i < vocab && (key > p.key || (key == p.key && i <= p.id));
            u64 inclusive = kept ? mass_of(weights[i]) : 0;
            for (int offset = 1; offset < WARP; offset *= 2) {
                const u64 other = __shfl_up_sync(FULL_WARP, inclusive, offset);
                inclusive += lane >= offset ? other : 0;
            }
            const uint32_t past = __ballot_sync(FULL_WARP, before + inclusive > at);
            if (past && lane == 0)
                answer = begin + __ffs(past) - 1;
            before += __shfl_sync(FULL_WARP, inclusive, WARP - 1);
        }
    }
    __syncthreads();
    return answer;
}

/* --- the op ----------------------------------------------------------------------------------- */

/* The row as the sampler sees it, into x. */
__device__ void process_logits(float *x, int32_t *counts, const float *logits, int32_t vocab,
                               const struct sampling_metadata &m, int32_t row)
{
    const uint32_t *mask = m.allowed_mask ? m.allowed_mask[row] : NULL;
    for (int32_t i = threadIdx.x; i < vocab; i += ROW_THREADS)
        x[i] = mask && !(mask[i / 32] >> (i % 32) & 1u) ? -INFINITY : logits[i];
    __syncthreads();
    if (m.bias_start && m.bias_start[row + 1] > m.bias_start[row])
        apply_bias(x, vocab, m, row);
    if (has_penalties(m, row))
        apply_penalties(x, vocab, counts, m, row);
}

/* The lowest id whose logit is `max`. */
__device__ int32_t find_first(const float *x, int32_t vocab, float max)
{
    int32_t id = INT32_MAX;
    for (int32_t i = threadIdx.x; i < vocab; i += ROW_THREADS)
        id = x[i] == max && i < id ? i : id;
    return block_reduce<ROW_WARPS>(id, less_op());
}

__device__ int32_t sample_row(float *x, float *weights, int32_t vocab,
                              const struct sampling_metadata &m, int32_t row)
{
    const float max = row_max(x, vocab);
    if (!(fabsf(max) < INFINITY))
        return -1; /* NaN or +inf among the logits, or every token forbidden */
    if (!(m.temperature[row] > 0))
        return find_first(x, vocab, max);
    /* Kept finite, so that the distance of the greatest logit is 0 and not 0 * inf. */
    const float factor = fminf(1.0f / m.temperature[row], 0x1p126f), min_p = m.min_p[row];
    const float limit = min_p > 0 ? -logf(min_p) : INFINITY;
    u64 whole = 0;
    for (int32_t i = threadIdx.x; i < vocab; i += ROW_THREADS) {
        const float distance = __fmul_rn(__fsub_rn(max, x[i]), factor);
        weights[i] = distance <= limit ? expf(-distance) : 0;
        whole += mass_of(weights[i]);
    }
    whole = block_reduce<ROW_WARPS>(whole, add_op());
    const struct prefix kept = apply_filters(x, weights, vocab, m.top_k[row], m.top_p[row], whole);
    return draw(x, weights, vocab, kept,
                __umul64hi(philox(m.seed[row], m.position[row]), kept.mass));
}

__global__ void __launch_bounds__(ROW_THREADS)
    sample_kernel(int32_t *sampled_ids, struct tensor logits, struct sampling_metadata m,
                  float *scratch)
{
    const int32_t row = blockIdx.x, vocab = logits.cols;
    float *x = scratch + (int64_t)row * 2 * vocab, *weights = x + vocab;
    process_logits(x, (int32_t *)weights, (const float *)logits.data + row * logits.stride, vocab,
                   m, row);
    const int32_t id = sample_row(x, weights, vocab, m, row);
    if (threadIdx.x == 0)
        sampled_ids[row] = id;
}

extern "C" void cuda_launch_sample(int32_t *sampled_ids, const struct tensor *logits,
                                   const struct sampling_metadata *m, void *scratch,
                                   cudaStream_t stream)
{
    if (m->num_rows > 0)
        CUDA_LAUNCH(sample_kernel, dim3(m->num_rows), dim3(ROW_THREADS), 0, stream, sampled_ids,
                    *logits, *m, (float *)scratch);
}
