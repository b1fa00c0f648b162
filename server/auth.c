/* auth.c - every key is compared whole, so that timing does not lead a guesser along. */
#include "server/auth.h"

#include <string.h>
#include <strings.h>

bool auth_init(struct auth *auth, const char *keys, struct arena *arena, struct status *st)
{
    memset(auth, 0, sizeof *auth);
    while (keys && *keys) {
        size_t len = strcspn(keys, ",");
        if (auth->num_keys == LIMIT_LIST_ENTRIES)
            return status_set(st, STATUS_INVALID, "--api-key: more than %d keys",
                              LIMIT_LIST_ENTRIES);
        if (len > 0)
            auth->keys[auth->num_keys++] = arena_strndup(arena, keys, len);
        keys += len + (keys[len] == ',');
    }
    return true;
}

static bool equal_in_constant_time(const char *key, const char *given)
{
    size_t key_len = strlen(key), given_len = strlen(given);
    unsigned difference = key_len != given_len;
    for (size_t i = 0; i < given_len; i++)
        difference |= (unsigned)(unsigned char)given[i] ^ (unsigned char)key[i % key_len];
    return difference == 0;
}

bool auth_check(const struct auth *auth, const char *authorization, struct status *st)
{
    unsigned matches = 0;
    if (auth->num_keys == 0)
        return true;
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return status_set(st, STATUS_UNAUTHORIZED,
                          "this server needs an API key: send 'Authorization: Bearer KEY'");
    const char *given = authorization + 7;
    given += strspn(given, " ");
    for (int32_t i = 0; i < auth->num_keys; i++)
        matches |= equal_in_constant_time(auth->keys[i], given);
    if (!matches)
        return status_set(st, STATUS_UNAUTHORIZED, "the API key is not valid");
    return true;
}
