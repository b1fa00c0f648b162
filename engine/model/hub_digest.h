/* hub_digest.h - the hashes that name a hub's files: sha256 of large ones (git-lfs), and git's blob
 * id of the others, which is the sha1 of "blob SIZE\0" and the contents. One thread at a time. */
#ifndef INFERD_ENGINE_MODEL_HUB_DIGEST_H
#define INFERD_ENGINE_MODEL_HUB_DIGEST_H

#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

struct hub_digest;

/* `expected`: the name in hexadecimal; its length says which hash it is (64: sha256, 40: blob id).
 * NULL with a message when it is neither. */
struct hub_digest *hub_digest_new(const char *expected, uint64_t size_bytes, struct status *st);
void hub_digest_update(struct hub_digest *d, const void *data, size_t len);
/* Ends the hash and tells whether it is the expected one; what it is instead goes to found. */
bool hub_digest_matches(struct hub_digest *d, char found[65]);
void hub_digest_free(struct hub_digest *d); /* NULL is fine */

#endif
