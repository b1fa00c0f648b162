/* token_trie.h - finds which of many strings stands leftmost in a text, the longest where several
 * begin there: the rule by which added tokens are cut out of a text.
 *
 * Built once, then read on any thread. A search looks at no more than the longest string's length
 * per start, and at one byte where no string can begin. */
#ifndef INFERD_ENGINE_TEXT_TOKEN_TRIE_H
#define INFERD_ENGINE_TEXT_TOKEN_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct token_trie_edge {
    uint64_t key;   /* (node << 8 | byte) + 1; 0: free */
    uint32_t child; /* node */
};

/* Zero-initialise; free with token_trie_free. */
struct token_trie {
    struct token_trie_edge *edges; /* [num_edge_slots], a power of two */
    uint32_t num_edge_slots, num_edges;
    int32_t *values; /* [num_nodes]; -1: no string ends here; node 0 is the root */
    uint32_t num_nodes, cap_nodes;
    bool starts[256]; /* bytes that begin some string */
};

struct token_match {
    size_t start, end; /* byte offsets in the text */
    int32_t value;
};

/* An empty string is ignored. Of equal strings the first added stays. `value` >= 0. */
void token_trie_add(struct token_trie *t, const char *text, size_t len, int32_t value);
/* The leftmost longest string at or after `from`. */
bool token_trie_next(const struct token_trie *t, const char *text, size_t len, size_t from,
                     struct token_match *match);
/* Bytes of the longest string that `text` begins with, 0 where there is none; sets *value. */
size_t token_trie_longest(const struct token_trie *t, const char *text, size_t len, int32_t *value);
/* Child of a node, or 0 where there is none. */
uint32_t token_trie_child(const struct token_trie *t, uint32_t node, unsigned char byte);
void token_trie_free(struct token_trie *t);

#endif
