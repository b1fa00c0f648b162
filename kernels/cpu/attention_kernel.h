/* attention_kernel.h - what a row of attention's table does: some query rows of one kv head
 * against one partition of the context. Private to kernels/cpu.
 *
 * The arithmetic of a query row is fixed by positions alone. The context is cut into partitions of
 * 512 positions, each into tiles of 64, at multiples of those. Within a partition the softmax is
 * computed online, tile by tile (Milakov and Gimelshein, 2018; Dao et al., 2022); attention.c then
 * merges the partitions in rising order, whoever computed them. Positions that a row may not see
 * enter none of its sums, since what lies there may be anything. */
#ifndef INFERD_KERNELS_CPU_ATTENTION_KERNEL_H
#define INFERD_KERNELS_CPU_ATTENTION_KERNEL_H

#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/kv_layout.h"

enum {
    ATTENTION_PARTITION = 512,
    ATTENTION_TILE = 64,
    /* Rows of a work item: enough to use each widened K and V element many times. */
    ATTENTION_MAX_ROWS = 128,
    ATTENTION_ROW_BLOCK = 8 /* rows of q lie interleaved in blocks of this many */
};

/* Rows are padded to whole row blocks with copies of the last one; kernels may compute padding
 * rows or not. */
struct attention_tile {
    const struct kv_layer *kv;
    const int32_t *block_table;
    int32_t kv_head, num_rows;
    int32_t head_dim;              /* of K */
    int32_t value_dim, padded_dim; /* of V, and to a multiple of 16 */
    float softcap;                 /* 0: off */
    const int32_t *begin, *end;    /* [padded rows] the positions each row sees; both never fall */
    /* [row blocks, head_dim, ATTENTION_ROW_BLOCK] times the scale and the layer's factor for K */
    const float *q;
    /* Scratch of the calling thread. */
    float *k_tile;              /* [head_dim, ATTENTION_TILE] */
    float *v_tile;              /* [ATTENTION_TILE, padded_dim] */
    float *scores;              /* [padded rows, ATTENTION_TILE] */
    float *k_scales, *v_scales; /* [ATTENTION_TILE] each; int8: of the tile's tokens */
    /* Results for the partition: the greatest score, the sum of exp(score - max), and the sum of
     * exp(score - max) V; -inf, 0 and 0 where the row sees none of its positions. */
    float *max, *sum; /* [padded rows] */
    float *out;       /* [padded rows, padded_dim] without the layer's factor for V */
};

struct attention_kernel {
    enum cpu_isa needs;
    /* Positions [begin, end) lie within one partition, begin at its first position. */
    void (*partition)(const struct attention_tile *t, int32_t begin, int32_t end);
};

extern const struct attention_kernel attention_kernel_avx2, attention_kernel_avx512;

#endif
