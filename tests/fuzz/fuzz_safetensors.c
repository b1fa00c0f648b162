/* fuzz_safetensors.c - any bytes as a .safetensors file. Whatever is taken must lie inside of them,
 * tensor by tensor, without overlap. */
#include "engine/model/safetensors.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint *c = checkpoint_new();
    struct status st;
    size_t total = 0;
    const struct checkpoint_file *file = checkpoint_use_memory(c, "fuzz.safetensors", data, size);
    if (safetensors_read_header(c, file, &st) && checkpoint_seal(c, &st)) {
        for (size_t i = 0; i < c->num_tensors; i++) {
            const struct checkpoint_tensor *t = &c->tensors[i];
            volatile unsigned char last = 0;
            if (t->data < data || t->data + t->size_bytes > data + size ||
                checkpoint_find(c, t->name) != t)
                abort();
            if (t->size_bytes > 0)
                last = t->data[t->size_bytes - 1];
            (void)last;
            total += t->size_bytes;
        }
        if (total > size)
            abort();
    } else if (st.message[0] == '\0' || strchr(st.message, '\n')) {
        abort();
    }
    checkpoint_close(c);
    return 0;
}
