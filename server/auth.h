/* auth.h - API keys: what `Authorization: Bearer KEY` is held against. Constant after auth_init. */
#ifndef INFERD_SERVER_AUTH_H
#define INFERD_SERVER_AUTH_H

#include "base/arena.h"
#include "base/status.h"
#include "config/limits.h"
#include <stdint.h>

struct auth {
    const char *keys[LIMIT_LIST_ENTRIES];
    int32_t num_keys; /* 0: everyone may come in */
};

/* `keys`: comma-separated, or NULL for none; copied into `arena`. */
bool auth_init(struct auth *auth, const char *keys, struct arena *arena, struct status *st);
/* `authorization`: the header's value, or NULL. The time taken tells nothing about the keys. */
bool auth_check(const struct auth *auth, const char *authorization, struct status *st);

#endif
