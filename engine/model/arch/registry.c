/* registry.c - the architectures there are. One line each. */
#include "engine/model/arch.h"

#include <string.h>

extern const struct model_arch arch_llama;

const struct model_arch *const model_archs[] = { &arch_llama, NULL };

const struct model_arch *model_arch_find(const char *architecture)
{
    for (const struct model_arch *const *a = model_archs; *a; a++)
        for (int i = 0; i < ARCH_MAX_NAMES && (*a)->architectures[i]; i++)
            if (strcmp((*a)->architectures[i], architecture) == 0)
                return *a;
    return NULL;
}

void model_arch_list(struct buf *out)
{
    for (const struct model_arch *const *a = model_archs; *a; a++)
        for (int i = 0; i < ARCH_MAX_NAMES && (*a)->architectures[i]; i++)
            buf_printf(out, "%s%s", out->len ? ", " : "", (*a)->architectures[i]);
}
