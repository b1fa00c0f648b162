/* moe_route.cu - which experts a token runs, and the pairs of tokens and experts sorted by expert.
 *
 * The choice is kernels/cpu/moe_route.c's. One warp per token. */
#include "kernels/cuda/logit_order.cuh"
#include "kernels/weight.h"

enum { ROUTE_WARPS = 2, SORT_WARPS = 4, SORT_THREADS = SORT_WARPS * WARP };

/* --- the choice ------------------------------------------------------------------------------- */

/* A warp's shared memory: [num_experts] each. */
struct route_memory {
    float *scores;
    uint32_t *keys;   /* order_key of score + bias; 0: out of play */
    uint32_t *groups; /* likewise, of groups of experts */
    float *weights;   /* of the chosen */
};

/* Which key is the greatest, the lower index among equals; every lane gets it. A lane reads those
 * of its own indices only: those that are its number modulo WARP. */
__device__ __forceinline__ int32_t best_key(const uint32_t *keys, int32_t count, int32_t lane)
{
    unsigned long long best = 0;
    for (int32_t i = lane; i < count; i += WARP)
        best = greater_op()(best, (unsigned long long)keys[i] << 32 | (uint32_t)~i);
    return (int32_t) ~(uint32_t)warp_reduce(best, greater_op());
}

/* NaN comes last. */
__device__ __forceinline__ uint32_t choice_key(float x)
{
    return order_key(x != x ? -INFINITY : x);
}

/* scores = scoring(logits). */
__device__ __forceinline__ void score(const struct route_memory &m, const float *logits,
                                      const struct moe &moe, int32_t lane)
{
    float max = -INFINITY;
    double sum = 0;
    for (int32_t i = lane; i < moe.num_experts; i += WARP) {
        m.scores[i] = moe.scoring == MOE_SIGMOID ? 1.0f / (1.0f + expf(-logits[i])) : logits[i];
        max = max_op()(max, logits[i]);
    }
    if (moe.scoring != MOE_SOFTMAX)
        return;
    max = warp_reduce(max, max_op());
    for (int32_t i = lane; i < moe.num_experts; i += WARP) {
        m.scores[i] = expf(m.scores[i] - max);
        sum += m.scores[i];
    }
    sum = warp_reduce(sum, add_op());
    for (int32_t i = lane; i < moe.num_experts; i += WARP)
        m.scores[i] = (float)(m.scores[i] / sum);
}

/* A lane for each group. */
__device__ __forceinline__ void score_groups(const struct route_memory &m, const struct moe &moe,
                                             int32_t lane)
{
    const int32_t size = moe.num_experts / moe.num_groups;
    for (int32_t g = lane; g < moe.num_groups; g += WARP) {
        float best = -INFINITY, second = -INFINITY;
        for (int32_t i = g * size; i < (g + 1) * size; i++) {
            float x = moe.score_bias ? m.scores[i] + moe.score_bias[i] : m.scores[i];
            x = x != x ? -INFINITY : x;
            second = x > best ? best : x > second ? x : second;
            best = x > best ? x : best;
        }
        m.groups[g] =
            choice_key(moe.group_score == MOE_GROUP_TOP2 && size > 1 ? best + second : best);
    }
}

/* Takes all experts but those of the best groups out of play. A chosen group's key becomes 0. */
__device__ __forceinline__ void limit_groups(const struct route_memory &m, const struct moe &moe,
                                             int32_t lane)
{
    const int32_t size = moe.num_experts / moe.num_groups;
    __syncwarp(); /* all scores are there */
    score_groups(m, moe, lane);
    for (int32_t n = 0; n < moe.topk_groups; n++) {
        const int32_t best = best_key(m.groups, moe.num_groups, lane);
        if (lane == best % WARP)
            m.groups[best] = 0;
    }
    __syncwarp();
    for (int32_t i = lane; i < moe.num_experts; i += WARP)
        if (m.groups[i / size] != 0)
            m.keys[i] = 0;
}

/* The chosen ones' scores become their weights; by one lane, in the order of the choice. */
__device__ __forceinline__ void weigh(const struct route_memory &m, const struct moe &moe,
                                      float *out)
{
    const int32_t k = moe.num_experts_per_tok;
    float max = -INFINITY;
    double sum = 0;
    for (int32_t n = 0; n < k && moe.scoring == MOE_SOFTMAX_TOPK; n++)
        max = max_op()(max, m.weights[n]);
    for (int32_t n = 0; n < k && moe.scoring == MOE_SOFTMAX_TOPK; n++) {
        m.weights[n] = expf(m.weights[n] - max);
        sum += m.weights[n];
    }
    for (int32_t n = 0; n < k && moe.scoring == MOE_SOFTMAX_TOPK; n++)
        m.weights[n] = (float)(m.weights[n] / sum);
    sum = 1e-20; /* all chosen sigmoids may be zero */
    for (int32_t n = 0; n < k && moe.norm_topk_prob; n++)
        sum += m.weights[n];
    for (int32_t n = 0; n < k; n++) {
        const float weight = moe.norm_topk_prob ? (float)(m.weights[n] / sum) : m.weights[n];
        out[n] = weight * moe.routed_scaling_factor;
    }
}

__global__ void __launch_bounds__(ROUTE_WARPS *WARP)
    route_kernel(struct cuda_moe_turn t, struct tensor logits, struct moe moe)
{
    DYNAMIC_SHARED(shared);
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, n = moe.num_experts;
    const int32_t token = blockIdx.x * ROUTE_WARPS + warp;
    if (token >= t.num_tokens)
        return; /* a whole warp */
    uint32_t *at = (uint32_t *)shared + (int64_t)warp * 4 * n;
    const struct route_memory m = { (float *)at, at + n, at + 2 * n, (float *)at + 3 * n };
    score(m, (const float *)logits.data + token * logits.stride, moe, lane);
    for (int32_t i = lane; i < n; i += WARP)
        m.keys[i] = choice_key(moe.score_bias ? m.scores[i] + moe.score_bias[i] : m.scores[i]);
    if (moe.num_groups > 1)
        limit_groups(m, moe, lane);
    /* A key and a score are read and written by one lane alone; only the weights go to another. */
    for (int32_t i = 0; i < t.top_k; i++) {
        const int32_t best = best_key(m.keys, n, lane);
        if (lane == best % WARP) {
            m.keys[best] = 0;
            m.weights[i] = m.scores[best];
            t.ids[token * t.top_k + i] = best;
        }
    }
    __syncwarp();
    if (lane == 0)
        weigh(m, moe, t.weights + token * t.top_k);
}

extern "C" void cuda_launch_moe_route(const struct cuda_moe_turn *t, const struct tensor *logits,
                                      const struct moe *moe, cudaStream_t stream)
{
    const int32_t bytes = ROUTE_WARPS * 4 * moe->num_experts * (int32_t)sizeof(float);
    CUDA_LAUNCH(route_kernel, dim3(blocks_for(t->num_tokens, ROUTE_WARPS)),
                dim3(ROUTE_WARPS * WARP), bytes, stream, *t, *logits, *moe);
}

/* --- sorting: one block per expert ------------------------------------------------------------ */

__global__ void __launch_bounds__(SORT_THREADS) count_kernel(struct cuda_moe_turn t)
{
    const int32_t expert = blockIdx.x;
    int32_t count = 0;
    for (int32_t i = threadIdx.x; i < t.num_tokens * t.top_k; i += SORT_THREADS)
        count += t.ids[i] == expert;
    count = block_reduce<SORT_WARPS>(count, add_op());
    if (threadIdx.x == 0)
        t.counts[expert] = count;
}

__global__ void __launch_bounds__(SORT_THREADS) place_kernel(struct cuda_moe_turn t)
{
    const int32_t expert = blockIdx.x, count = t.counts[expert];
    const int32_t num_pairs = t.num_tokens * t.top_k;
    int32_t begin = 0, first_tile = 0;
    for (int32_t e = threadIdx.x; e < expert; e += SORT_THREADS) {
        begin += t.counts[e];
        first_tile += (t.counts[e] + t.tile_rows - 1) / t.tile_rows;
    }
    begin = block_reduce<SORT_WARPS>(begin, add_op());
    first_tile = block_reduce<SORT_WARPS>(first_tile, add_op());
    const int32_t tiles = (count + t.tile_rows - 1) / t.tile_rows;
    if (threadIdx.x == 0) {
        t.begin[expert] = begin;
        if (expert == t.num_experts - 1) {
            t.begin[expert + 1] = begin + count;
            *t.num_tiles = first_tile + tiles;
        }
    }
    for (int32_t i = threadIdx.x; i < tiles; i += SORT_THREADS)
        t.tiles[first_tile + i] = { expert, begin + i * t.tile_rows };
    const int32_t end = begin + count;
    for (int32_t first = 0, at = begin; at < end; first += SORT_THREADS) {
        const int32_t i = first + threadIdx.x;
        const bool mine = i < num_pairs && t.ids[i] == expert;
        int32_t total;
        const int32_t place = at + block_exclusive_sum<SORT_WARPS>((int32_t)mine, &total);
        if (mine) {
            t.places[i] = place;
            t.pairs[place] = i;
        }
        at += total;
    }
}

extern "C" void cuda_launch_moe_sort(const struct cuda_moe_turn *t, cudaStream_t stream)
{
    CUDA_LAUNCH(count_kernel, dim3(t->num_experts), dim3(SORT_THREADS), 0, stream, *t);
    CUDA_LAUNCH(place_kernel, dim3(t->num_experts), dim3(SORT_THREADS), 0, stream, *t);
}
