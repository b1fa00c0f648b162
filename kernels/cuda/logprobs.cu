/* logprobs.cu - log_softmax of raw logits: the target's, its rank, and the best few of each row. */
#include "kernels/cuda/logit_order.cuh"

/* A token's place in the order of falling logit, then rising id, as one number; NaN counts as -inf.
 */
__device__ __forceinline__ uint64_t place_of(float logit, int32_t id)
{
    const float x = logit != logit ? -INFINITY : logit;
    return (uint64_t)order_key(x) << 32 | (uint32_t)~id;
}

__global__ void __launch_bounds__(ROW_THREADS)
    logprobs_kernel(struct logprobs_request q, struct tensor logits)
{
    const int32_t row = blockIdx.x, vocab = logits.cols, target = q.target_ids[row];
    const float *x = (const float *)logits.data + row * logits.stride;
    const int32_t wanted = q.num_top[row];
    if (wanted < 0)
        return;
    const float max = row_max(x, vocab);
    double sum = 0;
    for (int32_t i = threadIdx.x; i < vocab; i += ROW_THREADS)
        sum += (double)expf(x[i] - max);
    const double log_sum = log(block_reduce<ROW_WARPS>(sum, add_op()));
    const bool valid = target >= 0 && target < vocab;
    const float at = valid ? x[target] : 0;
    int32_t greater = 0;
    for (int32_t i = threadIdx.x; valid && i < vocab; i += ROW_THREADS)
        greater += x[i] > at;
    greater = block_reduce<ROW_WARPS>(greater, add_op());
    if (threadIdx.x == 0) {
        q.target_logprob[row] = valid ? (float)((double)at - max - log_sum) : -INFINITY;
        q.target_rank[row] = valid ? 1 + greater : 0;
    }
    const int32_t num_top = wanted < q.max_top ? wanted : q.max_top;
    uint64_t last = ~(uint64_t)0;
    for (int32_t k = 0; k < num_top; k++) {
        uint64_t best = 0; /* less than any token's place */
        for (int32_t i = threadIdx.x; k < vocab && i < vocab; i += ROW_THREADS) {
            const uint64_t place = place_of(x[i], i);
            best = place < last && place > best ? place : best;
        }
        last = block_reduce<ROW_WARPS>(best, greater_op());
        if (threadIdx.x == 0) {
            const int32_t id = last ? ~(int32_t)(uint32_t)last : -1;
            const float logit = last && x[id] == x[id] ? x[id] : -INFINITY;
            const int64_t out = (int64_t)row * q.max_top + k;
            q.top_ids[out] = id;
            q.top_logprobs[out] = last ? (float)((double)logit - max - log_sum) : -INFINITY;
        }
    }
}

extern "C" void cuda_launch_logprobs(const struct logprobs_request *request,
                                     const struct tensor *logits, cudaStream_t stream)
{
    if (request->num_rows > 0)
        CUDA_LAUNCH(logprobs_kernel, dim3(request->num_rows), dim3(ROW_THREADS), 0, stream,
                    *request, *logits);
}
