/* product_tile.cuh - which rows of which product a block computes. */
#ifndef INFERD_KERNELS_CUDA_PRODUCT_TILE_CUH
#define INFERD_KERNELS_CUDA_PRODUCT_TILE_CUH

#include "kernels/cuda/common.cuh"

/* Blocks that follow one another (along x) share weights, which are the larger part. */
static inline int32_t num_tiles(const struct cuda_product *p)
{
    const int32_t products = p->group.num_products > 0 ? p->group.num_products : 1;
    return p->group.tiles ? p->group.max_tiles : products * blocks_for(p->rows, p->tile_rows);
}

/* Makes p the tile's product, with `rows` the end of its rows; the first of the tile's rows, or -1
 * where there is no such tile. */
__device__ __forceinline__ int32_t take_tile(struct cuda_product *p, int32_t tile)
{
    const struct cuda_group &group = p->group;
    if (group.num_products == 0)
        return tile * p->tile_rows;
    int32_t product, row;
    if (group.tiles) {
        if (tile >= *group.num_tiles)
            return -1;
        product = group.tiles[tile].product;
        row = group.tiles[tile].row;
        p->rows = group.begin[product + 1];
    } else {
        const int32_t tiles = (p->rows + p->tile_rows - 1) / p->tile_rows;
        const int64_t x_bytes = (int64_t)p->rows * p->weight.stride *
                                (p->weight.dtype == DTYPE_F32 ? sizeof(float) : sizeof(uint16_t));
        product = tile / tiles;
        row = tile % tiles * p->tile_rows;
        p->x = (const char *)p->x + product * x_bytes;
    }
    p->weight.data = (const char *)p->weight.data + product * group.weight_bytes;
    p->out += product * group.out_floats;
    if (p->bias)
        p->bias += product * group.bias_floats;
    return row;
}

#endif
