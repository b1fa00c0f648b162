/* fuzz_quant.c - a quantization_config, a zero byte, and a .safetensors file, read as each of some
 * tiny models: what is taken must read and dequantize within its bounds, and load, whole and as the
 * shares of two ranks; and what is not must say why. */
#include "engine/model/hf_config.h"
#include "engine/model/safetensors.h"
#include "engine/model/tensor_parallel.h"
#include "engine/model/weights.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The sizes of make_quant_goldens.py --corpus. */
enum { MAX_SIZE = 128, RANKS = 2 };

#define SIZES                                                                                      \
    "\"hidden_size\":32,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"vocab_size\":8,"       \
    "\"max_position_embeddings\":128,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\","

static const char *const configs[] = {
    "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES
    "\"intermediate_size\":32,\"num_key_value_heads\":1,\"tie_word_embeddings\":true}",
    /* One expert after another. */
    "{\"architectures\":[\"Qwen3MoeForCausalLM\"]," SIZES
    "\"intermediate_size\":32,\"num_key_value_heads\":1,\"head_dim\":16,"
    "\"tie_word_embeddings\":true,\"num_experts\":2,\"num_experts_per_tok\":1,"
    "\"moe_intermediate_size\":32,\"norm_topk_prob\":true}",
    /* Stacks of experts, whose rows two ranks can share. */
    "{\"architectures\":[\"GptOssForCausalLM\"]," SIZES
    "\"intermediate_size\":64,\"num_key_value_heads\":1,\"head_dim\":16,"
    "\"tie_word_embeddings\":false,\"num_local_experts\":3,\"num_experts_per_tok\":2,"
    "\"sliding_window\":13,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
    "\"original_max_position_embeddings\":32}}",
    /* Latent attention, whose kv_b_proj is cut into heads and turned, and routed experts. */
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"]," SIZES
    "\"intermediate_size\":32,\"num_key_value_heads\":2,\"tie_word_embeddings\":true,"
    "\"q_lora_rank\":32,\"kv_lora_rank\":32,\"qk_nope_head_dim\":16,\"qk_rope_head_dim\":16,"
    "\"v_head_dim\":16,\"first_k_dense_replace\":0,\"n_routed_experts\":2,\"n_shared_experts\":1,"
    "\"num_experts_per_tok\":1,\"n_group\":1,\"topk_group\":1,\"moe_intermediate_size\":32,"
    "\"routed_scaling_factor\":1.0,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","
    "\"norm_topk_prob\":true}",
};

enum { NUM_CONFIGS = sizeof configs / sizeof configs[0] };

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void must_say(const struct status *st)
{
    check(st->message[0] != '\0' && !strchr(st->message, '\n'));
}

/* Loading gives the pages of a file back as it goes; those of the input are no file's. */
int madvise(void *begin, size_t size, int advice)
{
    (void)begin;
    (void)size;
    (void)advice;
    return 0;
}

/* --- one matrix, or a stack of them ----------------------------------------------------------- */

/* False where its values are refused. */
static bool read_source(const struct quant_source *s)
{
    struct status st = { 0 };
    size_t row_bytes = quant_row_bytes(s->format, s->cols);
    int32_t order[MAX_SIZE], num_rows = s->stack_size * s->rows;
    check(s->rows >= 1 && s->rows <= MAX_SIZE && s->cols >= 1 && s->cols <= MAX_SIZE);
    check(s->stack_size >= 1 && s->stack_size <= 3);
    if ((s->scheme->layout->check_values && !s->scheme->layout->check_values(s, &st)) ||
        (s->has_order && !quant_source_order(s, order, &st))) {
        must_say(&st);
        return false;
    }
    unsigned char *rows = malloc((size_t)num_rows * row_bytes);
    float *values = malloc((size_t)s->cols * sizeof *values);
    s->scheme->layout->read_rows(s, rows, 0, num_rows, 1);
    for (int32_t r = 0; r < num_rows; r++)
        s->format->dequantize(s->format, values, rows + (size_t)r * row_bytes, 0, s->cols);
    free(values);
    free(rows);
    return true;
}

static bool read_sources(const struct tensor_map *map)
{
    const struct quant_source *last = NULL;
    for (size_t i = 0; i < map->count; i++) {
        const struct quant_source *s = map->entries[i].quant;
        if (s && s != last && !read_source(s))
            return false;
        last = s ? s : last;
    }
    return true;
}

/* --- all of it on a device -------------------------------------------------------------------- */

/* Returns whether it loads. The device and the ranks last as long as the program. */
static bool load(const struct model *m, int32_t rank, int32_t size)
{
    static struct device *device;
    static struct comm *self, *ranks[RANKS];
    struct device_options options = { .num_threads = 1 };
    struct status st = { 0 };
    struct weights *w;
    struct weights_size planned;
    if (!device) {
        check(backend_cpu.open(&device, &options, &st) && comm_local_open(ranks, RANKS, &st));
        self = comm_self_open();
    }
    if (!weights_plan(m, device, &planned, &st) ||
        !weights_load(m, device, size == 1 ? self : ranks[rank], NULL, NULL, &w, &st)) {
        must_say(&st);
        return false;
    }
    check(w->size.bytes == planned.bytes);
    weights_free(w, device);
    return true;
}

static void load_all(const struct model *m)
{
    struct status st = { 0 };
    if (!load(m, 0, 1))
        return;
    if (!tensor_parallel_check(m, RANKS, &st)) {
        must_say(&st);
        return;
    }
    for (int32_t rank = 0; rank < RANKS; rank++) {
        struct model *share = tensor_parallel_share(m, rank, RANKS);
        check(load(share, rank, RANKS));
        tensor_parallel_share_free(share);
    }
}

/* What does not depend on the input. */
static const struct model *empty_model(size_t index)
{
    static struct model models[NUM_CONFIGS];
    struct model *m = &models[index];
    struct status st = { 0 };
    struct hf_config hf = { 0 };
    if (!m->arch) {
        json_t *config = json_loads(configs[index], 0, NULL);
        check(hf_config_read(config, &m->desc, &hf, &st));
        m->arch = hf.arch;
        m->weight_format = &quant_format_bfloat16;
        model_set_max_len(m, model_max_len(&m->desc));
        json_decref(config);
    }
    return m;
}

static void read_model(const struct model *empty, const json_t *config, struct checkpoint *c)
{
    static struct model m;
    struct status st = { 0 };
    m = *empty;
    m.checkpoint = c;
    if (!quant_config_read(config, &m.quant, &st) ||
        !tensor_map_make(m.arch, &m.desc, c, m.quant, &m.tensors, &st))
        must_say(&st);
    else if (read_sources(&m.tensors))
        load_all(&m);
    tensor_map_free(&m.tensors);
    quant_config_free(m.quant);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct status st = { 0 };
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    if (!end)
        return 0;
    json_t *value = json_loadb((const char *)data, (size_t)(end - data), JSON_DECODE_ANY, NULL);
    json_t *config = json_pack("{s:o}", "quantization_config", value ? value : json_null());
    struct checkpoint *c = checkpoint_new();
    const struct checkpoint_file *file =
        checkpoint_use_memory(c, "x", end + 1, size - (size_t)(end + 1 - data));
    if (!safetensors_read_header(c, file, &st) || !checkpoint_seal(c, &st))
        must_say(&st);
    else
        for (size_t i = 0; i < NUM_CONFIGS; i++)
            read_model(empty_model(i), config, c);
    checkpoint_close(c);
    json_decref(config);
    return 0;
}
