/* step_io.cu - what goes in and out around a step: its arrays, tokens fed to the next, faults.
 *
 * A step's arrays are some forty pieces of a few bytes to a few kilobytes, whose addresses are
 * fixed because graphs are replayed from them. A copy each would cost more than all that they hold;
 * here one launch moves them, reading or writing pinned host memory over the bus. */
#include "kernels/backend.h"
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, BLOCKS_PER_PIECE = 16 };

/* A kernel's arguments may take 4 KiB. */
struct piece_list {
    struct copy_piece pieces[COPY_MAX_PIECES];
};
static_assert(sizeof(struct piece_list) <= 4096 - 64, "fits a kernel's arguments");

/* blockIdx.x is the piece. */
__global__ void copy_pieces_kernel(struct piece_list list)
{
    const struct copy_piece *p = &list.pieces[blockIdx.x];
    const int64_t width = (int64_t)(p->width_bytes / 4), pitch = (int64_t)(p->pitch_bytes / 4);
    const int64_t count = width * p->rows;
    int32_t *dst = (int32_t *)p->dst;
    const int32_t *src = (const int32_t *)p->src;
    for (int64_t i = (int64_t)blockIdx.y * THREADS + threadIdx.x; i < count;
         i += (int64_t)THREADS * BLOCKS_PER_PIECE) {
        const int64_t at = i / width * pitch + i % width;
        dst[at] = src[at];
    }
}

extern "C" void cuda_launch_copy_pieces(const struct copy_piece *pieces, int32_t count,
                                        cudaStream_t stream)
{
    struct piece_list list = {};
    for (int32_t i = 0; i < count; i++)
        list.pieces[i] = pieces[i];
    if (count > 0)
        CUDA_LAUNCH(copy_pieces_kernel, dim3(count, BLOCKS_PER_PIECE), dim3(THREADS), 0, stream,
                    list);
}

__global__ void feed_tokens_kernel(int32_t *const *dst, const int32_t *ids, const int32_t *rows,
                                   int32_t count)
{
    const int32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        *dst[i] = ids[rows[i]] > 0 ? ids[rows[i]] : 0;
}

extern "C" void cuda_launch_feed_tokens(int32_t *const *dst, const int32_t *ids,
                                        const int32_t *rows, int32_t count, cudaStream_t stream)
{
    if (count > 0)
        CUDA_LAUNCH(feed_tokens_kernel, dim3(blocks_for(count, THREADS)), dim3(THREADS), 0, stream,
                    dst, ids, rows, count);
}

__global__ void take_fault_kernel(struct cuda_fault *pinned, struct cuda_fault *fault)
{
    *pinned = *fault;
    fault->kind = CUDA_FAULT_NONE;
}

extern "C" void cuda_launch_take_fault(struct cuda_fault *pinned, struct cuda_fault *fault,
                                       cudaStream_t stream)
{
    CUDA_LAUNCH(take_fault_kernel, dim3(1), dim3(1), 0, stream, pinned, fault);
}
