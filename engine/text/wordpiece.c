/* wordpiece.c - two tries: pieces that begin a word, and pieces that continue one. */
#include "engine/text/wordpiece.h"
#include "base/alloc.h"
#include "engine/text/json_field.h"
#include "engine/text/token_trie.h"
#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>

struct wordpiece {
    const struct vocab *vocab;
    bool whole_words;
    struct token_trie first, later; /* later: without the prefix */
    int64_t max_chars;              /* longer words are unknown */
    int32_t unk_id;                 /* -1: not in the vocabulary */
};

/* Bytes of the longest piece at the front that ends where a character does; 0: none. */
static size_t longest(const struct token_trie *t, const char *text, size_t len, int32_t *id)
{
    size_t best = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        node = token_trie_child(t, node, (unsigned char)text[i]);
        if (node == 0)
            break;
        bool whole = i + 1 == len || ((unsigned char)text[i + 1] & 0xC0) != 0x80;
        if (whole && t->values[node] >= 0) {
            best = i + 1;
            *id = t->values[node];
        }
    }
    return best;
}

static bool put_unknown(const struct wordpiece *m, struct token_sink *sink, struct status *st)
{
    if (m->unk_id < 0)
        return status_set(st, STATUS_INVALID,
                          "the text has a word that the vocabulary lacks, and so does it lack the "
                          "unk_token");
    token_sink_put(sink, m->unk_id);
    return true;
}

static bool is_too_long(const struct wordpiece *m, const char *word, size_t len)
{
    int64_t count = 0;
    for (size_t i = 0; i < len; i++)
        count += ((unsigned char)word[i] & 0xC0) != 0x80;
    return count > m->max_chars;
}

bool wordpiece_encode(const struct wordpiece *m, const char *word, size_t len,
                      struct token_sink *sink, struct status *st)
{
    int32_t id;
    if (m->whole_words) {
        id = string_map_get(&m->vocab->model_ids, word, len, -1);
        if (id < 0)
            return put_unknown(m, sink, st);
        token_sink_put(sink, id);
        return true;
    }
    if (is_too_long(m, word, len))
        return put_unknown(m, sink, st);
    size_t before = sink->list->len;
    for (size_t i = 0; i < len;) {
        size_t n = longest(i == 0 ? &m->first : &m->later, word + i, len - i, &id);
        if (n == 0) {
            sink->list->len = before;
            return put_unknown(m, sink, st);
        }
        token_sink_put(sink, id);
        i += n;
    }
    return true;
}

bool wordpiece_load(const json_t *spec, const struct vocab *vocab, bool whole_words,
                    struct wordpiece **out, struct status *st)
{
    *out = NULL;
    size_t unk_len, prefix_len;
    const char *unk = json_field_text(spec, "unk_token", &unk_len, st);
    const char *prefix = json_field_text(spec, "continuing_subword_prefix", &prefix_len, st);
    int64_t max_chars = json_field_int(spec, "max_input_chars_per_word", 100, st);
    if (st->code != STATUS_OK)
        return false;
    struct wordpiece *m = xcalloc(1, sizeof *m);
    m->vocab = vocab;
    m->whole_words = whole_words;
    m->max_chars = max_chars;
    m->unk_id = string_map_get(&vocab->model_ids, unk ? unk : "[UNK]", unk ? unk_len : 5, -1);
    if (!prefix) {
        prefix = "##";
        prefix_len = 2;
    }
    for (uint32_t i = 0; i < vocab->model_ids.num_entries && !whole_words; i++) {
        const struct string_map_entry *e = &vocab->model_ids.entries[i];
        token_trie_add(&m->first, e->key, e->len, e->value);
        if (e->len >= prefix_len && memcmp(e->key, prefix, prefix_len) == 0)
            token_trie_add(&m->later, e->key + prefix_len, e->len - prefix_len, e->value);
    }
    *out = m;
    return true;
}

void wordpiece_free(struct wordpiece *m)
{
    if (!m)
        return;
    token_trie_free(&m->first);
    token_trie_free(&m->later);
    free(m);
}
