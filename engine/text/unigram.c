/* unigram.c - forward over the bytes of a word, then back along the best path. */
#include "engine/text/unigram.h"
#include "base/alloc.h"
#include "engine/text/json_field.h"
#include "engine/text/token_trie.h"
#include "engine/text/unicode.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unigram {
    const struct vocab *vocab;
    struct token_trie trie; /* piece -> id */
    double *scores;         /* [vocab->size] */
    double unk_score;
    int32_t unk_id; /* -1: none */
    bool byte_fallback;
    int32_t byte_ids[256]; /* -1: not all there */
};

/* The best way to reach a position. */
struct unigram_node {
    double score;
    uint32_t start; /* where the last piece begins */
    int32_t id;     /* -1: not reached yet */
};

/* An unknown character costs this much more than the worst piece. */
static const double UNKNOWN_PENALTY = 10.0;

static void offer(struct unigram_node *node, double score, size_t start, int32_t id)
{
    if (node->id < 0 || score > node->score)
        *node = (struct unigram_node){ score, (uint32_t)start, id };
}

static bool forward(const struct unigram *m, struct unigram_node *nodes, const char *word,
                    size_t len, struct status *st)
{
    uint32_t c;
    for (size_t i = 0; i < len;) {
        size_t char_len = unicode_next(word, i, &c);
        bool single = false;
        uint32_t at = 0;
        for (size_t end = i; end < len; end++) {
            at = token_trie_child(&m->trie, at, (unsigned char)word[end]);
            if (at == 0)
                break;
            int32_t id = m->trie.values[at];
            if (id < 0)
                continue;
            offer(&nodes[end + 1], nodes[i].score + m->scores[id], i, id);
            single |= end + 1 - i == char_len;
        }
        if (!single) {
            if (m->unk_id < 0)
                return status_set(st, STATUS_INVALID,
                                  "the text has a character that the vocabulary lacks, and the "
                                  "Unigram model has no unk_id");
            offer(&nodes[i + char_len], nodes[i].score + m->unk_score, i, m->unk_id);
        }
        i += char_len;
    }
    return true;
}

/* Appends the ids of an unknown stretch, last first. */
static void put_unknown(const struct unigram *m, const char *text, size_t len,
                        struct token_list *list)
{
    /* Neighbours fuse, and what they fuse to may happen to be a piece. */
    int32_t id = string_map_get(&m->vocab->model_ids, text, len, -1);
    bool falls_back = id < 0 && m->byte_fallback;
    for (size_t i = 0; falls_back && i < len; i++)
        falls_back = m->byte_ids[(unsigned char)text[i]] >= 0;
    if (falls_back) {
        for (size_t i = len; i > 0; i--)
            token_list_append(list, &m->byte_ids[(unsigned char)text[i - 1]], 1);
    } else {
        if (id < 0)
            id = m->unk_id;
        token_list_append(list, &id, 1);
    }
}

bool unigram_encode(const struct unigram *m, struct unigram_scratch *s, const char *word,
                    size_t len, struct token_sink *sink, struct status *st)
{
    if (len >= UINT32_MAX)
        return status_set(st, STATUS_TOO_LARGE, "a word of %zu bytes is too long", len);
    if (len + 1 > s->cap) {
        s->cap = len + 1 + len / 2;
        s->nodes = xrealloc(s->nodes, s->cap * sizeof *s->nodes);
    }
    for (size_t i = 0; i <= len; i++)
        s->nodes[i] = (struct unigram_node){ 0, 0, -1 };
    if (!forward(m, s->nodes, word, len, st))
        return false;
    s->list.len = 0;
    for (size_t end = len; end > 0;) {
        size_t start = s->nodes[end].start;
        if (s->nodes[end].id == m->unk_id) {
            while (start > 0 && s->nodes[start].id == m->unk_id)
                start = s->nodes[start].start;
            put_unknown(m, word + start, end - start, &s->list);
        } else {
            /* Of two equal pieces the later is the one the library's map knows. */
            token_list_append(&s->list, &s->nodes[end].id, 1);
        }
        end = start;
    }
    for (size_t i = s->list.len; i > 0; i--)
        token_sink_put(sink, s->list.ids[i - 1]);
    return true;
}

void unigram_scratch_free(struct unigram_scratch *s)
{
    free(s->nodes);
    token_list_free(&s->list);
    memset(s, 0, sizeof *s);
}

static bool load_scores(struct unigram *m, const json_t *list, struct status *st)
{
    double lowest = DBL_MAX;
    m->scores = xcalloc((size_t)m->vocab->size + 1, sizeof *m->scores);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *score = json_array_get(json_array_get(list, i), 1);
        if (!json_is_number(score))
            return status_set(st, STATUS_INVALID, "piece %zu of the Unigram model has no score", i);
        m->scores[i] = json_number_value(score);
        if (m->scores[i] < lowest)
            lowest = m->scores[i];
    }
    m->unk_score = lowest - UNKNOWN_PENALTY;
    return true;
}

bool unigram_load(const json_t *spec, const struct vocab *vocab, struct unigram **out,
                  struct status *st)
{
    struct unigram *m = xcalloc(1, sizeof *m);
    const json_t *list = json_object_get(spec, "vocab");
    *out = NULL;
    m->vocab = vocab;
    int64_t unk = json_field_int(spec, "unk_id", -1, st);
    m->byte_fallback = json_field_bool(spec, "byte_fallback", false, st);
    bool ok = st->code == STATUS_OK && load_scores(m, list, st);
    if (ok && (unk < -1 || unk >= (int64_t)json_array_size(list)))
        ok = status_set(st, STATUS_INVALID, "the Unigram model's unk_id %lld is not in it",
                        (long long)unk);
    if (!ok) {
        unigram_free(m);
        return false;
    }
    m->unk_id = (int32_t)unk;
    for (uint32_t i = 0; i < vocab->model_ids.num_entries; i++) {
        const struct string_map_entry *e = &vocab->model_ids.entries[i];
        token_trie_add(&m->trie, e->key, e->len, e->value);
    }
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        m->byte_ids[b] = string_map_get(&vocab->model_ids, text, 6, -1);
    }
    *out = m;
    return true;
}

void unigram_free(struct unigram *m)
{
    if (!m)
        return;
    token_trie_free(&m->trie);
    free(m->scores);
    free(m);
}
