/* products_device.h - devices for tests of products: a workspace that holds them, the rest of it as
 * small as can be, and the CPU with one. Include after cmocka.h. */
#ifndef INFERD_TESTS_KERNELS_PRODUCTS_DEVICE_H
#define INFERD_TESTS_KERNELS_PRODUCTS_DEVICE_H

#include "kernels/backend.h"

static inline struct workspace_desc products_workspace(int32_t max_rows, int32_t max_in,
                                                       int32_t max_out)
{
    return (struct workspace_desc){ .max_num_tokens = max_rows,
                                    .max_num_seqs = 1,
                                    .max_logits_rows = 1,
                                    .max_model_len = 16,
                                    .block_size = 16,
                                    .max_in_features = max_in,
                                    .max_out_features = max_out,
                                    .num_heads = 1,
                                    .num_kv_heads = 1,
                                    .head_dim = 64,
                                    .vocab_size = 32 };
}

static inline struct device *open_products_device(const char *isa, int32_t num_threads,
                                                  const struct workspace_desc *w)
{
    struct device *d = NULL;
    struct status st = { 0 };
    struct device_options options = { .isa = isa, .num_threads = num_threads };
    if (!backend_cpu.open(&d, &options, &st) || !d->backend->reserve_workspace(d, w, &st))
        fail_msg("%s", st.message);
    return d;
}

#endif
