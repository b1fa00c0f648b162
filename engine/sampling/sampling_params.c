/* sampling_params.c - the defaults, from the rows of sampling_params.def. */
#include "engine/sampling/sampling_params.h"

#include <string.h>

void sampling_params_defaults(struct sampling_params *p)
{
    memset(p, 0, sizeof *p);
#define SAMPLING_FLOAT(field, def, min, max, min_open) p->field = (float)(def);
#define SAMPLING_INT(field, def, min, max)             p->field = (def);
#define SAMPLING_BOOL(field, def)                      p->field = (def);
#include "engine/sampling/sampling_params.def"
#undef SAMPLING_FLOAT
#undef SAMPLING_INT
#undef SAMPLING_BOOL
    p->num_logprobs = -1;
    p->num_prompt_logprobs = -1;
}
