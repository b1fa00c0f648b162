/* moe_cuda.c - a mixture of experts on the GPU: the turns, and the launches of each.
 *
 * The router's choice, the sorting by expert and the tiles of the products are device data: nothing
 * comes back to the host, and grids are sized by upper bounds. A product's tile holds rows of one
 * expert, and any linear kernel that takes tiles (struct cuda_group) runs experts. */
#include "kernels/cuda/cuda_device.h"

#include <assert.h>
#include <stddef.h>

/* From one linear to the next, in bytes; 0 where there is one only, or no such memory. False where
 * they do not lie the same distance apart. */
static bool distance(const struct linear *l, int32_t count, size_t member, int64_t *out)
{
    const char *first = NULL;
    *out = 0;
    for (int32_t i = 0; i < count; i++) {
        const char *at = *(const char *const *)((const char *)&l[i] + member);
        if (i == 0)
            first = at;
        if (i == 1)
            *out = at - first;
        if ((at == NULL) != (first == NULL) || (at && at - first != i * *out))
            return false;
    }
    return true;
}

struct distances {
    int64_t weights, biases, orders; /* bytes */
};

static bool find_distances(const struct linear *l, int32_t count, struct distances *out)
{
    return distance(l, count, offsetof(struct linear, packed), &out->weights) &&
           distance(l, count, offsetof(struct linear, bias), &out->biases) &&
           distance(l, count, offsetof(struct linear, input_order), &out->orders);
}

static void check(const struct cuda_device *d, const struct tensor *out, const struct tensor *x,
                  const struct tensor *logits, const struct moe *moe)
{
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32 && logits->dtype == DTYPE_F32);
    assert(out->rows == x->rows && logits->rows == x->rows && logits->cols == moe->num_experts);
    assert(moe->num_experts <= MOE_MAX_EXPERTS && moe->num_experts <= d->limits.num_experts);
    assert(moe->num_experts_per_tok >= 1 && moe->num_experts_per_tok <= moe->num_experts);
    assert(moe->num_experts_per_tok <= d->limits.num_experts_per_tok);
    assert(moe->num_groups <= 1 || moe->num_experts % moe->num_groups == 0);
    assert(x->cols == moe->gate_up->in_features && out->cols == moe->down->out_features);
    assert(!moe->gate_up->next && !moe->down->next);
    assert(moe->gate_up->out_features == 2 * moe->down->in_features);
    assert(x->cols <= d->limits.moe_hidden_size &&
           moe->down->in_features <= d->limits.moe_intermediate_size);
}

static struct cuda_moe_turn turn_at(char *base, const struct cuda_moe_parts *p,
                                    const struct moe *moe)
{
    return (struct cuda_moe_turn){ .num_experts = moe->num_experts,
                                   .top_k = moe->num_experts_per_tok,
                                   .ids = (int32_t *)(base + p->ids),
                                   .places = (int32_t *)(base + p->places),
                                   .pairs = (int32_t *)(base + p->pairs),
                                   .counts = (int32_t *)(base + p->counts),
                                   .begin = (int32_t *)(base + p->begin),
                                   .num_tiles = (int32_t *)(base + p->num_tiles),
                                   .weights = (float *)(base + p->weights),
                                   .tiles = (struct cuda_tile *)(base + p->tiles) };
}

/* Every expert's linear with its rows. */
static void run_round(struct cuda_device *d, const struct cuda_moe_turn *t,
                      const struct linear *experts, const struct distances *apart, const void *x,
                      float *out)
{
    const int32_t pairs = t->num_tokens * t->top_k, r = t->tile_rows;
    const int32_t with_rows = t->num_experts < pairs ? t->num_experts : pairs;
    /* Full tiles, and one that is not for each expert. */
    const int32_t most = pairs / r + with_rows;
    struct cuda_product p = { .weight = cuda_matrix_of(experts),
                              .x = x,
                              .bias = experts->bias,
                              .out = out,
                              .out_stride = experts->out_features,
                              .rows = pairs,
                              .tile_rows = r,
                              .group = { .num_products = t->num_experts,
                                         .weight_bytes = apart->weights,
                                         .bias_floats = apart->biases / (int64_t)sizeof(float),
                                         .begin = t->begin,
                                         .num_tiles = t->num_tiles,
                                         .tiles = t->tiles,
                                         .max_tiles = most < pairs ? most : pairs } };
    experts->kernel->run(&p, d->stream);
}

static struct tensor rows_of(const struct tensor *t, int32_t begin, int32_t count)
{
    struct tensor view = *t;
    view.data = (float *)t->data + begin * t->stride;
    view.rows = count;
    return view;
}

void cuda_moe(struct device *device, struct tensor *out, const struct tensor *x,
              const struct tensor *router_logits, const struct moe *moe)
{
    struct cuda_device *d = cuda_device_of(device);
    const struct cuda_moe_parts p = cuda_moe_parts(&d->limits);
    const struct cuda_matrix gate_up = cuda_matrix_of(moe->gate_up),
                             down = cuda_matrix_of(moe->down);
    struct cuda_moe_turn t = turn_at(d->moe, &p, moe);
    struct distances gate_up_apart, down_apart;
    void *outer = d->moe + p.outer, *activated = d->moe + p.activated;
    float *inner = (float *)(d->moe + p.inner);
    const int32_t at_once = p.max_pairs / t.top_k;
    check(d, out, x, router_logits, moe);
    if (!find_distances(moe->gate_up, moe->num_experts, &gate_up_apart) ||
        !find_distances(moe->down, moe->num_experts, &down_apart)) {
        if (device->error.code == STATUS_OK)
            status_set(&device->error, STATUS_UNSUPPORTED,
                       "the cuda backend has no experts of which some have desc_act only");
        return;
    }
    for (int32_t row = 0; row < x->rows; row += at_once) {
        t.num_tokens = x->rows - row < at_once ? x->rows - row : at_once;
        const int32_t pairs = t.num_tokens * t.top_k;
        /* The rows of an expert that has some: no more than there are tokens. */
        const int32_t mean = pairs / t.num_experts + 1;
        t.tile_rows = cuda_tile_rows(gate_up.dtype, mean);
        const struct tensor x_rows = rows_of(x, row, t.num_tokens);
        const struct tensor out_rows = rows_of(out, row, t.num_tokens);
        const struct tensor logits = rows_of(router_logits, row, t.num_tokens);
        cuda_launch_moe_route(&t, &logits, moe, d->stream);
        cuda_launch_moe_sort(&t, d->stream);
        cuda_launch_moe_gather(outer, &x_rows, &t, &gate_up, moe->gate_up->input_order,
                               gate_up_apart.orders / (int64_t)sizeof(int32_t), d->stream);
        run_round(d, &t, moe->gate_up, &gate_up_apart, outer, inner);
        cuda_launch_moe_activate(activated, inner, (int32_t)moe->act, &t, &down,
                                 moe->down->input_order,
                                 down_apart.orders / (int64_t)sizeof(int32_t), d->stream);
        run_round(d, &t, moe->down, &down_apart, activated, outer);
        cuda_launch_moe_combine(&out_rows, outer, out->cols, &t, d->stream);
    }
    cuda_check(d, cudaGetLastError(), "moe");
}
