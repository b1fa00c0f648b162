/* charsmap.c - walks a Darts double array (Aoe, "An efficient digital search algorithm by using a
 * double-array structure", 1989; the unit layout is that of darts-clone). */
#include "engine/text/charsmap.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

static bool is_leaf(uint32_t unit)
{
    return unit >> 31;
}

static bool has_leaf(uint32_t unit)
{
    return unit >> 8 & 1;
}

static uint32_t label(uint32_t unit)
{
    return unit & (1u << 31 | 0xFF);
}

static uint32_t offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

static uint32_t read_u32(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

bool charsmap_load(struct charsmap *m, const char *blob, size_t len, struct status *st)
{
    memset(m, 0, sizeof *m);
    if (len < 4)
        return status_set(st, STATUS_INVALID, "the precompiled charsmap is cut off");
    size_t trie_bytes = read_u32(blob);
    if (trie_bytes < 1024 || trie_bytes % 1024 != 0 || trie_bytes >= len - 4)
        return status_set(st, STATUS_INVALID,
                          "the precompiled charsmap has %zu bytes and claims a trie of %zu", len,
                          trie_bytes);
    m->replacements = blob + 4 + trie_bytes;
    m->replacements_len = len - 4 - trie_bytes;
    if (m->replacements[m->replacements_len - 1] != '\0')
        return status_set(st, STATUS_INVALID, "the precompiled charsmap ends without a NUL");
    m->num_units = trie_bytes / 4;
    m->units = xmalloc(trie_bytes);
    for (size_t i = 0; i < m->num_units; i++) {
        uint32_t u = m->units[i] = read_u32(blob + 4 + 4 * i);
        /* A child is at (i ^ offset) ^ byte: with whole blocks of 256 units, one test covers all
         * bytes. */
        bool ok = is_leaf(u) ? i > 0 && (u & 0x7FFFFFFF) < m->replacements_len
                             : (i ^ offset(u)) < m->num_units;
        if (!ok) {
            charsmap_free(m);
            return status_set(st, STATUS_INVALID,
                              "unit %zu of the precompiled charsmap points outside it", i);
        }
    }
    return true;
}

static size_t walk(const struct charsmap *m, const char *text, size_t len, bool longest,
                   const char **replacement)
{
    size_t best = 0, node = offset(m->units[0]);
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        node ^= byte;
        uint32_t unit = m->units[node];
        /* A NUL byte has no label of its own: 0 marks the unit of a value. */
        if (byte == 0 || label(unit) != byte)
            break;
        node ^= offset(unit);
        if (has_leaf(unit) && is_leaf(m->units[node])) {
            *replacement = m->replacements + (m->units[node] & 0x7FFFFFFF);
            best = i + 1;
            if (!longest)
                break;
        }
    }
    return best;
}

size_t charsmap_longest(const struct charsmap *m, const char *text, size_t len,
                        const char **replacement)
{
    return walk(m, text, len, true, replacement);
}

size_t charsmap_shortest(const struct charsmap *m, const char *text, size_t len,
                         const char **replacement)
{
    return walk(m, text, len, false, replacement);
}

void charsmap_free(struct charsmap *m)
{
    free(m->units);
    memset(m, 0, sizeof *m);
}
