/* added_vocab.c - see added_vocab.h. */
#include "engine/text/added_vocab.h"
#include "base/alloc.h"
#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>

static struct added_token *list_add(struct added_list *l, const struct added_token *token)
{
    if (l->num == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 32;
        l->tokens = xrealloc(l->tokens, (size_t)l->cap * sizeof *l->tokens);
    }
    l->tokens[l->num] = *token;
    return &l->tokens[l->num++];
}

static bool same_flags(const struct added_token *a, const struct added_token *b)
{
    return a->special == b->special && a->lstrip == b->lstrip && a->rstrip == b->rstrip &&
           a->normalized == b->normalized && a->single_word == b->single_word;
}

/* The id a new token gets: behind the model's pieces and behind the tokens added before. */
static int32_t fresh_id(const struct added_vocab *a)
{
    if (a->max_id >= 0 && (a->max_id >= a->model_size || a->model_size == 0))
        return a->max_id + 1;
    return a->model_size;
}

bool added_vocab_put(struct added_vocab *a, const struct added_token *token, struct status *st)
{
    if (token->len == 0)
        return true;
    int32_t index = string_map_get(&a->by_content, token->content, token->len, -1);
    if (index >= 0 && same_flags(&a->all.tokens[index], token))
        return true;
    struct added_token t = *token;
    t.id = vocab_find(a->vocab, t.content, t.len);
    if (t.id < 0)
        t.id = fresh_id(a);
    if (t.id >= TOKENIZER_MAX_ID)
        return status_set(st, STATUS_INVALID, "more than %d tokens", TOKENIZER_MAX_ID);
    t.content = vocab_put_added(a->vocab, t.id, t.content, t.len, t.special);
    if (t.special && string_map_find(&a->special_names, t.content, t.len) < 0) {
        list_add(&a->special, &t);
        string_map_put(&a->special_names, t.content, t.len, t.id);
    }
    if (index >= 0) {
        a->all.tokens[index] = t;
    } else {
        string_map_put(&a->by_content, t.content, t.len, a->all.num);
        list_add(&a->all, &t);
    }
    if (string_map_find(&a->special_names, t.content, t.len) < 0)
        list_add(&a->plain, &t);
    if (t.id > a->max_id)
        a->max_id = t.id;
    return true;
}

static bool add_patterns(struct added_vocab *a, const struct added_list *l,
                         const struct normalizer *n, struct status *st)
{
    struct buf text;
    buf_init(&text, 0);
    bool ok = true;
    for (int32_t i = 0; ok && i < l->num; i++) {
        const struct added_token *t = &l->tokens[i];
        if (!t->normalized) {
            token_trie_add(&a->raw, t->content, t->len, t->id);
            continue;
        }
        buf_clear(&text);
        /* A token that normalizes to nothing can never be met; the trie leaves it out. */
        ok = normalizer_run(n, t->content, t->len, &text, st);
        token_trie_add(&a->normalized, buf_str(&text), text.len, t->id);
    }
    buf_free(&text);
    return ok;
}

bool added_vocab_finish(struct added_vocab *a, const struct normalizer *n, struct status *st)
{
    if (!add_patterns(a, &a->special, n, st) || !add_patterns(a, &a->plain, n, st))
        return false;
    a->index_of = xmalloc(((size_t)a->vocab->size + 1) * sizeof *a->index_of);
    for (int32_t id = 0; id < a->vocab->size; id++)
        a->index_of[id] = -1;
    for (int32_t i = 0; i < a->all.num; i++) {
        const struct added_token *t = &a->all.tokens[i];
        a->index_of[t->id] = i;
        a->vocab->pieces[t->id].special =
            string_map_find(&a->special_names, t->content, t->len) >= 0;
    }
    return true;
}

static bool touches_word(const char *text, size_t len, size_t start, size_t end)
{
    uint32_t c;
    if (start > 0) {
        unicode_next(text, unicode_previous(text, start), &c);
        if (unicode_is_word(c))
            return true;
    }
    if (end < len) {
        unicode_next(text, end, &c);
        return unicode_is_word(c);
    }
    return false;
}

bool added_vocab_cut(const struct added_vocab *a, const struct token_trie *trie, const char *text,
                     size_t len, added_vocab_part *part, void *context, struct status *st)
{
    struct token_match m;
    size_t done = 0;
    for (size_t from = 0; token_trie_next(trie, text, len, from, &m); from = m.end) {
        const struct added_token *t = &a->all.tokens[a->index_of[m.value]];
        size_t start = m.start, end = m.end;
        if (t->single_word && touches_word(text, len, start, end))
            continue;
        if (t->lstrip && start > done)
            start = done + unicode_trim(text + done, start - done, unicode_is_white_space);
        if (t->rstrip)
            end += unicode_span(text + end, len - end, unicode_is_white_space);
        if (start > done && !part(context, -1, text, done, start, st))
            return false;
        if (!part(context, m.value, text, start, end, st))
            return false;
        done = end;
    }
    return done >= len || part(context, -1, text, done, len, st);
}

void added_vocab_free(struct added_vocab *a)
{
    free(a->all.tokens);
    free(a->special.tokens);
    free(a->plain.tokens);
    string_map_free(&a->by_content);
    string_map_free(&a->special_names);
    token_trie_free(&a->raw);
    token_trie_free(&a->normalized);
    free(a->index_of);
    memset(a, 0, sizeof *a);
}
