/* string_map.h - byte strings to integers, built once and then only read.
 *
 * Open addressing; a slot holds part of the hash, so that a miss rarely touches the key. Keys are
 * not copied: they must outlive the map. Reading is safe on any thread, changing it is not. */
#ifndef INFERD_ENGINE_TEXT_STRING_MAP_H
#define INFERD_ENGINE_TEXT_STRING_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct string_map_slot {
    uint32_t tag;   /* high half of the hash */
    uint32_t entry; /* index into entries plus one; 0: free */
};

struct string_map_entry {
    const char *key;
    uint32_t len;
    int32_t value;
};

/* Zero-initialise; free with string_map_free. */
struct string_map {
    struct string_map_slot *slots; /* [num_slots], a power of two */
    struct string_map_entry *entries;
    uint32_t num_slots, num_entries, cap_entries;
};

/* Sets or replaces the value of a key; returns the entry's index. */
uint32_t string_map_put(struct string_map *m, const char *key, size_t len, int32_t value);
void string_map_free(struct string_map *m);

/* Not keyed: the keys in the map come from a file that the operator trusts with far more than the
 * time of a lookup, and looking up hostile text meets at most the map's longest cluster. */
static inline uint64_t string_map_hash(const char *key, size_t len)
{
    const uint64_t mul = 0x9E3779B97F4A7C15u;
    uint64_t h = (uint64_t)len * mul, w = 0;
    for (; len >= 8; key += 8, len -= 8) {
        memcpy(&w, key, 8);
        h = (h ^ w) * mul;
        h ^= h >> 29;
    }
    if (len >= 4) {
        uint32_t low, high;
        memcpy(&low, key, 4);
        memcpy(&high, key + len - 4, 4);
        w = (uint64_t)high << 32 | low;
    } else if (len > 0) {
        w = (uint64_t)(unsigned char)key[0] << 16 | (uint64_t)(unsigned char)key[len / 2] << 8 |
            (unsigned char)key[len - 1];
    } else {
        w = 0;
    }
    h = (h ^ w) * mul;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 31;
}

/* The entry's index, or -1. */
static inline int64_t string_map_find(const struct string_map *m, const char *key, size_t len)
{
    if (m->num_slots == 0)
        return -1;
    uint64_t h = string_map_hash(key, len);
    uint32_t tag = (uint32_t)(h >> 32), mask = m->num_slots - 1;
    for (uint32_t i = (uint32_t)h & mask;; i = (i + 1) & mask) {
        const struct string_map_slot *s = &m->slots[i];
        if (s->entry == 0)
            return -1;
        if (s->tag == tag) {
            const struct string_map_entry *e = &m->entries[s->entry - 1];
            if (e->len == len && memcmp(e->key, key, len) == 0)
                return s->entry - 1;
        }
    }
}

/* The value, or `missing`. */
static inline int32_t string_map_get(const struct string_map *m, const char *key, size_t len,
                                     int32_t missing)
{
    int64_t entry = string_map_find(m, key, len);
    return entry < 0 ? missing : m->entries[entry].value;
}

#endif
