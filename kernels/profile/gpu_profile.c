/* gpu_profile.c - the table of GPUs: a new one is its row.
 *
 * Bandwidth and rate are those of NVIDIA's data sheets (without sparsity). Memory is what CUDA
 * reports to a program, which driver and ECC move by up to half a percent; the smallest figure seen
 * in reports of users is taken. */
#include "kernels/profile/gpu_profile.h"

#include <ctype.h>
#include <stddef.h>

static const struct gpu_profile profiles[] = {
    { "B200", 100, 182630, 8000, 2250 },     { "H200", 90, 143150, 4800, 989 },
    { "H100", 90, 81000, 3350, 989 },        { "H100-PCIe", 90, 81000, 2000, 756 },
    { "H100-NVL", 90, 95230, 3900, 835 },    { "H20", 90, 97280, 4000, 148 },
    { "A100-80G", 80, 81050, 2039, 312 },    { "A100-40G", 80, 40330, 1555, 312 },
    { "A30", 80, 24060, 933, 165 },          { "L40S", 89, 45480, 864, 362 },
    { "L4", 89, 22470, 300, 121 },           { "A10", 86, 22510, 600, 125 },
    { "RTX 6000 Ada", 89, 48540, 960, 364 }, { "RTX A6000", 86, 48540, 768, 155 },
    { "RTX 5090", 120, 32110, 1792, 210 },   { "RTX 4090", 89, 24080, 1008, 165 },
    { "RTX 3090", 86, 24250, 936, 71 },
};
enum { NUM_PROFILES = sizeof profiles / sizeof profiles[0] };

static const char *skip_separators(const char *s)
{
    while (*s == '-' || *s == '_' || *s == ' ')
        s++;
    return s;
}

static bool same_name(const char *a, const char *b)
{
    for (;; a++, b++) {
        a = skip_separators(a);
        b = skip_separators(b);
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
        if (*a == '\0')
            return true;
    }
}

const struct gpu_profile *gpu_profile_find(const char *name)
{
    for (int i = 0; name && i < NUM_PROFILES; i++)
        if (same_name(profiles[i].name, name))
            return &profiles[i];
    return NULL;
}

void gpu_profile_list(struct buf *out)
{
    for (int i = 0; i < NUM_PROFILES; i++)
        buf_printf(out, "%s%s", i ? ", " : "", profiles[i].name);
}
