/* bpe.c - merging.
 *
 * Three ways, all with the same result. A word that is a piece of the vocabulary and known to
 * encode to itself is one look-up. A short word is merged in place by scanning for the lowest rank.
 * A long one, and a tokenizer without words may make a whole text one, is first cut wherever no
 * merge could ever cross, and what is still long goes through a heap over a linked list, in n log n
 * steps whatever the text. */
#include "engine/text/bpe.h"
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_level.h"
#include "engine/text/json_field.h"
#include "engine/text/unicode.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHORT_WORD = 40, /* symbols up to which scanning beats the heap */
    CUT_WORD = 16    /* raw words from which it pays to look for places to cut */
};

struct merge {
    uint64_t pair; /* left << 32 | right; NO_PAIR: free */
    uint32_t rank;
    int32_t result;
};

#define NO_PAIR UINT64_MAX
#define NO_RANK UINT32_MAX

/* What one character becomes before any merge. */
enum symbol_kind { SYMBOL_IDS, SYMBOL_UNKNOWN, SYMBOL_NOTHING };

struct symbol {
    enum symbol_kind kind;
    bool known; /* a piece of the vocabulary, not a row of byte pieces */
    int num;
    int32_t ids[16]; /* a character with affixes falls back to few bytes */
};

struct bpe {
    const struct vocab *vocab;
    bool raw_bytes, byte_fallback, fuse_unk, ignore_merges;
    struct string_map raw_pieces; /* with raw_bytes: the bytes of each piece */
    struct arena raw_arena;
    const struct string_map *pieces; /* what a word is looked up in */
    char *prefix, *suffix;           /* "" where there is none */
    int32_t unk_id;                  /* -1: none, or not in the vocabulary */
    char *unk_token;                 /* NULL: none */
    int32_t byte_ids[256];           /* of <0x00> .. <0xFF>; -1 */
    struct symbol bytes[256];        /* with raw_bytes */
    struct merge *merges;            /* [num_slots], a power of two */
    uint32_t num_slots;
    /* Pairs of first symbols over which some merge reaches: (last of left, first of right). */
    uint64_t *joints; /* [num_joint_slots]; NO_PAIR: free */
    uint32_t num_joint_slots;
    bool can_cut;
    _Atomic unsigned char *whole; /* [vocab->size]: 1 encodes to itself, 2 does not, 0 unknown */
};

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static uint32_t slot_hash(uint64_t pair)
{
    return (uint32_t)((pair * 0x9E3779B97F4A7C15u) >> 32);
}

static const struct merge *find_merge(const struct bpe *m, int32_t left, int32_t right)
{
    uint64_t pair = pair_of(left, right);
    uint32_t mask = m->num_slots - 1;
    for (uint32_t i = slot_hash(pair) & mask;; i = (i + 1) & mask) {
        if (m->merges[i].pair == pair)
            return &m->merges[i];
        if (m->merges[i].pair == NO_PAIR)
            return NULL;
    }
}

static bool is_joint(const struct bpe *m, int32_t left, int32_t right)
{
    uint64_t pair = pair_of(left, right);
    uint32_t mask = m->num_joint_slots - 1;
    for (uint32_t i = slot_hash(pair) & mask;; i = (i + 1) & mask) {
        if (m->joints[i] == pair)
            return true;
        if (m->joints[i] == NO_PAIR)
            return false;
    }
}

/* --- merging -------------------------------------------------------------------------------- */

static uint32_t rank_of(const struct bpe *m, int32_t left, int32_t right, int32_t *result)
{
    const struct merge *found = find_merge(m, left, right);
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
    const struct merge *found = find_merge(m, nodes[left].id, nodes[right].id);
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
        const struct merge *found = find_merge(m, nodes[left].id, nodes[right].id);
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

/* The symbol of one character, affixes included, as BPE::merge_word finds it. */
static void symbol_of(const struct bpe *m, const char *text, size_t len, struct symbol *out)
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
static void add_character(const struct bpe *m, struct bpe_scratch *s, const struct symbol *symbol,
                          size_t offset, struct unknown *unknown)
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
        const struct symbol *symbol = &m->bytes[(unsigned char)word[i]];
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
    struct symbol symbol;
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
        symbol_of(m, text, text_len, &symbol);
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

/* --- loading -------------------------------------------------------------------------------- */

static uint32_t slots_for(size_t count)
{
    uint32_t slots = 64;
    while (slots < count + count / 2)
        slots *= 2;
    return slots;
}

static void put_merge(struct bpe *m, struct merge merge)
{
    uint32_t mask = m->num_slots - 1, i = slot_hash(merge.pair) & mask;
    while (m->merges[i].pair != NO_PAIR && m->merges[i].pair != merge.pair)
        i = (i + 1) & mask;
    m->merges[i] = merge;
}

/* The two sides of a merge: "a b" or ["a", "b"]. */
static bool merge_sides(const json_t *item, size_t rank, const char *side[2], size_t len[2],
                        struct status *st)
{
    if (json_is_string(item)) {
        const char *text = json_string_value(item), *end = text + json_string_length(item);
        const char *space = memchr(text, ' ', (size_t)(end - text));
        if (space && !memchr(space + 1, ' ', (size_t)(end - space - 1))) {
            side[0] = text;
            len[0] = (size_t)(space - text);
            side[1] = space + 1;
            len[1] = (size_t)(end - space - 1);
            return true;
        }
    } else if (json_array_size(item) == 2 && json_is_string(json_array_get(item, 0)) &&
               json_is_string(json_array_get(item, 1))) {
        for (size_t i = 0; i < 2; i++) {
            side[i] = json_string_value(json_array_get(item, i));
            len[i] = json_string_length(json_array_get(item, i));
        }
        return true;
    }
    return status_set(st, STATUS_INVALID, "merge %zu is not two pieces", rank);
}

static bool load_merge(struct bpe *m, const json_t *item, size_t rank, struct buf *joined,
                       struct status *st)
{
    const char *side[2];
    size_t len[2], prefix_len = strlen(m->prefix);
    int32_t ids[2];
    if (!merge_sides(item, rank, side, len, st))
        return false;
    for (int i = 0; i < 2; i++) {
        ids[i] = string_map_get(&m->vocab->model_ids, side[i], len[i], -1);
        if (ids[i] < 0)
            return status_set(st, STATUS_INVALID, "merge %zu: \"%.60s\" is not in the vocabulary",
                              rank, side[i]);
    }
    if (len[1] < prefix_len)
        return status_set(st, STATUS_INVALID, "merge %zu: the right side has no prefix", rank);
    buf_clear(joined);
    buf_append(joined, side[0], len[0]);
    buf_append(joined, side[1] + prefix_len, len[1] - prefix_len);
    int32_t result = string_map_get(&m->vocab->model_ids, buf_str(joined), joined->len, -1);
    if (result < 0)
        return status_set(st, STATUS_INVALID, "merge %zu: \"%.60s\" is not in the vocabulary", rank,
                          buf_str(joined));
    put_merge(m, (struct merge){ pair_of(ids[0], ids[1]), (uint32_t)rank, result });
    return true;
}

static bool load_merges(struct bpe *m, const json_t *list, struct status *st)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > 1u << 26)
        return status_set(st, STATUS_INVALID, "\"merges\" of the BPE model is no proper list");
    m->num_slots = slots_for(count);
    m->merges = xmalloc(m->num_slots * sizeof *m->merges);
    for (uint32_t i = 0; i < m->num_slots; i++)
        m->merges[i].pair = NO_PAIR;
    struct buf joined;
    buf_init(&joined, 0);
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = load_merge(m, json_array_get(list, i), i, &joined, st);
    buf_free(&joined);
    return ok;
}

/* With raw bytes, words are looked up as bytes: pieces that are no bytes cannot be met. */
static void build_raw_pieces(struct bpe *m)
{
    struct buf bytes;
    buf_init(&bytes, 0);
    for (uint32_t i = 0; i < m->vocab->model_ids.num_entries; i++) {
        const struct string_map_entry *e = &m->vocab->model_ids.entries[i];
        buf_clear(&bytes);
        if (byte_level_decode(e->key, e->len, &bytes))
            string_map_put(&m->raw_pieces, arena_strndup(&m->raw_arena, buf_str(&bytes), bytes.len),
                           bytes.len, e->value);
    }
    buf_free(&bytes);
    for (int b = 0; b < 256; b++) {
        char text[4];
        size_t len = (size_t)utf8_encode(byte_level_char((unsigned char)b), text);
        symbol_of(m, text, len, &m->bytes[b]);
    }
    m->pieces = &m->raw_pieces;
}

/* The first symbol at one end of a piece, or -1 where that end is no symbol of its own (so that no
 * text can lead to the piece). */
static int32_t end_symbol(const struct bpe *m, const struct vocab_piece *p, bool last)
{
    uint32_t c;
    size_t from = last ? unicode_previous(p->text, p->len) : 0;
    size_t len = unicode_next(p->text, from, &c);
    return string_map_get(&m->vocab->model_ids, p->text + from, len, -1);
}

/* A symbol of several characters: a byte piece, or the unknown token. */
static bool is_long_symbol(const struct bpe *m, int32_t id)
{
    if (id == m->unk_id)
        return true;
    const struct vocab_piece *p = &m->vocab->pieces[id];
    return m->byte_fallback && p->len == 6 && memcmp(p->text, "<0x", 3) == 0 && p->text[5] == '>';
}

/* Collects the joints. Cutting is given up where pieces are not simply the concatenation of their
 * characters' symbols. */
static void build_joints(struct bpe *m)
{
    size_t count = 0;
    if (*m->prefix || *m->suffix)
        return;
    for (uint32_t i = 0; i < m->num_slots; i++)
        count += m->merges[i].pair != NO_PAIR;
    m->num_joint_slots = slots_for(count);
    m->joints = xmalloc(m->num_joint_slots * sizeof *m->joints);
    memset(m->joints, 0xFF, m->num_joint_slots * sizeof *m->joints);
    for (uint32_t i = 0; i < m->num_slots; i++) {
        const struct merge *merge = &m->merges[i];
        if (merge->pair == NO_PAIR)
            continue;
        int32_t side[2] = { (int32_t)(merge->pair >> 32), (int32_t)(uint32_t)merge->pair };
        const struct vocab_piece *left = &m->vocab->pieces[side[0]],
                                 *right = &m->vocab->pieces[side[1]];
        if (is_long_symbol(m, side[0]) || is_long_symbol(m, side[1]) || !left->len || !right->len)
            return;
        int32_t a = end_symbol(m, left, true), b = end_symbol(m, right, false);
        if (a < 0 || b < 0)
            continue;
        uint64_t pair = pair_of(a, b);
        uint32_t mask = m->num_joint_slots - 1, k = slot_hash(pair) & mask;
        while (m->joints[k] != NO_PAIR && m->joints[k] != pair)
            k = (k + 1) & mask;
        m->joints[k] = pair;
    }
    m->can_cut = true;
}

static char *copy_text(const json_t *spec, const char *name, struct status *st)
{
    size_t len;
    const char *text = json_field_text(spec, name, &len, st);
    return xstrndup(text ? text : "", len);
}

bool bpe_takes_raw_bytes(const json_t *spec)
{
    return json_string_length(json_object_get(spec, "continuing_subword_prefix")) == 0 &&
           json_string_length(json_object_get(spec, "end_of_word_suffix")) == 0;
}

static bool load_options(struct bpe *m, const json_t *spec, struct status *st)
{
    const json_t *dropout = json_object_get(spec, "dropout");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0.0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "the BPE model has a \"dropout\", which would make encoding random; set "
                          "it to null");
    m->byte_fallback = json_field_bool(spec, "byte_fallback", false, st);
    m->fuse_unk = json_field_bool(spec, "fuse_unk", false, st);
    m->ignore_merges = json_field_bool(spec, "ignore_merges", false, st);
    m->prefix = copy_text(spec, "continuing_subword_prefix", st);
    m->suffix = copy_text(spec, "end_of_word_suffix", st);
    size_t len;
    const char *unk = json_field_text(spec, "unk_token", &len, st);
    m->unk_id = unk ? string_map_get(&m->vocab->model_ids, unk, len, -1) : -1;
    m->unk_token = unk ? xstrndup(unk, len) : NULL;
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        m->byte_ids[b] = string_map_get(&m->vocab->model_ids, text, 6, -1);
    }
    return st->code == STATUS_OK;
}

bool bpe_load(const json_t *spec, const struct vocab *vocab, bool raw_bytes, struct bpe **out,
              struct status *st)
{
    struct bpe *m = xcalloc(1, sizeof *m);
    *out = NULL;
    m->vocab = vocab;
    m->pieces = &vocab->model_ids;
    arena_init(&m->raw_arena);
    if (!load_options(m, spec, st) || !load_merges(m, json_object_get(spec, "merges"), st)) {
        bpe_free(m);
        return false;
    }
    m->raw_bytes = raw_bytes;
    if (m->raw_bytes)
        build_raw_pieces(m);
    build_joints(m);
    m->whole = xcalloc((size_t)vocab->size + 1, sizeof *m->whole);
    *out = m;
    return true;
}

void bpe_free(struct bpe *m)
{
    if (!m)
        return;
    string_map_free(&m->raw_pieces);
    arena_free(&m->raw_arena);
    free(m->prefix);
    free(m->suffix);
    free(m->unk_token);
    free(m->merges);
    free(m->joints);
    free((void *)m->whole);
    free(m);
}
