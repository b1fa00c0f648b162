/* token_trie.c - a trie whose edges live in one hash table. */
#include "engine/text/token_trie.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

static uint32_t slot_of(const struct token_trie *t, uint64_t key)
{
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    uint32_t mask = t->num_edge_slots - 1, i = (uint32_t)(h >> 32) & mask;
    while (t->edges[i].key != 0 && t->edges[i].key != key)
        i = (i + 1) & mask;
    return i;
}

static uint64_t edge_key(uint32_t node, unsigned char byte)
{
    return ((uint64_t)node << 8 | byte) + 1;
}

uint32_t token_trie_child(const struct token_trie *t, uint32_t node, unsigned char byte)
{
    if (t->num_edge_slots == 0)
        return 0;
    /* A free slot's child is 0, which is what a miss returns. */
    return t->edges[slot_of(t, edge_key(node, byte))].child;
}

static uint32_t new_node(struct token_trie *t)
{
    if (t->num_nodes == t->cap_nodes) {
        t->cap_nodes = t->cap_nodes ? t->cap_nodes * 2 : 64;
        t->values = xrealloc(t->values, t->cap_nodes * sizeof *t->values);
    }
    t->values[t->num_nodes] = -1;
    return t->num_nodes++;
}

static void grow_edges(struct token_trie *t)
{
    struct token_trie_edge *old = t->edges;
    uint32_t num_old = t->num_edge_slots;
    t->num_edge_slots = num_old ? num_old * 2 : 128;
    t->edges = xcalloc(t->num_edge_slots, sizeof *t->edges);
    for (uint32_t i = 0; i < num_old; i++) {
        if (old[i].key != 0)
            t->edges[slot_of(t, old[i].key)] = old[i];
    }
    free(old);
}

void token_trie_add(struct token_trie *t, const char *text, size_t len, int32_t value)
{
    if (len == 0)
        return;
    if (t->num_nodes == 0)
        new_node(t);
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t child = token_trie_child(t, node, byte);
        if (child == 0) {
            if (t->num_edges >= t->num_edge_slots / 2)
                grow_edges(t);
            child = new_node(t);
            uint64_t key = edge_key(node, byte);
            t->edges[slot_of(t, key)] = (struct token_trie_edge){ key, child };
            t->num_edges++;
        }
        node = child;
    }
    if (t->values[node] < 0)
        t->values[node] = value;
    t->starts[(unsigned char)text[0]] = true;
}

size_t token_trie_longest(const struct token_trie *t, const char *text, size_t len, int32_t *value)
{
    size_t best = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        node = token_trie_child(t, node, (unsigned char)text[i]);
        if (node == 0)
            break;
        if (t->values[node] >= 0) {
            best = i + 1;
            *value = t->values[node];
        }
    }
    return best;
}

bool token_trie_next(const struct token_trie *t, const char *text, size_t len, size_t from,
                     struct token_match *match)
{
    if (t->num_nodes == 0)
        return false;
    for (size_t i = from; i < len; i++) {
        if (!t->starts[(unsigned char)text[i]])
            continue;
        size_t n = token_trie_longest(t, text + i, len - i, &match->value);
        if (n > 0) {
            match->start = i;
            match->end = i + n;
            return true;
        }
    }
    return false;
}

void token_trie_free(struct token_trie *t)
{
    free(t->edges);
    free(t->values);
    memset(t, 0, sizeof *t);
}
