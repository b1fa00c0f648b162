/* attention_simt.cu - attention without tensor cores, for float32 caches and for head sizes that
 * the other kernels do not take: one warp per row and head, all sums in float32.
 *
 * 32 positions at a time: a lane scores one of them; then it adds up every 32nd column of V. */
#include "kernels/cuda/attention.cuh"

enum { SIMT_WARPS = 4, MAX_COLS = CUDA_MAX_VALUE_DIM / WARP };

template <typename E>
__global__ void __launch_bounds__(SIMT_WARPS *WARP) simt_kernel(struct cuda_attention a)
{
    __shared__ float weights[SIMT_WARPS][WARP];
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int32_t token = blockIdx.x, head = blockIdx.y * SIMT_WARPS + warp;
    const int32_t seq = find_sequence(a.m.query_start_loc, a.m.num_seqs, token);
    if (seq == a.m.num_seqs || head >= a.params.num_heads)
        return;
    const struct cuda_kv &kv = a.kv;
    const int32_t kv_head = head / (a.params.num_heads / a.params.num_kv_heads), dim = kv.head_dim;
    const int32_t end = a.m.seq_lens[seq] - (a.m.query_start_loc[seq + 1] - token) + 1;
    const int32_t window = a.params.sliding_window;
    const int32_t begin = window > 0 && end > window ? end - window : 0;
    const int32_t *table = a.m.block_tables + (int64_t)seq * a.m.block_table_stride;
    /* A latent's query comes in two parts, and its value is the key's first elements. */
    const int32_t value_dim = kv.v ? dim : a.params.value_head_dim;
    const float *q = (const float *)a.q.data + token * a.q.stride + (int64_t)head * value_dim;
    const float *q_rope =
        (const float *)a.q_rope.data + token * a.q_rope.stride + (int64_t)head * (dim - value_dim);
    void *values = kv.v ? kv.v : kv.k;
    float max = -INFINITY, sum = 0, out[MAX_COLS] = {};
    for (int32_t at = begin; at < end; at += WARP) {
        const int32_t count = end - at < WARP ? end - at : (int32_t)WARP;
        const int32_t position = at + (lane < count ? lane : 0);
        const int32_t block = kv_block_of(kv, position);
        const struct kv_vector<E> k =
            kv_vector_at<E>(kv, kv.k, table[block], kv_head, position - block * kv.block_size);
        float score = 0;
        for (int32_t i = 0; i < value_dim; i++)
            score += q[i] * kv_value(kv, k, i);
        for (int32_t i = value_dim; i < dim; i++)
            score += q_rope[i - value_dim] * kv_value(kv, k, i);
        score = lane < count ? score_of(score, a.params) : -INFINITY;
        const float greater = fmaxf(max, warp_reduce(score, max_op()));
        const float kept = weight_of(max, greater), weight = weight_of(score, greater);
        sum = sum * kept + warp_reduce(weight, add_op());
        max = greater;
        weights[warp][lane] = weight;
        __syncwarp();
#pragma unroll
        for (int c = 0; c < MAX_COLS; c++)
            out[c] *= kept;
        for (int32_t i = 0; i < count; i++) {
            const int32_t p = at + i, block = kv_block_of(kv, p);
            const struct kv_vector<E> v =
                kv_vector_at<E>(kv, values, table[block], kv_head, p - block * kv.block_size);
#pragma unroll
            for (int c = 0; c < MAX_COLS; c++)
                if (c * WARP + lane < value_dim)
                    out[c] += weights[warp][i] * kv_value(kv, v, c * WARP + lane);
        }
        __syncwarp(); /* the weights have been read */
    }
    const struct row_end e = end_row(a.params, head, max, sum);
    float *dst = (float *)a.out.data + token * a.out.stride + (int64_t)head * value_dim;
#pragma unroll
    for (int c = 0; c < MAX_COLS; c++)
        if (c * WARP + lane < value_dim)
            dst[c * WARP + lane] = end_value(e, out[c]);
}

extern "C" void cuda_launch_attention_simt(const struct cuda_attention *a, cudaStream_t stream)
{
    auto *kernel = a->kv.dtype == DTYPE_F32    ? simt_kernel<float>
                   : a->kv.dtype == DTYPE_BF16 ? simt_kernel<bf16>
                   : a->kv.dtype == DTYPE_F16  ? simt_kernel<f16>
                                               : simt_kernel<kv_byte>;
    const dim3 grid(a->m.num_tokens, blocks_for(a->params.num_heads, SIMT_WARPS));
    if (a->m.num_tokens > 0 && a->m.num_seqs > 0)
        CUDA_LAUNCH(kernel, grid, dim3(SIMT_WARPS * WARP), 0, stream, *a);
}
