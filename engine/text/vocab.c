/* vocab.c - the table of ids behind every tokenizer, and the sink encoders write to. */
#include "engine/text/tokenizer_kind.h"
#include "base/alloc.h"
#include "engine/text/tokenizer_config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void token_list_append(struct token_list *list, const int32_t *ids, size_t count)
{
    if (list->cap - list->len < count) {
        size_t cap = list->cap ? list->cap : 64;
        while (cap - list->len < count)
            cap *= 2;
        list->ids = xrealloc(list->ids, cap * sizeof *list->ids);
        list->cap = cap;
    }
    if (count)
        memcpy(list->ids + list->len, ids, count * sizeof *ids);
    list->len += count;
}

void token_list_free(struct token_list *list)
{
    free(list->ids);
    memset(list, 0, sizeof *list);
}

void token_sink_put_slow(struct token_sink *s, int32_t id)
{
    if (s->list->len >= s->limit)
        s->full = true;
    else
        token_list_append(s->list, &id, 1);
}

static struct vocab_piece *slot(struct vocab *v, int32_t id)
{
    assert(id >= 0 && id < TOKENIZER_MAX_ID);
    if (id >= v->cap) {
        int32_t cap = v->cap ? v->cap : 1024;
        while (cap <= id)
            cap *= 2;
        v->pieces = xrealloc(v->pieces, (size_t)cap * sizeof *v->pieces);
        memset(v->pieces + v->cap, 0, (size_t)(cap - v->cap) * sizeof *v->pieces);
        v->cap = cap;
    }
    if (id >= v->size)
        v->size = id + 1;
    return &v->pieces[id];
}

const char *vocab_put_model(struct vocab *v, int32_t id, const char *text, size_t len)
{
    struct vocab_piece *p = slot(v, id);
    const char *copy = arena_strndup(&v->arena, text, len);
    if (!p->added) {
        p->text = copy;
        p->len = (uint32_t)len;
    }
    string_map_put(&v->model_ids, copy, len, id);
    return copy;
}

const char *vocab_put_added(struct vocab *v, int32_t id, const char *text, size_t len, bool special)
{
    struct vocab_piece *p = slot(v, id);
    const char *copy = arena_strndup(&v->arena, text, len);
    *p = (struct vocab_piece){ copy, (uint32_t)len, special, true };
    string_map_put(&v->added_ids, copy, len, id);
    return copy;
}

int32_t vocab_find(const struct vocab *v, const char *text, size_t len)
{
    int32_t id = string_map_get(&v->added_ids, text, len, -1);
    return id >= 0 ? id : string_map_get(&v->model_ids, text, len, -1);
}

size_t vocab_count(const struct vocab *v)
{
    size_t count = v->model_ids.num_entries;
    for (uint32_t i = 0; i < v->added_ids.num_entries; i++) {
        const struct string_map_entry *e = &v->added_ids.entries[i];
        count += string_map_find(&v->model_ids, e->key, e->len) < 0;
    }
    return count;
}

void vocab_free(struct vocab *v)
{
    string_map_free(&v->model_ids);
    string_map_free(&v->added_ids);
    free(v->pieces);
    arena_free(&v->arena);
    memset(v, 0, sizeof *v);
}
