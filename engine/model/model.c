/* model.c - opens a model's directory or GGUF file: configuration, then headers, then what goes
 * where. */
#include "engine/model/model.h"
#include "base/alloc.h"
#include "config/limits.h"
#include "engine/model/checkpoint.h"
#include "engine/model/gguf_arch.h"
#include "engine/model/hf_config.h"
#include "engine/model/json_file.h"
#include "engine/model/safetensors.h"
#include "kernels/quant/fp8.h"
#include "kernels/quant/int_group.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- what the path stands for ----------------------------------------------------------------- */

static bool is_in(const char *dir, const char *name)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n > 0 && (size_t)n < sizeof path && access(path, F_OK) == 0;
}

static bool check_load_format(const char *format, struct status *st)
{
    static const char *const known[] = { "auto", "safetensors", "gguf", "dummy" };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(format, known[i]) == 0)
            return true;
    return status_set(st, STATUS_INVALID,
                      "load format '%.40s' is unknown; use auto, safetensors, gguf or dummy",
                      format);
}

/* A directory that could be read as either is Hugging Face's, unless the option says otherwise. */
static bool wants_gguf(const char *dir, const char *format)
{
    if (strcmp(format, "auto") == 0)
        return !is_in(dir, "model.safetensors") && !is_in(dir, "model.safetensors.index.json");
    return strcmp(format, "gguf") == 0 ||
           (strcmp(format, "dummy") == 0 && !is_in(dir, "config.json"));
}

/* *gguf is the file to open, to be freed, or NULL for a directory in Hugging Face's layout. */
static bool find_files(const char *path, const char *format, char **gguf, struct status *st)
{
    struct stat info;
    *gguf = NULL;
    if (!check_load_format(format, st))
        return false;
    if (stat(path, &info) != 0)
        return status_set(st, STATUS_NOT_FOUND, "model '%.300s': %s", path, strerror(errno));
    if (gguf_is_file(path) && strcmp(format, "safetensors") != 0) {
        *gguf = xstrdup(path);
        return true;
    }
    if (!S_ISDIR(info.st_mode))
        return status_set(st, STATUS_INVALID,
                          "model '%.300s' is neither a directory nor a GGUF file; give the "
                          "directory that holds config.json, or a .gguf",
                          path);
    if (!wants_gguf(path, format) || gguf_find_in(path, gguf, st))
        return true;
    bool other = strcmp(format, "gguf") != 0 && st->code == STATUS_NOT_FOUND;
    if (other)
        status_clear(st); /* what is missing from Hugging Face's layout is said better later */
    return other;
}

static bool open_files(struct model *m, const char *load_format, struct status *st)
{
    char *gguf;
    if (!find_files(m->path, load_format, &gguf, st))
        return false;
    bool ok = !gguf || gguf_open(gguf, &m->gguf, st);
    free(gguf);
    return ok;
}

/* --- its description -------------------------------------------------------------------------- */

static bool read_config(struct model *m, struct hf_config *hf, struct status *st)
{
    const struct gguf_arch *arch = m->gguf ? gguf_arch_find(m->gguf, st) : NULL;
    if (m->gguf && !arch)
        return false;
    json_t *config = m->gguf ? gguf_config(m->gguf, arch, st)
                             : json_file_read(m->path, "config.json", LIMIT_MODEL_CONFIG_BYTES, st);
    if (!config)
        return false;
    bool ok = hf_config_read(config, &m->desc, hf, st) && quant_config_read(config, &m->quant, st);
    json_decref(config);
    m->arch = hf->arch;
    if (!m->gguf)
        return ok;
    if (!ok)
        return status_prefix(st, "%s: its keys as a ", m->gguf->metadata.file);
    gguf_arch_apply(arch, &m->desc);
    return gguf_rename_tensors(m->gguf, arch, st);
}

/* The file is optional; one that is there must be right. */
static bool read_generation_config(struct model *m, struct status *st)
{
    sampling_params_defaults(&m->generation_defaults);
    json_t *generation =
        m->gguf ? gguf_generation_config(m->gguf, st)
                : json_file_read(m->path, "generation_config.json", LIMIT_MODEL_CONFIG_BYTES, st);
    if (!generation) {
        bool absent = !m->gguf && st->code == STATUS_NOT_FOUND;
        if (absent)
            status_clear(st);
        return absent;
    }
    bool ok = hf_generation_config_read(generation, &m->desc, &m->generation_defaults,
                                        &m->generation_max_new_tokens, st);
    json_decref(generation);
    return ok || (m->gguf && status_prefix(st, "%s: its keys as a ", m->gguf->metadata.file));
}

static bool open_checkpoint(struct model *m, const char *load_format, struct status *st)
{
    if (strcmp(load_format, "dummy") == 0)
        return !m->quant ||
               status_set(st, STATUS_UNSUPPORTED,
                          "config.json: quantization_config: dummy weights are floats; take it "
                          "out, and see --quantization");
    if (m->gguf)
        m->checkpoint = m->gguf->checkpoint;
    else if (!safetensors_open(m->path, &m->checkpoint, st))
        return false;
    return tensor_map_make(m->arch, &m->desc, m->checkpoint, m->quant, &m->tensors, st);
}

/* A config.json that names no dtype leaves it to the tensors; the embedding speaks for all. Where
 * that one is quantized, float16 is enough for what is not, and for the KV cache. */
static void dtype_from_tensors(struct model *m)
{
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct checkpoint_type *type = m->tensors.entries[i].tensor->type;
        if (m->tensors.entries[i].slot == W_EMBEDDING)
            m->desc.checkpoint_dtype = type->is_float ? type->dtype : DTYPE_F16;
    }
}

static bool choose_format(struct model *m, const char *dtype_option, struct status *st)
{
    enum dtype dtype = m->desc.checkpoint_dtype;
    if (strcmp(dtype_option, "auto") != 0 &&
        (!dtype_parse(dtype_option, &dtype) || dtype == DTYPE_I32))
        return status_set(st, STATUS_INVALID,
                          "dtype '%.40s' is unknown; use auto, float32, bfloat16 or float16",
                          dtype_option);
    m->weight_format = quant_format_of_dtype(dtype);
    m->keep_formats = m->gguf && strcmp(dtype_option, "auto") == 0;
    return m->weight_format ||
           status_set(st, STATUS_UNSUPPORTED, "there is no weight format for dtype %s",
                      dtype_name(dtype));
}

/* tests/bench/README.md has the perplexities that chose them. */
static bool choose_load_quant(struct model *m, const char *name, struct status *st)
{
    struct quant_format f;
    if (!name || strcmp(name, "none") == 0)
        return true;
    if (strcmp(name, "fp8") == 0)
        f = fp8_format(32, DTYPE_F16);
    else if (strcmp(name, "int8") == 0)
        f = int_group_format(&(struct int_group_params){ 8, 128, QUANT_OFFSET_MIDDLE, DTYPE_F16 });
    else if (strcmp(name, "int4") == 0)
        f = int_group_format(&(struct int_group_params){ 4, 32, QUANT_OFFSET_MIN, DTYPE_F16 });
    else
        return status_set(st, STATUS_INVALID,
                          "quantization '%.40s' is unknown; use none, fp8, int8 or int4", name);
    m->load_quant = quant_format_intern(&m->formats, &f);
    return true;
}

bool model_open(const struct model_options *options, struct model **out, struct status *st)
{
    struct hf_config hf = { 0 };
    struct model *m = xcalloc(1, sizeof *m);
    m->path = xstrdup(options->path);
    if (options->packed_weights_cache)
        m->packed_weights_cache = xstrdup(options->packed_weights_cache);
    bool ok = open_files(m, options->load_format, st) && read_config(m, &hf, st) &&
              read_generation_config(m, st) && open_checkpoint(m, options->load_format, st);
    if (ok && !hf.has_dtype)
        dtype_from_tensors(m);
    m->generation_defaults.eos_token_ids = m->desc.eos_token_ids;
    m->generation_defaults.num_eos_token_ids = m->desc.num_eos_token_ids;
    model_set_max_len(m, model_max_len(&m->desc));
    if (!ok || !choose_format(m, options->dtype, st) ||
        !choose_load_quant(m, options->quantization, st)) {
        model_close(m);
        return false;
    }
    *out = m;
    return true;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    tensor_map_free(&m->tensors);
    quant_config_free(m->quant);
    quant_format_set_free(&m->formats);
    if (m->gguf)
        gguf_close(m->gguf); /* its checkpoint too */
    else
        checkpoint_close(m->checkpoint);
    free(m->packed_weights_cache);
    free(m->path);
    free(m);
}

bool model_add_eos(struct model *m, int32_t id, struct status *st)
{
    struct decoder_desc *desc = &m->desc;
    for (int32_t i = 0; i < desc->num_eos_token_ids; i++)
        if (desc->eos_token_ids[i] == id)
            return true;
    if (id < 0 || id >= desc->vocab_size || desc->num_eos_token_ids == MAX_EOS_IDS)
        return status_set(
            st, STATUS_INVALID,
            "token %d cannot end an answer: ids go up to %d, and there can be %d ends", id,
            desc->vocab_size - 1, MAX_EOS_IDS);
    desc->eos_token_ids[desc->num_eos_token_ids++] = id;
    m->generation_defaults.num_eos_token_ids = desc->num_eos_token_ids;
    return true;
}

int64_t model_num_parameters(const struct model *m)
{
    int64_t total = 0;
    for (int slot = W_EMBEDDING; slot < NUM_WEIGHT_SLOTS; slot++) {
        struct weight_shape s = weight_slot_shape(&m->desc, (enum weight_slot)slot);
        int64_t bias = s.has_bias ? (s.is_vector ? s.cols : s.rows) : 0;
        int64_t one = s.present ? ((int64_t)s.rows * s.cols + bias) * s.num_experts : 0;
        int32_t layers =
            weight_slot_is_per_layer((enum weight_slot)slot) ? m->desc.num_hidden_layers : 1;
        for (int32_t layer = 0; layer < layers; layer++)
            total += weight_slot_in_layer(&m->desc, (enum weight_slot)slot, layer) ? one : 0;
    }
    return total;
}

int32_t model_max_len(const struct decoder_desc *desc)
{
    const struct rope_desc *rope = &desc->rope;
    double len = desc->max_position_embeddings;
    if (rope->type == ROPE_LINEAR || rope->type == ROPE_DYNAMIC)
        len *= rope->factor;
    if (rope->type == ROPE_YARN)
        len = rope->original_max_position_embeddings * rope->factor;
    return len < LIMIT_MODEL_LEN ? (int32_t)len : LIMIT_MODEL_LEN;
}

void model_set_max_len(struct model *m, int32_t max_len)
{
    m->desc.rope.max_len = m->desc.sliding_rope.max_len = max_len;
}
