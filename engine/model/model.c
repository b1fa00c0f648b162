/* model.c - opens a model's directory: configuration, then headers, then what goes where. */
#include "engine/model/model.h"
#include "base/alloc.h"
#include "config/limits.h"
#include "engine/model/checkpoint.h"
#include "engine/model/hf_config.h"
#include "engine/model/json_file.h"
#include "engine/model/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool check_directory(const char *path, struct status *st)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return status_set(st, STATUS_NOT_FOUND, "model '%.300s': %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return status_set(st, STATUS_INVALID,
                          "model '%.300s' is not a directory; give the one that holds config.json",
                          path);
    return true;
}

static bool read_config(struct model *m, struct hf_config *hf, struct status *st)
{
    json_t *config = json_file_read(m->path, "config.json", LIMIT_MODEL_CONFIG_BYTES, st);
    if (!config)
        return false;
    bool ok = hf_config_read(config, &m->desc, hf, st);
    json_decref(config);
    m->arch = hf->arch;
    return ok;
}

/* The file is optional; one that is there must be right. */
static bool read_generation_config(struct model *m, struct status *st)
{
    sampling_params_defaults(&m->generation_defaults);
    json_t *generation =
        json_file_read(m->path, "generation_config.json", LIMIT_MODEL_CONFIG_BYTES, st);
    if (!generation) {
        bool absent = st->code == STATUS_NOT_FOUND;
        if (absent)
            status_clear(st);
        return absent;
    }
    bool ok = hf_generation_config_read(generation, &m->desc, &m->generation_defaults,
                                        &m->generation_max_new_tokens, st);
    json_decref(generation);
    return ok;
}

static bool open_checkpoint(struct model *m, const char *load_format, struct status *st)
{
    if (strcmp(load_format, "dummy") == 0)
        return true;
    if (strcmp(load_format, "auto") != 0 && strcmp(load_format, "safetensors") != 0)
        return status_set(st, STATUS_INVALID,
                          "load format '%.40s' is unknown; use auto, safetensors or dummy",
                          load_format);
    return safetensors_open(m->path, &m->checkpoint, st) &&
           tensor_map_make(m->arch, &m->desc, m->checkpoint, &m->tensors, st);
}

/* A config.json that names no dtype leaves it to the tensors; the embedding speaks for all. */
static void dtype_from_tensors(struct model *m)
{
    for (size_t i = 0; i < m->tensors.count; i++)
        if (m->tensors.entries[i].slot == W_EMBEDDING)
            m->desc.checkpoint_dtype = m->tensors.entries[i].tensor->type->dtype;
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
    return m->weight_format ||
           status_set(st, STATUS_UNSUPPORTED, "there is no weight format for dtype %s",
                      dtype_name(dtype));
}

bool model_open(const struct model_options *options, struct model **out, struct status *st)
{
    struct hf_config hf = { 0 };
    struct model *m = xcalloc(1, sizeof *m);
    m->path = xstrdup(options->path);
    bool ok = check_directory(m->path, st) && read_config(m, &hf, st) &&
              read_generation_config(m, st) && open_checkpoint(m, options->load_format, st);
    if (ok && !hf.has_dtype)
        dtype_from_tensors(m);
    model_set_max_len(m, model_max_len(&m->desc));
    if (!ok || !choose_format(m, options->dtype, st)) {
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
    checkpoint_close(m->checkpoint);
    free(m->path);
    free(m);
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
