/* fuzz_quant.c - a quantization_config, a zero byte, and a .safetensors file of a tiny Llama: what
 * is taken must read and dequantize within its bounds, and what is not must say why. */
#include "engine/model/hf_config.h"
#include "engine/model/json_file.h"
#include "engine/model/safetensors.h"
#include "engine/model/tensor_map.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The sizes of make_quant_goldens.py --corpus. */
static const char config_text[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":32,\"intermediate_size\":32,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":8,"
    "\"tie_word_embeddings\":true,\"max_position_embeddings\":64}";

static void must_say(const struct status *st)
{
    if (st->message[0] == '\0' || strchr(st->message, '\n'))
        abort();
}

static void read_source(const struct quant_source *s)
{
    struct status st = { 0 };
    size_t row_bytes = quant_row_bytes(s->format, s->cols);
    int32_t order[32];
    if (s->rows > 32 || s->cols > 32 || s->rows < 1 || s->cols < 1)
        abort();
    if ((s->scheme->layout->check_values && !s->scheme->layout->check_values(s, &st)) ||
        (s->has_order && !quant_source_order(s, order, &st))) {
        must_say(&st);
        return;
    }
    unsigned char *rows = malloc((size_t)s->rows * row_bytes);
    float *values = malloc((size_t)s->cols * sizeof *values);
    s->scheme->layout->read_rows(s, rows, 0, s->rows, 1);
    for (int32_t r = 0; r < s->rows; r++)
        s->format->dequantize(s->format, values, rows + (size_t)r * row_bytes, 0, s->cols);
    free(values);
    free(rows);
}

static void map_tensors(const json_t *config, const uint8_t *file, size_t size,
                        struct quant_config *quant)
{
    struct status st = { 0 };
    struct hf_config hf;
    static struct decoder_desc desc;
    struct tensor_map map = { 0 };
    struct checkpoint *c = checkpoint_new();
    const struct checkpoint_file *mapped = checkpoint_use_memory(c, "x", file, size);
    if (!hf_config_read(config, &desc, &hf, &st))
        abort();
    if (!safetensors_read_header(c, mapped, &st) || !checkpoint_seal(c, &st) ||
        !tensor_map_make(hf.arch, &desc, c, quant, &map, &st))
        must_say(&st);
    else
        for (size_t i = 0; i < map.count; i++)
            if (map.entries[i].quant)
                read_source(map.entries[i].quant);
    tensor_map_free(&map);
    checkpoint_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct status st = { 0 };
    struct quant_config *quant = NULL;
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    if (!end)
        return 0;
    json_t *value = json_loadb((const char *)data, (size_t)(end - data), JSON_DECODE_ANY, NULL);
    json_t *config = json_loads(config_text, 0, NULL);
    json_object_set_new(config, "quantization_config", value ? value : json_null());
    if (!quant_config_read(config, &quant, &st))
        must_say(&st);
    else
        map_tensors(config, end + 1, size - (size_t)(end + 1 - data), quant);
    quant_config_free(quant);
    json_decref(config);
    return 0;
}
