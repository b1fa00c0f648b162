/* charsmap.h - SentencePiece's precompiled normalisation: a double-array trie (Darts) from strings
 * to replacements. Layout of the blob: u32 size of the trie in bytes, the trie as u32 units, then
 * NUL-terminated replacements; all little-endian. A leaf's value is an offset into the latter. */
#ifndef INFERD_ENGINE_TEXT_CHARSMAP_H
#define INFERD_ENGINE_TEXT_CHARSMAP_H

#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

struct charsmap {
    uint32_t *units; /* [num_units]; owned */
    size_t num_units;
    const char *replacements; /* borrowed from the blob; ends in NUL */
    size_t replacements_len;
};

/* Checks every unit, so that no walk over the trie can leave it, whatever the text. The blob must
 * outlive the map. */
bool charsmap_load(struct charsmap *m, const char *blob, size_t len, struct status *st);
/* Bytes of the longest key that `text` begins with (0: none) and its NUL-terminated replacement. */
size_t charsmap_longest(const struct charsmap *m, const char *text, size_t len,
                        const char **replacement);
/* The same for the shortest key. */
size_t charsmap_shortest(const struct charsmap *m, const char *text, size_t len,
                         const char **replacement);
void charsmap_free(struct charsmap *m);

#endif
