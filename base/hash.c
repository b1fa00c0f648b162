/* hash.c - SipHash-2-4-128, after the specification. */
#include "base/hash.h"

#include <string.h>

struct sip_state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, int b)
{
    return (x << b) | (x >> (64 - b));
}

static inline void sip_round(struct sip_state *s)
{
    s->v0 += s->v1;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v2 = rotl(s->v2, 32);
}

static void absorb(struct sip_state *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    sip_round(s);
    s->v0 ^= m;
}

static uint64_t finish(struct sip_state *s)
{
    for (int i = 0; i < 4; i++)
        sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

struct hash128 hash_sip128(struct hash_key key, const void *data, size_t len)
{
    const unsigned char *p = data;
    struct sip_state s = { 0x736f6d6570736575u ^ key.k0, 0x646f72616e646f6du ^ key.k1 ^ 0xee,
                           0x6c7967656e657261u ^ key.k0, 0x7465646279746573u ^ key.k1 };
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint64_t m = 0;
        for (int b = 7; b >= 0; b--)
            m = m << 8 | p[i + (size_t)b];
        absorb(&s, m);
    }
    uint64_t last = (uint64_t)len << 56;
    for (size_t i = len / 8 * 8; i < len; i++)
        last |= (uint64_t)p[i] << (8 * (i % 8));
    absorb(&s, last);
    s.v2 ^= 0xee;
    struct hash128 h;
    h.low = finish(&s);
    s.v1 ^= 0xdd;
    h.high = finish(&s);
    return h;
}
