/* bpe_load.c - the "model" of tokenizer.json: pieces, merges, and where a word may be cut. */
#include "engine/text/bpe_internal.h"
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_level.h"
#include "engine/text/json_field.h"
#include "engine/text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* With a character of 4 bytes they still fit into the ids of one symbol. */
enum { MAX_AFFIX_BYTES = 12 };

static uint32_t slots_for(size_t count)
{
    uint32_t slots = 64;
    while (slots < count + count / 2)
        slots *= 2;
    return slots;
}

static void put_merge(struct bpe *m, struct bpe_merge merge)
{
    uint32_t mask = m->num_slots - 1, i = bpe_slot_hash(merge.pair) & mask;
    while (m->merges[i].pair != BPE_NO_PAIR && m->merges[i].pair != merge.pair)
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
    put_merge(m, (struct bpe_merge){ bpe_pair(ids[0], ids[1]), (uint32_t)rank, result });
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
        m->merges[i].pair = BPE_NO_PAIR;
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
        bpe_symbol_of(m, text, len, &m->bytes[b]);
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
        count += m->merges[i].pair != BPE_NO_PAIR;
    m->num_joint_slots = slots_for(count);
    m->joints = xmalloc(m->num_joint_slots * sizeof *m->joints);
    memset(m->joints, 0xFF, m->num_joint_slots * sizeof *m->joints);
    for (uint32_t i = 0; i < m->num_slots; i++) {
        const struct bpe_merge *merge = &m->merges[i];
        if (merge->pair == BPE_NO_PAIR)
            continue;
        int32_t side[2] = { (int32_t)(merge->pair >> 32), (int32_t)(uint32_t)merge->pair };
        const struct vocab_piece *left = &m->vocab->pieces[side[0]],
                                 *right = &m->vocab->pieces[side[1]];
        if (is_long_symbol(m, side[0]) || is_long_symbol(m, side[1]) || !left->len || !right->len)
            return;
        int32_t a = end_symbol(m, left, true), b = end_symbol(m, right, false);
        if (a < 0 || b < 0)
            continue;
        uint64_t pair = bpe_pair(a, b);
        uint32_t mask = m->num_joint_slots - 1, k = bpe_slot_hash(pair) & mask;
        while (m->joints[k] != BPE_NO_PAIR && m->joints[k] != pair)
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
    if (m->byte_fallback && strlen(m->prefix) + strlen(m->suffix) > MAX_AFFIX_BYTES)
        return status_set(st, STATUS_UNSUPPORTED,
                          "the BPE model has affixes of more than %d bytes and a byte_fallback",
                          MAX_AFFIX_BYTES);
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
