/* hub_ref.h - the names of the hub: which model MODEL means, and which names may become paths.
 *
 * ORG/NAME[@REVISION][:FILE-or-QUANT], for example
 *     HuggingFaceTB/SmolLM2-135M-Instruct@main
 *     bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M
 * The rules for ORG and NAME are those of huggingface_hub. Pure functions; any thread. */
#ifndef INFERD_ENGINE_MODEL_HUB_REF_H
#define INFERD_ENGINE_MODEL_HUB_REF_H

#include "base/status.h"
#include "config/limits.h"
#include <stddef.h>

struct hub_ref {
    char repo[2 * LIMIT_HUB_REPO_NAME_BYTES + 2]; /* "ORG/NAME" */
    char revision[LIMIT_HUB_REVISION_BYTES + 1];  /* empty: not given */
    char file[LIMIT_HUB_PATH_BYTES + 1];          /* FILE or QUANT; empty: not given */
};

/* Whether MODEL is to be looked for on this machine: something of that name exists, or it is
 * written as a path (beginning with '/', '.' or '~', ending in .gguf, or without exactly one '/').
 */
bool hub_ref_is_local(const char *model);
bool hub_ref_parse(const char *model, struct hub_ref *out, struct status *st);

/* A commit: 40 lower-case hexadecimal digits. */
bool hub_is_commit(const char *text);
/* A sha256: 64 of them. */
bool hub_is_sha256(const char *text);
/* A name that may become a path below a directory of ours: relative, no part of it empty, "." or
 * "..", no backslash, no control character, within the limits. */
bool hub_path_is_safe(const char *path);
/* A revision that may become a file below refs/ and a part of a URL. */
bool hub_revision_is_safe(const char *revision);

#endif
