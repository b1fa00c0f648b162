/* jinja_sort.c - a merge sort of our own: the order of equal items matters, and a comparison may
 * leave through an error, which qsort would answer with a leak. */
#include "engine/text/jinja_repr.h"

#include <string.h>

struct keyed {
    struct jinja_value key, item;
};

static void merge(struct jinja_env *e, struct keyed *at, struct keyed *room, size_t len,
                  bool reverse)
{
    if (len < 2)
        return;
    size_t half = len / 2;
    merge(e, at, room, half, reverse);
    merge(e, at + half, room, len - half, reverse);
    memcpy(room, at, half * sizeof *at);
    size_t left = 0, right = half;
    for (size_t out = 0; left < half; out++) {
        int order = right < len ? (reverse ? jinja_order(e, room[left].key, at[right].key, "<")
                                           : jinja_order(e, at[right].key, room[left].key, "<"))
                                : 0;
        at[out] = right < len && order == -1 ? at[right++] : room[left++];
    }
}

/* What is in order already costs one pass; and types that cannot be ordered are met in the order in
 * which Python meets them. */
static bool in_order(struct jinja_env *e, const struct keyed *at, size_t len)
{
    for (size_t i = 1; i < len; i++)
        if (jinja_order(e, at[i].key, at[i - 1].key, "<") == -1)
            return false;
    return true;
}

struct jinja_list *jinja_sorted(struct jinja_env *e, const struct jinja_list *items,
                                const struct jinja_list *keys, bool reverse)
{
    size_t n = items->len;
    struct keyed *all = jinja_array(e, n, sizeof *all), *room = jinja_array(e, n, sizeof *room);
    for (size_t i = 0; i < n; i++)
        all[i] = (struct keyed){ keys->items[i], items->items[i] };
    if (reverse || !in_order(e, all, n))
        merge(e, all, room, n, reverse);
    struct jinja_list *sorted = jinja_list_new(e, n);
    for (size_t i = 0; i < n; i++)
        jinja_list_push(e, sorted, all[i].item);
    return sorted;
}
