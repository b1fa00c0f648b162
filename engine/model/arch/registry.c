/* registry.c - the architectures there are. One line each. */
#include "engine/model/arch.h"

#include <string.h>

/* clang-format off */
#define ARCHITECTURES(row) \
    row(arch_llama) \
    row(arch_qwen2) \
    row(arch_qwen3) \
    row(arch_qwen2_moe) \
    row(arch_qwen3_moe) \
    row(arch_mistral) \
    row(arch_mixtral) \
    row(arch_gpt_oss) \
    row(arch_deepseek_v2) \
    row(arch_deepseek_v3) \
    row(arch_gemma2) \
    row(arch_gemma3) \
    row(arch_phi3) \
    row(arch_olmo2) \
    row(arch_granite) \
    row(arch_smollm3) \
    row(arch_starcoder2) \
    row(arch_gpt_neox) \
    row(arch_gpt2)
/* clang-format on */

#define DECLARE(arch) extern const struct model_arch arch;
#define ADDRESS(arch) &arch,
ARCHITECTURES(DECLARE)

const struct model_arch *const model_archs[] = { ARCHITECTURES(ADDRESS) NULL };

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

void model_arch_table(struct buf *out)
{
    buf_append_str(out, "| architecture | models | what is not as in Llama | file |\n"
                        "|---|---|---|---|\n");
    for (const struct model_arch *const *a = model_archs; *a; a++)
        for (int i = 0; i < ARCH_MAX_NAMES && (*a)->architectures[i]; i++)
            buf_printf(out, "| `%s` | %s | %s | `arch/%s` |\n", (*a)->architectures[i],
                       (*a)->models, (*a)->differs ? (*a)->differs : "",
                       strrchr((*a)->source, '/') + 1);
}
