/* bpe_build.c - the tables of a BPE model: merges by pair, pieces as bytes, and where a word may be
 * cut. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/bpe_internal.h"
#include "engine/text/byte_level.h"
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

static bool put_merges(struct bpe *m, const struct bpe_merge *merges, size_t count,
                       struct status *st)
{
    if (count > BPE_MAX_MERGES)
        return status_set(st, STATUS_INVALID, "the BPE model has %zu merges; the limit is %d",
                          count, BPE_MAX_MERGES);
    m->num_slots = slots_for(count);
    m->merges = xmalloc(m->num_slots * sizeof *m->merges);
    for (uint32_t i = 0; i < m->num_slots; i++)
        m->merges[i].pair = BPE_NO_PAIR;
    for (size_t i = 0; i < count; i++)
        put_merge(m, merges[i]);
    return true;
}

bool bpe_merge_of(const struct vocab *vocab, const char *const side[2], const size_t len[2],
                  size_t prefix_len, struct bpe_merge *merge, struct status *st)
{
    int32_t ids[2];
    for (int i = 0; i < 2; i++) {
        ids[i] = string_map_get(&vocab->model_ids, side[i], len[i], -1);
        if (ids[i] < 0)
            return status_set(st, STATUS_INVALID, "merge %u: \"%.*s\" is not in the vocabulary",
                              merge->rank, (int)(len[i] < 60 ? len[i] : 60), side[i]);
    }
    if (len[1] < prefix_len)
        return status_set(st, STATUS_INVALID, "merge %u: the right side has no prefix",
                          merge->rank);
    size_t total = len[0] + len[1] - prefix_len;
    char small[256], *joined = total <= sizeof small ? small : xmalloc(total);
    memcpy(joined, side[0], len[0]);
    memcpy(joined + len[0], side[1] + prefix_len, len[1] - prefix_len);
    merge->pair = bpe_pair(ids[0], ids[1]);
    merge->result = string_map_get(&vocab->model_ids, joined, total, -1);
    bool ok = merge->result >= 0 ||
              status_set(st, STATUS_INVALID, "merge %u: \"%.*s\" is not in the vocabulary",
                         merge->rank, (int)(total < 60 ? total : 60), joined);
    if (joined != small)
        free(joined);
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

static void set_options(struct bpe *m, const struct bpe_options *o)
{
    m->byte_fallback = o->byte_fallback;
    m->fuse_unk = o->fuse_unk;
    m->ignore_merges = o->ignore_merges;
    m->raw_bytes = o->raw_bytes;
    m->prefix = xstrndup(o->prefix ? o->prefix : "", o->prefix ? strlen(o->prefix) : 0);
    m->suffix = xstrndup(o->suffix ? o->suffix : "", o->suffix ? strlen(o->suffix) : 0);
    m->unk_token = o->unk_token ? xstrndup(o->unk_token, o->unk_len) : NULL;
    m->unk_id =
        o->unk_token ? string_map_get(&m->vocab->model_ids, o->unk_token, o->unk_len, -1) : -1;
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        m->byte_ids[b] = string_map_get(&m->vocab->model_ids, text, 6, -1);
    }
}

bool bpe_build(const struct bpe_options *options, const struct bpe_merge *merges, size_t num_merges,
               const struct vocab *vocab, struct bpe **out, struct status *st)
{
    struct bpe *m = xcalloc(1, sizeof *m);
    *out = NULL;
    m->vocab = vocab;
    m->pieces = &vocab->model_ids;
    arena_init(&m->raw_arena);
    set_options(m, options);
    bool ok = put_merges(m, merges, num_merges, st);
    if (ok && m->byte_fallback && strlen(m->prefix) + strlen(m->suffix) > MAX_AFFIX_BYTES)
        ok = status_set(st, STATUS_UNSUPPORTED,
                        "the BPE model has affixes of more than %d bytes and a byte_fallback",
                        MAX_AFFIX_BYTES);
    if (!ok) {
        bpe_free(m);
        return false;
    }
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
