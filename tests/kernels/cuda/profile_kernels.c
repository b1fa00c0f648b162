/* profile_kernels.c - runs the hot kernels once each, in shapes of models, for `make emu-profile`.
 */
#include "tests/kernels/cuda/attention_fixture.h"

#include "kernels/quant/fp8.h"
#include "kernels/quant/ggml_formats.h"
#include "kernels/quant/int_group.h"

enum { IN = 1024, OUT = 256 };

static const struct workspace_desc workspace = { .max_num_tokens = MAX_TOKENS,
                                                 .max_num_seqs = MAX_PARTS,
                                                 .max_logits_rows = 1,
                                                 .max_model_len = MAX_LEN,
                                                 .block_size = 16,
                                                 .max_in_features = IN,
                                                 .max_out_features = OUT,
                                                 .num_heads = 80,
                                                 .num_kv_heads = 2,
                                                 .head_dim = 576,
                                                 .latent_dim = 512,
                                                 .vocab_size = 16 };

/* The values do not matter. */
static void run_linear(const struct quant_format *format, int32_t rows)
{
    struct status st;
    struct linear l = { .out_features = OUT, .in_features = IN, .format = format };
    const struct tensor x = { random_floats((size_t)rows * IN, 1), DTYPE_F32, rows, IN, IN };
    const struct tensor out = { random_floats((size_t)rows * OUT, 1), DTYPE_F32, rows, OUT, OUT };
    if (!gpu.ops->linear_plan(gpu.device, &l, &st))
        gpu_fail("linear_plan", &st);
    l.packed = gpu_new(&gpu, l.packed_bytes);
    void *weights = calloc(OUT, quant_row_bytes(format, IN));
    gpu.ops->linear_pack(gpu.device, &l, 0, OUT, weights, format);
    struct tensor x_at = gpu_tensor(&gpu, &x), out_at = gpu_tensor(&gpu, &out);
    gpu.ops->linear(gpu.device, &out_at, &x_at, &l);
    gpu_sync(&gpu);
    gpu_release(&gpu);
    free(weights);
    free(x.data);
    free(out.data);
}

static void linears(void)
{
    const struct quant_format int4 =
        int_group_format(&(struct int_group_params){ 4, 128, QUANT_OFFSET_MIN, DTYPE_BF16 });
    const struct quant_format fp8 = fp8_format(0, DTYPE_BF16);
    const struct quant_format *const formats[] = { quant_format_of_dtype(DTYPE_BF16), &int4, &fp8,
                                                   &quant_format_q8_0, &quant_format_q4_k };
    static const int32_t rows[] = { 1, 16, 128 };
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            run_linear(formats[f], rows[i]);
}

static void run_layer(const struct layer *l, int32_t len, int32_t queries)
{
    struct sequence s = random_sequence(l, len);
    struct part part = new_part(&s, len - queries, len);
    run_gpu(l, &part, 1);
    free(part.out.data);
    free_sequence(&s);
}

static void attention(void)
{
    static const int32_t head_dims[] = { 64, 128, 256 };
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F8_E4M3 };
    for (size_t d = 0; d < sizeof head_dims / sizeof head_dims[0]; d++)
        for (size_t t = 0; t < sizeof dtypes / sizeof dtypes[0]; t++) {
            struct layer l = { .dtype = dtypes[t], .block_size = 16 };
            l.params = (struct attention_params){
                .num_heads = 8, .num_kv_heads = 2, .head_dim = head_dims[d], .scale = 0.1f
            };
            run_layer(&l, 160, 128);
            run_layer(&l, 512, 1);
        }
}

static void latent_attention(void)
{
    struct layer l = { .dtype = DTYPE_BF16, .block_size = 16 };
    l.params = (struct attention_params){
        .num_heads = 16, .num_kv_heads = 1, .head_dim = 576, .value_head_dim = 512, .scale = 0.1f
    };
    run_layer(&l, 64, 32);
    run_layer(&l, 256, 1);
}

int main(void)
{
    fixture_start();
    gpu_open(&gpu, &workspace);
    linears();
    attention();
    latent_attention();
    gpu_close(&gpu);
    return 0;
}
