/* rejection_sample.cu - counts the drafts that count, a warp for each sequence: its lanes look at
 * 32 rows at a time. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 4 * WARP };

__global__ void __launch_bounds__(THREADS)
    rejection_sample_kernel(int32_t *num_accepted, struct rejection_request request)
{
    const int32_t seq = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    const int32_t lane = threadIdx.x % WARP;
    if (seq >= request.num_seqs)
        return;
    const int32_t begin = request.row_start[seq], last = request.row_start[seq + 1] - 1;
    int32_t accepted = 0;
    for (int32_t at = begin; at < last; at += WARP) {
        const int32_t row = at + lane;
        const bool wrong = row >= last || request.sampled_ids[row] != request.draft_ids[row];
        const uint32_t first = __ballot_sync(FULL_WARP, wrong);
        accepted += first ? __ffs((int)first) - 1 : WARP;
        if (first)
            break;
    }
    if (lane == 0)
        num_accepted[seq] = accepted;
}

extern "C" void cuda_launch_rejection_sample(int32_t *num_accepted,
                                             const struct rejection_request *request,
                                             cudaStream_t stream)
{
    if (request->num_seqs > 0)
        CUDA_LAUNCH(rejection_sample_kernel, dim3(blocks_for(request->num_seqs, THREADS / WARP)),
                    dim3(THREADS), 0, stream, num_accepted, *request);
}
