/* hub_digest.c - OpenSSL's EVP, which uses the CPU's SHA instructions where there are any. */
#include "engine/model/hub_digest.h"
#include "base/alloc.h"
#include "engine/model/hub_ref.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hub_digest {
    EVP_MD_CTX *context;
    char expected[65];
    bool broken; /* the library refused something; nothing matches then */
};

struct hub_digest *hub_digest_new(const char *expected, uint64_t size_bytes, struct status *st)
{
    bool is_blob_id = hub_is_commit(expected); /* both are a sha1 */
    if (!is_blob_id && !hub_is_sha256(expected)) {
        status_set(st, STATUS_INVALID, "'%.70s' is neither a sha256 nor a git blob id", expected);
        return NULL;
    }
    struct hub_digest *d = xcalloc(1, sizeof *d);
    d->context = EVP_MD_CTX_new();
    memcpy(d->expected, expected, strlen(expected) + 1);
    if (!d->context ||
        !EVP_DigestInit_ex(d->context, is_blob_id ? EVP_sha1() : EVP_sha256(), NULL)) {
        status_set(st, STATUS_INTERNAL, "this machine's OpenSSL offers no %s",
                   is_blob_id ? "sha1" : "sha256");
        hub_digest_free(d);
        return NULL;
    }
    if (is_blob_id) {
        char head[40];
        int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)size_bytes);
        hub_digest_update(d, head, (size_t)n + 1);
    }
    return d;
}

void hub_digest_update(struct hub_digest *d, const void *data, size_t len)
{
    if (!EVP_DigestUpdate(d->context, data, len))
        d->broken = true;
}

bool hub_digest_matches(struct hub_digest *d, char found[65])
{
    unsigned char value[EVP_MAX_MD_SIZE];
    unsigned int len = 0;
    found[0] = '\0';
    if (d->broken || !EVP_DigestFinal_ex(d->context, value, &len) || len > 32)
        return false;
    for (unsigned int i = 0; i < len; i++)
        snprintf(found + 2 * (size_t)i, 3, "%02x", value[i]);
    return strcmp(found, d->expected) == 0;
}

void hub_digest_free(struct hub_digest *d)
{
    if (!d)
        return;
    EVP_MD_CTX_free(d->context);
    free(d);
}
