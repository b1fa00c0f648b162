/* fuzz_gguf.c - any bytes as a GGUF file: its keys as a configuration, its tensors by their other
 * names, mapped onto the weights. Whatever is taken must lie inside of the bytes. */
#include "engine/model/gguf_arch.h"
#include "engine/model/hf_config.h"
#include "engine/model/tensor_map.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_message(const struct status *st)
{
    check(st->message[0] != '\0' && !strchr(st->message, '\n'));
}

static void check_tensors(const struct checkpoint *c, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < c->num_tensors; i++) {
        const struct checkpoint_tensor *t = &c->tensors[i];
        check(t->data >= data && t->size_bytes <= size &&
              (size_t)(t->data - data) <= size - t->size_bytes);
        check(checkpoint_find(c, t->name) == t);
    }
}

static volatile double touched; /* so that no read is left out */

/* Every element of every value is within what was read. */
static void touch_values(const struct gguf_metadata *m)
{
    double sum = 0;
    for (size_t i = 0; i < m->count; i++) {
        const struct gguf_value *v = &m->values[i];
        struct gguf_cursor at = v->data;
        bool strings = v->type == GGUF_ARRAY && v->element_type == GGUF_STRING;
        bool numbers = v->type == GGUF_ARRAY && !strings && v->element_type != GGUF_ARRAY;
        check(gguf_find(m, v->key) == v);
        for (uint64_t j = 0; strings && j < v->count; j++) {
            const char *text;
            size_t len;
            gguf_array_next_string(&at, &text, &len);
            sum += len > 0 ? text[len - 1] : 0;
        }
        if (numbers && v->count > 0)
            sum += gguf_array_float(v, v->count - 1);
    }
    touched = sum;
}

static bool describe(struct gguf *g, struct decoder_desc *desc, struct hf_config *hf,
                     struct status *st)
{
    const struct gguf_arch *arch = gguf_arch_find(g, st);
    json_t *config = arch ? gguf_config(g, arch, st) : NULL;
    bool ok = config && hf_config_read(config, desc, hf, st);
    json_decref(config);
    if (!ok)
        return false;
    gguf_arch_apply(arch, desc);
    json_decref(gguf_generation_config(g, st));
    return gguf_rename_tensors(g, arch, st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct decoder_desc desc;
    struct hf_config hf;
    struct tensor_map map;
    struct status st;
    struct gguf g = { .checkpoint = checkpoint_new() };
    const struct checkpoint_file *file =
        checkpoint_use_memory(g.checkpoint, "fuzz.gguf", data, size);
    if (gguf_read_file(g.checkpoint, file, &g.metadata, &st) &&
        checkpoint_seal(g.checkpoint, &st)) {
        check_tensors(g.checkpoint, data, size);
        touch_values(&g.metadata);
        if (!describe(&g, &desc, &hf, &st)) {
            check_message(&st);
        } else {
            check_tensors(g.checkpoint, data, size);
            if (tensor_map_make(hf.arch, &desc, g.checkpoint, NULL, &map, &st))
                tensor_map_free(&map);
            else
                check_message(&st);
        }
    } else {
        check_message(&st);
    }
    gguf_metadata_free(&g.metadata);
    checkpoint_close(g.checkpoint);
    return 0;
}
