/* spm_tokenizer.c - tokenizer.model: loading, and text to ids as LlamaTokenizer.tokenize does it:
 * added tokens are cut out first, SentencePiece gets what lies between them. */
#include "engine/text/spm_tokenizer.h"
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/model_file.h"
#include "engine/text/spm_internal.h"
#include "engine/text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MODEL_BYTES = 64 << 20 };

static const char MODEL_FILE[] = "tokenizer.model";

/* --- encoding ------------------------------------------------------------------------------- */

/* A part of the text; its bytes are in the text or in the encoder's arena. */
struct segment {
    const char *text;
    size_t len;
    int32_t added; /* index of the added token it is, or -1 */
};

struct encoder {
    const struct spm_tokenizer *t;
    struct arena arena;
    struct segment *segments;
    size_t num_segments, cap_segments;
    struct token_sink *sink;
    size_t num_skip;     /* ids still to drop */
    bool second_unknown; /* the second id is SentencePiece's unknown, not the token written out */
};

static void add_segment(struct encoder *e, const char *text, size_t len, int32_t added)
{
    if (len == 0)
        return;
    if (e->num_segments == e->cap_segments) {
        e->cap_segments = e->cap_segments ? e->cap_segments * 2 : 16;
        e->segments = xrealloc(e->segments, e->cap_segments * sizeof *e->segments);
    }
    e->segments[e->num_segments++] = (struct segment){ text, len, added };
}

static void cut(struct encoder *e, const char *text, size_t len)
{
    struct token_match m;
    size_t from = 0;
    while (token_trie_next(&e->t->trie, text, len, from, &m)) {
        add_segment(e, text + from, m.start - from, -1);
        add_segment(e, text + m.start, m.end - m.start, m.value);
        from = m.end;
    }
    add_segment(e, text + from, len - from, -1);
}

static void strip_left(struct segment *s)
{
    size_t n = unicode_span(s->text, s->len, unicode_is_python_space);
    s->text += n;
    s->len -= n;
}

static void strip_right(struct segment *s)
{
    s->len = unicode_trim(s->text, s->len, unicode_is_python_space);
}

/* s becomes a followed by b. */
static void join(struct encoder *e, struct segment *s, const struct segment *a,
                 const struct segment *b)
{
    char *text = arena_alloc(&e->arena, a->len + b->len + 1);
    memcpy(text, a->text, a->len);
    memcpy(text + a->len, b->text, b->len);
    s->text = text;
    s->len = a->len + b->len;
}

static int32_t added_index(const struct spm_tokenizer *t, const struct segment *s)
{
    int32_t value = -1;
    size_t n = token_trie_longest(&t->trie, s->text, s->len, &value);
    return n == s->len && n > 0 ? value : -1;
}

/* lstrip, rstrip and single_word, with the order of effects of PreTrainedTokenizer.tokenize: the
 * neighbours' texts as they were before this token touched them decide about single_word. */
static void apply_flags(struct encoder *e)
{
    for (size_t i = 0; i < e->num_segments; i++) {
        struct segment *s = &e->segments[i];
        int32_t index = added_index(e->t, s);
        if (index < 0)
            continue;
        const struct added_token *a = &e->t->added[index];
        if (!a->lstrip && !a->rstrip && !a->single_word)
            continue;
        struct segment none = { "", 0, -1 };
        struct segment *left = i > 0 ? s - 1 : &none;
        struct segment *right = i + 1 < e->num_segments ? s + 1 : &none;
        struct segment old_left = *left, old_right = *right;
        if (a->rstrip && right->len)
            strip_left(right);
        if (a->lstrip && left->len)
            strip_right(left);
        if (a->single_word && old_left.len && old_left.text[old_left.len - 1] != ' ') {
            join(e, left, left, s);
            s->len = 0;
        } else if (a->single_word && old_right.len && old_right.text[0] != ' ') {
            join(e, right, s, right);
            s->len = 0;
        }
    }
}

static void emit(void *context, int32_t id)
{
    struct encoder *e = context;
    if (e->num_skip > 0) {
        e->num_skip--;
        return;
    }
    if (e->sink->list->len == 1)
        e->second_unknown = e->t->ids[id].kind == SPM_UNKNOWN;
    token_sink_put(e->sink, id);
}

static bool starts_with_space(const struct segment *s)
{
    return s->text[0] == ' ' ||
           (s->len >= SPM_UNDERLINE_LEN && memcmp(s->text, SPM_UNDERLINE, SPM_UNDERLINE_LEN) == 0);
}

static bool encode_segment(struct encoder *e, const struct segment *s, struct status *st)
{
    const struct spm_tokenizer *t = e->t;
    int32_t index = added_index(t, s);
    if (index >= 0) {
        token_sink_put(e->sink, t->added[index].id);
        return true;
    }
    e->num_skip = 0;
    if (t->legacy || !starts_with_space(s))
        return spm_encode(t->spm, s->text, s->len, emit, e, st);
    /* SentencePiece would eat a leading space; behind the unknown token's text it does not. */
    struct segment unk = { t->unk_token, strlen(t->unk_token), -1 }, both;
    join(e, &both, &unk, s);
    e->num_skip = t->num_unk_ids;
    return spm_encode(t->spm, both.text, both.len, emit, e, st);
}

/* Non-legacy: underlines written by the user are spaces, and one underline leads. */
static void lead_with_underline(const struct spm_tokenizer *t, const char *text, size_t len,
                                struct buf *out)
{
    if (t->add_prefix_space)
        buf_append(out, SPM_UNDERLINE, SPM_UNDERLINE_LEN);
    while (len > 0) {
        const char *mark = memmem(text, len, SPM_UNDERLINE, SPM_UNDERLINE_LEN);
        size_t n = mark ? (size_t)(mark - text) : len;
        buf_append(out, text, n);
        if (!mark)
            return;
        buf_append_char(out, ' ');
        text += n + SPM_UNDERLINE_LEN;
        len -= n + SPM_UNDERLINE_LEN;
    }
}

/* *second_unknown: see struct encoder. */
static bool encode_text(const struct spm_tokenizer *t, const char *text, size_t len,
                        struct token_sink *sink, bool *second_unknown, struct status *st)
{
    struct buf prepared;
    buf_init(&prepared, 0);
    if (!t->legacy && len > 0) {
        lead_with_underline(t, text, len, &prepared);
        text = buf_str(&prepared);
        len = prepared.len;
    }
    struct encoder e = { .t = t, .sink = sink };
    arena_init(&e.arena);
    cut(&e, text, len);
    apply_flags(&e);
    bool ok = true;
    for (size_t i = 0; ok && i < e.num_segments && !sink->full; i++) {
        if (e.segments[i].len > 0)
            ok = encode_segment(&e, &e.segments[i], st);
    }
    *second_unknown = e.second_unknown;
    free(e.segments);
    arena_free(&e.arena);
    buf_free(&prepared);
    return ok;
}

static bool encode(const struct tokenizer *base, const char *text, size_t len,
                   bool add_special_tokens, struct token_sink *sink, struct status *st)
{
    const struct spm_tokenizer *t = (const struct spm_tokenizer *)base;
    struct token_list list = { 0 };
    /* One more than fits, for the underline that may go again. */
    struct token_sink inner = { &list, sink->limit == SIZE_MAX ? SIZE_MAX : sink->limit + 1,
                                false };
    bool second_unknown;
    bool ok = encode_text(t, text, len, &inner, &second_unknown, st);
    if (ok) {
        size_t from = 0;
        if (!t->legacy && list.len > 1 && list.ids[0] == t->underline_id &&
            t->ids[list.ids[1]].special && !second_unknown)
            from = 1;
        if (add_special_tokens && t->add_bos)
            token_sink_put(sink, base->bos_id);
        for (size_t i = from; i < list.len && !sink->full; i++)
            token_sink_put(sink, list.ids[i]);
        if (add_special_tokens && t->add_eos)
            token_sink_put(sink, base->eos_id);
        sink->full |= inner.full;
    }
    token_list_free(&list);
    return ok;
}

/* --- loading -------------------------------------------------------------------------------- */

static void spm_tokenizer_free(struct tokenizer *base)
{
    struct spm_tokenizer *t = (struct spm_tokenizer *)base;
    spm_free(t->spm);
    token_trie_free(&t->trie);
    vocab_free(&t->base.vocab);
    free(t->ids);
    free(t->added);
    free(t);
}

static const struct tokenizer_kind SPM_KIND = {
    .name = "tokenizer.model",
    .encode = encode,
    .decode = spm_decode,
    .stream_open = spm_stream_open,
    .stream_push = spm_stream_push,
    .stream_finish = spm_stream_finish,
    .stream_close = spm_stream_close,
    .id_bytes = spm_id_bytes,
    .free = spm_tokenizer_free,
};

static bool read_model(struct spm_tokenizer *t, const char *dir, struct status *st)
{
    struct buf data;
    buf_init(&data, 0);
    bool ok = model_file_read(dir, MODEL_FILE, MAX_MODEL_BYTES, &data, st);
    if (ok) {
        ok = spm_model_check(buf_str(&data), data.len, &t->info, st);
        if (ok && !t->legacy) {
            /* A second normalizer_spec is merged into the first: add_dummy_prefix = false. */
            buf_append(&data, "\x1A\x02\x18\x00", 4);
            t->info.add_dummy_prefix = false;
        }
        ok = ok && spm_load(data.data, data.len, &t->spm, st);
        if (!ok)
            status_prefix(st, "%s/%s: ", dir, MODEL_FILE);
    }
    buf_free(&data);
    return ok;
}

static void read_pieces(struct spm_tokenizer *t)
{
    t->num_model_ids = spm_num_pieces(t->spm);
    for (int32_t id = 0; id < t->num_model_ids; id++) {
        enum spm_piece_kind kind;
        size_t len;
        const char *piece = spm_piece(t->spm, id, &len, &kind);
        vocab_put_model(&t->base.vocab, id, piece, len);
    }
}

static void put_added(struct spm_tokenizer *t, const struct added_token *a, int32_t id)
{
    if (a->len == 0)
        return;
    if (t->num_added == t->cap_added) {
        t->cap_added = t->cap_added ? t->cap_added * 2 : 16;
        t->added = xrealloc(t->added, (size_t)t->cap_added * sizeof *t->added);
    }
    struct added_token *copy = &t->added[t->num_added];
    *copy = *a;
    copy->id = id;
    copy->content = vocab_put_added(&t->base.vocab, id, a->content, a->len, a->special);
    token_trie_add(&t->trie, copy->content, copy->len, t->num_added++);
}

/* A token that must exist: in the added ones, in the model, or new behind all others. */
static bool ensure_token(struct spm_tokenizer *t, const struct added_token *a, struct status *st)
{
    if (string_map_find(&t->base.vocab.added_ids, a->content, a->len) >= 0)
        return true;
    int32_t id = string_map_get(&t->base.vocab.model_ids, a->content, a->len, -1);
    size_t fresh = vocab_count(&t->base.vocab);
    if (id < 0 && fresh >= TOKENIZER_MAX_ID)
        return status_set(st, STATUS_INVALID, "more than %d tokens", TOKENIZER_MAX_ID);
    put_added(t, a, id >= 0 ? id : (int32_t)fresh);
    return true;
}

static bool add_tokens(struct spm_tokenizer *t, const struct tokenizer_config *c,
                       const struct added_token *named, struct status *st)
{
    for (int32_t i = 0; i < c->num_added; i++)
        put_added(t, &c->added[i], c->added[i].id);
    for (int r = 0; r < NUM_SPECIAL_ROLES; r++) {
        if (named[r].content && !ensure_token(t, &named[r], st))
            return false;
    }
    for (int32_t i = 0; i < c->num_additional; i++) {
        if (!ensure_token(t, &c->additional[i], st))
            return false;
    }
    return true;
}

/* Only LlamaTokenizer's rules are offered; another class would silently get other ids. */
static bool check_class(const struct tokenizer_config *c, struct status *st)
{
    const char *name = c->tokenizer_class;
    if (!name || strcmp(name, "LlamaTokenizer") == 0 || strcmp(name, "PreTrainedTokenizer") == 0)
        return true;
    return status_set(st, STATUS_UNSUPPORTED,
                      "tokenizer_class %s cannot be read from tokenizer.model; put the model's "
                      "tokenizer.json beside it",
                      name);
}

static void default_names(const struct tokenizer_config *c, struct added_token *named)
{
    static const char *const defaults[NUM_SPECIAL_ROLES] = {
        [SPECIAL_BOS] = "<s>", [SPECIAL_EOS] = "</s>", [SPECIAL_UNK] = "<unk>"
    };
    for (int r = 0; r < NUM_SPECIAL_ROLES; r++) {
        named[r] = c->special[r];
        if (!named[r].content && !c->special_null[r] && defaults[r])
            named[r] = (struct added_token){ .content = defaults[r],
                                             .len = (uint32_t)strlen(defaults[r]),
                                             .id = -1,
                                             .special = true };
    }
}

static void classify_ids(struct spm_tokenizer *t, const struct tokenizer_config *c,
                         const struct added_token *named)
{
    struct vocab *v = &t->base.vocab;
    struct string_map names = { 0 }, additional = { 0 };
    for (int r = 0; r < NUM_SPECIAL_ROLES; r++) {
        if (named[r].content)
            string_map_put(&names, named[r].content, named[r].len, r);
    }
    for (int32_t i = 0; i < c->num_additional; i++)
        string_map_put(&additional, c->additional[i].content, c->additional[i].len, i);
    t->ids = xcalloc((size_t)v->size, sizeof *t->ids);
    for (int32_t id = 0; id < v->size; id++) {
        struct vocab_piece *p = &v->pieces[id];
        struct spm_id *d = &t->ids[id];
        size_t len;
        if (id < t->num_model_ids)
            spm_piece(t->spm, id, &len, &d->kind);
        if (!p->text)
            continue;
        unsigned int byte = 0;
        if (d->kind == SPM_BYTE && sscanf(p->text, "<0x%2x>", &byte) == 1)
            d->byte = (unsigned char)byte;
        bool is_additional = string_map_find(&additional, p->text, p->len) >= 0;
        d->special = is_additional || string_map_find(&names, p->text, p->len) >= 0;
        d->separator = p->added && (!d->special || (is_additional && id >= t->num_model_ids));
        p->special = d->special;
    }
    string_map_free(&names);
    string_map_free(&additional);
}

static void count_unk_id(void *context, int32_t id)
{
    (void)id;
    ++*(size_t *)context;
}

static bool finish_load(struct spm_tokenizer *t, const struct tokenizer_config *c,
                        struct status *st)
{
    struct added_token named[NUM_SPECIAL_ROLES];
    default_names(c, named);
    read_pieces(t);
    if (!add_tokens(t, c, named, st))
        return false;
    classify_ids(t, c, named);
    struct vocab *v = &t->base.vocab;
    int32_t *ids[] = { &t->base.bos_id, &t->base.eos_id };
    for (int r = SPECIAL_BOS; r <= SPECIAL_EOS; r++)
        *ids[r] = named[r].content ? vocab_find(v, named[r].content, named[r].len) : -1;
    t->add_bos = c->add_bos_token != NO;
    t->add_eos = c->add_eos_token == YES;
    if ((t->add_bos && t->base.bos_id < 0) || (t->add_eos && t->base.eos_id < 0))
        return status_set(st, STATUS_INVALID,
                          "tokenizer_config.json asks for a BOS or EOS token around every text but "
                          "names none");
    t->underline_id = string_map_get(&v->model_ids, SPM_UNDERLINE, SPM_UNDERLINE_LEN, -1);
    const struct added_token *unk = &named[SPECIAL_UNK];
    t->unk_token = arena_strndup(&v->arena, unk->content ? unk->content : "", unk->len);
    return spm_encode(t->spm, t->unk_token, strlen(t->unk_token), count_unk_id, &t->num_unk_ids,
                      st);
}

bool spm_tokenizer_load(const char *dir, const struct tokenizer_config *c, struct tokenizer **out,
                        struct status *st)
{
    struct spm_tokenizer *t = xcalloc(1, sizeof *t);
    t->base.kind = &SPM_KIND;
    arena_init(&t->base.vocab.arena);
    t->legacy = c->legacy != NO;
    t->add_prefix_space = c->add_prefix_space != NO;
    bool ok = check_class(c, st) || status_prefix(st, "%s: ", dir);
    ok = ok && read_model(t, dir, st);
    if (ok && !finish_load(t, c, st))
        ok = status_prefix(st, "%s/%s: ", dir, MODEL_FILE);
    if (!ok) {
        spm_tokenizer_free(&t->base);
        return false;
    }
    *out = &t->base;
    return true;
}
