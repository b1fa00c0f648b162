/* bpe.c - merging.
 *
 * Three ways, all with the same result. A word that is a piece of the vocabulary and known to
 * encode to itself is one look-up. A short word is merged in place by scanning for the lowest rank.
 * A long one, and a tokenizer without words may make a whole text one, is first cut wherever no
 * merge could ever cross, and what is still long goes through a heap over a linked list, in n log n
 * steps whatever the text. */
#include "engine/text/bpe_internal.h"
#include "base/alloc.h"
#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>

enum {
    SHORT_WORD = 40, /* symbols up to which scanning beats the heap */
    CUT_WORD = 16    /* raw words from which it pays to look for places to cut */
};

#define NO_RANK UINT32_MAX

static const struct bpe_merge *find_merge(const struct bpe *m, int32_t left, int32_t right)
{
    uint64_t pair = bpe_pair(left, right);
    uint32_t mask = m->num_slots - 1;
    for (uint32_t i = bpe_slot_hash(pair) & mask;; i = (i + 1) & mask) {
        if (m->merges[i].pair == pair)
            return &m->merges[i];
        if (m->merges[i].pair == BPE_NO_PAIR)
            return NULL;
    }
}

static bool is_joint(const struct bpe *m, int32_t left, int32_t right)
{
    uint64_t pair = bpe_pair(left, right);
    uint32_t mask = m->num_joint_slots - 1;
    for (uint32_t i = bpe_slot_hash(pair) & mask;; i = (i + 1) & mask) {
        if (m->joints[i] == pair)
            return true;
        if (m->joints[i] == BPE_NO_PAIR)
            return false;
    }
}

/* --- merging -------------------------------------------------------------------------------- */

static uint32_t rank_of(const struct bpe *m, int32_t left, int32_t right, int32_t *result)
{
    const struct bpe_merge *found = find_merge(m, left, right);
    if (!found)
        return NO_RANK;
    *result = found->result;
    return found->rank;
}

/* Merges ids[0..n) in place, n <= SHORT_WORD; returns how many are left. */
static size_t merge_short(const struct bpe *m, int32_t *ids, size_t n)
{
    uint32_t ranks[SHORT_WORD];
    int32_t results[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++)
        ranks[i] = rank_of(m, ids[i], ids[i + 1], &results[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (ranks[i] < ranks[best])
                best = i;
        }
        if (ranks[best] == NO_RANK)
            break;
        ids[best] = results[best];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            memmove(ranks + best + 1, ranks + best + 2, (n - best - 2) * sizeof *ranks);
            memmove(results + best + 1, results + best + 2, (n - best - 2) * sizeof *results);
            ranks[best] = rank_of(m, ids[best], ids[best + 1], &results[best]);
        }
        if (best > 0)
            ranks[best - 1] = rank_of(m, ids[best - 1], ids[best], &results[best - 1]);
    }
    return n;
}

/* A symbol of a long word; the list runs over indices, -1 ends it. */
struct bpe_node {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t previous, next;
};

/* The heap holds rank << 32 | position, smallest on top. */
static void heap_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t v = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= v)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = v;
}

static void heap_push(struct bpe_scratch *s, size_t *n, uint64_t v)
{
    if (*n == s->cap_heap) {
        s->cap_heap = s->cap_heap ? s->cap_heap * 2 : 1024;
        s->heap = xrealloc(s->heap, s->cap_heap * sizeof *s->heap);
    }
    size_t i = (*n)++;
    while (i > 0 && s->heap[(i - 1) / 2] > v) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = v;
}

static void push_pair(const struct bpe *m, struct bpe_scratch *s, size_t *n, int32_t left)
{
    const struct bpe_node *nodes = s->nodes;
    int32_t right = nodes[left].next;
    if (left < 0 || right < 0)
        return;
    const struct bpe_merge *found = find_merge(m, nodes[left].id, nodes[right].id);
    if (found)
        heap_push(s, n, (uint64_t)found->rank << 32 | (uint32_t)left);
}

/* Merges ids[0..n) in place by heap; returns how many are left. */
static size_t merge_long(const struct bpe *m, struct bpe_scratch *s, int32_t *ids, size_t n)
{
    if (n > s->cap_nodes) {
        s->cap_nodes = n;
        s->nodes = xrealloc(s->nodes, n * sizeof *s->nodes);
    }
    struct bpe_node *nodes = s->nodes;
    for (size_t i = 0; i < n; i++)
        nodes[i] = (struct bpe_node){ ids[i], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1 };
    size_t size = 0;
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(m, s, &size, (int32_t)i);
    while (size > 0) {
        uint64_t top = s->heap[0];
        s->heap[0] = s->heap[--size];
        if (size > 0)
            heap_down(s->heap, size, 0);
        int32_t left = (int32_t)(uint32_t)top, right = nodes[left].next;
        if (nodes[left].id < 0 || right < 0)
            continue;
        const struct bpe_merge *found = find_merge(m, nodes[left].id, nodes[right].id);
        if (!found || found->rank != top >> 32)
            continue; /* one of the two has merged elsewhere meanwhile */
        nodes[left].id = found->result;
        nodes[left].next = nodes[right].next;
        nodes[right].id = -1;
        if (nodes[left].next >= 0)
            nodes[nodes[left].next].previous = left;
        if (nodes[left].previous >= 0)
            push_pair(m, s, &size, nodes[left].previous);
        push_pair(m, s, &size, left);
    }
    size_t count = 0;
    for (int32_t i = 0; i >= 0; i = nodes[i].next)
        ids[count++] = nodes[i].id;
    return count;
}

/* Merges one stretch and puts it out. `piece`: what the vocabulary has for its whole text, or -1.
 */
static void merge_stretch(const struct bpe *m, struct bpe_scratch *s, int32_t *ids, size_t n,
                          int32_t piece, struct token_sink *sink)
{
    unsigned char whole =
        piece >= 0 ? atomic_load_explicit(&m->whole[piece], memory_order_relaxed) : 2;
    if (whole == 1) {
        token_sink_put(sink, piece);
        return;
    }
    n = n <= SHORT_WORD ? merge_short(m, ids, n) : merge_long(m, s, ids, n);
    if (whole == 0)
        atomic_store_explicit(&m->whole[piece], n == 1 && ids[0] == piece ? 1 : 2,
                              memory_order_relaxed);
    for (size_t i = 0; i < n; i++)
        token_sink_put(sink, ids[i]);
}

/* --- first symbols -------------------------------------------------------------------------- */

static void reserve(struct bpe_scratch *s, size_t more)
{
    if (s->cap - s->num >= more)
        return;
    size_t cap = s->cap ? s->cap : 256;
    while (cap - s->num < more)
        cap *= 2;
    s->ids = xrealloc(s->ids, cap * sizeof *s->ids);
    s->offsets = xrealloc(s->offsets, cap * sizeof *s->offsets);
    s->cap = cap;
}

static void add_symbol(struct bpe_scratch *s, int32_t id, size_t offset)
{
    s->ids[s->num] = id;
    s->offsets[s->num++] = (uint32_t)offset;
}

void bpe_symbol_of(const struct bpe *m, const char *text, size_t len, struct bpe_symbol *out)
{
    out->num = 0;
    int32_t id = string_map_get(&m->vocab->model_ids, text, len, -1);
    out->known = id >= 0;
    if (out->known) {
        out->kind = SYMBOL_IDS;
        out->ids[out->num++] = id;
        return;
    }
    bool falls_back = m->byte_fallback && len <= sizeof out->ids / sizeof *out->ids;
    for (size_t i = 0; falls_back && i < len; i++) {
        out->ids[i] = m->byte_ids[(unsigned char)text[i]];
        falls_back = out->ids[i] >= 0;
    }
    out->num = falls_back ? (int)len : 0;
    out->kind = falls_back ? SYMBOL_IDS : m->unk_token ? SYMBOL_UNKNOWN : SYMBOL_NOTHING;
}

struct unknown {
    bool open, any;
    size_t offset;
};

/* Adds a character's symbols. Unknown characters are held back one step, so that neighbours can
 * fuse; byte pieces overtake a held one, as they do in the library. */
static void add_character(const struct bpe *m, struct bpe_scratch *s,
                          const struct bpe_symbol *symbol, size_t offset, struct unknown *unknown)
{
    reserve(s, 17);
    if (symbol->kind == SYMBOL_UNKNOWN) {
        unknown->any = true;
        if (unknown->open && !m->fuse_unk)
            add_symbol(s, m->unk_id, unknown->offset);
        if (!unknown->open || !m->fuse_unk)
            unknown->offset = offset;
        unknown->open = true;
        return;
    }
    if (symbol->kind == SYMBOL_NOTHING)
        return;
    if (unknown->open && symbol->known) {
        add_symbol(s, m->unk_id, unknown->offset);
        unknown->open = false;
    }
    for (int i = 0; i < symbol->num; i++)
        add_symbol(s, symbol->ids[i], offset);
}

static void symbols_of_bytes(const struct bpe *m, struct bpe_scratch *s, const char *word,
                             size_t len, struct unknown *unknown)
{
    reserve(s, len + 32);
    for (size_t i = 0; i < len; i++) {
        const struct bpe_symbol *symbol = &m->bytes[(unsigned char)word[i]];
        if (symbol->kind == SYMBOL_IDS && symbol->num == 1 && !unknown->open) {
            reserve(s, 1);
            add_symbol(s, symbol->ids[0], i);
        } else {
            add_character(m, s, symbol, i, unknown);
        }
    }
}

static void symbols_of_characters(const struct bpe *m, struct bpe_scratch *s, const char *word,
                                  size_t len, struct unknown *unknown)
{
    struct buf affixed;
    buf_init(&affixed, 0);
    struct bpe_symbol symbol;
    uint32_t c;
    for (size_t i = 0; i < len;) {
        size_t n = unicode_next(word, i, &c);
        const char *text = word + i;
        size_t text_len = n;
        if ((i > 0 && *m->prefix) || (i + n == len && *m->suffix)) {
            buf_clear(&affixed);
            if (i > 0)
                buf_append_str(&affixed, m->prefix);
            buf_append(&affixed, text, n);
            if (i + n == len)
                buf_append_str(&affixed, m->suffix);
            text = buf_str(&affixed);
            text_len = affixed.len;
        }
        bpe_symbol_of(m, text, text_len, &symbol);
        add_character(m, s, &symbol, i, unknown);
        i += n;
    }
    buf_free(&affixed);
}

/* --- a word --------------------------------------------------------------------------------- */

/* Merges all symbols, stretch by stretch. `piece` is what the vocabulary has for the word, or -1;
 * `look_up`: stretches may be looked up by their text. */
static void merge_all(const struct bpe *m, struct bpe_scratch *s, const char *word, size_t len,
                      int32_t piece, bool look_up, struct token_sink *sink)
{
    bool cut = m->can_cut && (!m->raw_bytes || s->num > CUT_WORD);
    for (size_t start = 0; start < s->num && !sink->full;) {
        size_t end = start + 1;
        while (end < s->num && (!cut || is_joint(m, s->ids[end - 1], s->ids[end])))
            end++;
        if (start > 0 || end < s->num) {
            size_t from = s->offsets[start], to = end < s->num ? s->offsets[end] : len;
            piece = look_up && end - start > 1 && to > from
                        ? string_map_get(m->pieces, word + from, to - from, -1)
                        : -1;
        }
        merge_stretch(m, s, s->ids + start, end - start, piece, sink);
        start = end;
    }
}

bool bpe_encode(const struct bpe *m, struct bpe_scratch *s, const char *word, size_t len,
                struct token_sink *sink, struct status *st)
{
    if (len >= INT32_MAX)
        return status_set(st, STATUS_TOO_LARGE, "a word of %zu bytes is too long", len);
    int32_t piece = m->ignore_merges || len <= 64 ? string_map_get(m->pieces, word, len, -1) : -1;
    if (piece >= 0 &&
        (m->ignore_merges || atomic_load_explicit(&m->whole[piece], memory_order_relaxed) == 1)) {
        token_sink_put(sink, piece);
        return true;
    }
    struct unknown unknown = { .open = false };
    s->num = 0;
    if (m->raw_bytes)
        symbols_of_bytes(m, s, word, len, &unknown);
    else
        symbols_of_characters(m, s, word, len, &unknown);
    if (unknown.open) {
        reserve(s, 1);
        add_symbol(s, m->unk_id, unknown.offset);
    }
    if (unknown.any && m->unk_id < 0)
        return status_set(st, STATUS_INVALID,
                          "the text has a character that the vocabulary lacks, and so does it lack "
                          "the unk_token \"%.60s\"",
                          m->unk_token);
    /* Unknown characters and affixes make the symbols depend on more than the text. */
    bool look_up = !unknown.any && !*m->prefix && !*m->suffix;
    merge_all(m, s, word, len, look_up ? piece : -1, look_up, sink);
    return true;
}

void bpe_scratch_free(struct bpe_scratch *s)
{
    free(s->ids);
    free(s->offsets);
    free(s->nodes);
    free(s->heap);
    memset(s, 0, sizeof *s);
}
