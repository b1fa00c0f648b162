/* string_map.c - insertion and growth. */
#include "engine/text/string_map.h"
#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>

static void place(struct string_map *m, uint32_t entry)
{
    uint64_t h = string_map_hash(m->entries[entry].key, m->entries[entry].len);
    uint32_t mask = m->num_slots - 1, i = (uint32_t)h & mask;
    while (m->slots[i].entry != 0)
        i = (i + 1) & mask;
    m->slots[i] = (struct string_map_slot){ .tag = (uint32_t)(h >> 32), .entry = entry + 1 };
}

static void grow(struct string_map *m)
{
    uint32_t num_slots = m->num_slots ? m->num_slots * 2 : 64;
    assert(num_slots > m->num_slots);
    free(m->slots);
    m->slots = xcalloc(num_slots, sizeof *m->slots);
    m->num_slots = num_slots;
    for (uint32_t e = 0; e < m->num_entries; e++)
        place(m, e);
}

uint32_t string_map_put(struct string_map *m, const char *key, size_t len, int32_t value)
{
    int64_t found = string_map_find(m, key, len);
    if (found >= 0) {
        m->entries[found].value = value;
        return (uint32_t)found;
    }
    if (m->num_entries >= m->num_slots / 2)
        grow(m);
    if (m->num_entries == m->cap_entries) {
        m->cap_entries = m->cap_entries ? m->cap_entries * 2 : 64;
        m->entries = xrealloc(m->entries, m->cap_entries * sizeof *m->entries);
    }
    uint32_t entry = m->num_entries++;
    m->entries[entry] = (struct string_map_entry){ key, (uint32_t)len, value };
    place(m, entry);
    return entry;
}

void string_map_free(struct string_map *m)
{
    free(m->slots);
    free(m->entries);
    memset(m, 0, sizeof *m);
}
