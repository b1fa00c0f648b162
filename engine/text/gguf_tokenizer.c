/* gguf_tokenizer.c - builds a tokenizer from the vocabulary of a GGUF file. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/utf8.h"
#include "engine/text/gguf_internal.h"
#include "engine/text/gguf_pre.h"
#include "engine/text/pipeline_tokenizer.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- checks --------------------------------------------------------------------------------- */

static bool check_arrays(const struct gguf_vocab *v, struct status *st)
{
    if (!v->tokens || v->num_tokens == 0)
        return status_set(st, STATUS_INVALID, "there is no tokenizer.ggml.tokens");
    if (v->num_tokens > TOKENIZER_MAX_ID)
        return status_set(st, STATUS_INVALID,
                          "tokenizer.ggml.tokens has %zu tokens; the limit is %d", v->num_tokens,
                          TOKENIZER_MAX_ID);
    if (v->types && v->num_types < v->num_tokens)
        return status_set(st, STATUS_INVALID,
                          "tokenizer.ggml.token_type has %zu entries for %zu tokens", v->num_types,
                          v->num_tokens);
    if (v->scores && v->num_scores < v->num_tokens)
        return status_set(st, STATUS_INVALID,
                          "tokenizer.ggml.scores has %zu entries for %zu tokens", v->num_scores,
                          v->num_tokens);
    return true;
}

static bool put_tokens(struct pipeline_tokenizer *t, const struct gguf_vocab *v, struct status *st)
{
    for (size_t id = 0; id < v->num_tokens; id++) {
        const struct gguf_text *token = &v->tokens[id];
        if (!token->data || token->len > TOKENIZER_MAX_PIECE_BYTES)
            return status_set(st, STATUS_INVALID,
                              "tokenizer.ggml.tokens: token %zu has %zu bytes; the limit is %d", id,
                              token->len, TOKENIZER_MAX_PIECE_BYTES);
        if (!utf8_valid(token->data, token->len))
            return status_set(st, STATUS_INVALID, "tokenizer.ggml.tokens: token %zu is not UTF-8",
                              id);
        if (token->len > 0 &&
            string_map_find(&t->base.vocab.model_ids, token->data, token->len) >= 0)
            return status_set(st, STATUS_INVALID,
                              "tokenizer.ggml.tokens: token %zu, \"%.*s\", is there twice", id,
                              (int)(token->len < 60 ? token->len : 60), token->data);
        if (!pipeline_tokenizer_put_piece(t, (int64_t)id, token->data, token->len, st))
            return false;
    }
    t->added.model_size = (int32_t)v->num_tokens;
    return true;
}

/* --- added tokens ----------------------------------------------------------------------------- */

static bool holds(const struct gguf_text *t, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; t->data && i + n <= t->len; i++) {
        size_t k = 0;
        while (k < n && tolower((unsigned char)t->data[i + k]) == word[k])
            k++;
        if (k == n)
            return true;
    }
    return false;
}

/* The format has no flags for tokens. Phi-3's take the white space behind them, which llama.cpp
 * knows by the model's name. */
static bool strips_right(const struct gguf_vocab *v, const struct gguf_text *token)
{
    return (holds(&v->name, "phi-3") || holds(&v->name, "phi3")) && !gguf_text_is(token, "<unk>") &&
           !gguf_text_is(token, "<s>") && !gguf_text_is(token, "<|endoftext|>");
}

static bool put_added(struct pipeline_tokenizer *t, const struct gguf_vocab *v, struct status *st)
{
    for (size_t id = 0; id < v->num_tokens; id++) {
        enum gguf_token_type type = gguf_vocab_type(v, id);
        if (type != GGUF_TOKEN_CONTROL && type != GGUF_TOKEN_USER_DEFINED &&
            type != GGUF_TOKEN_UNKNOWN)
            continue;
        struct added_token token = { .content = v->tokens[id].data,
                                     .len = (uint32_t)v->tokens[id].len,
                                     .id = (int32_t)id,
                                     .special = type != GGUF_TOKEN_USER_DEFINED,
                                     .rstrip = strips_right(v, &v->tokens[id]) };
        if (!added_vocab_put(&t->added, &token, st))
            return false;
    }
    return true;
}

/* BOS and EOS, and whether they stand around every text; `bos` is what the kind of tokenizer does
 * where the file does not say. */
static bool set_ends(struct pipeline_tokenizer *t, const struct gguf_vocab *v, bool bos,
                     struct status *st)
{
    t->base.bos_id = gguf_vocab_id(v, v->bos_id);
    t->base.eos_id = gguf_vocab_id(v, v->eos_id);
    bool add_bos = v->add_bos == GGUF_FLAG_UNSET ? bos : v->add_bos == GGUF_FLAG_TRUE;
    bool add_eos = v->add_eos == GGUF_FLAG_TRUE;
    if ((add_bos && t->base.bos_id < 0) || (add_eos && t->base.eos_id < 0))
        return status_set(st, STATUS_INVALID,
                          "every text gets a%s token, but tokenizer.ggml.%s_token_id is %lld",
                          add_bos && t->base.bos_id < 0 ? " BOS" : "n EOS",
                          add_bos && t->base.bos_id < 0 ? "bos" : "eos",
                          (long long)(add_bos && t->base.bos_id < 0 ? v->bos_id : v->eos_id));
    if (add_bos)
        token_list_append(&t->post_processor.before, &t->base.bos_id, 1);
    if (add_eos)
        token_list_append(&t->post_processor.behind, &t->base.eos_id, 1);
    return true;
}

/* --- "gpt2": byte-level BPE ------------------------------------------------------------------- */

static bool read_merges(const struct gguf_vocab *v, const struct vocab *vocab,
                        struct bpe_merge *merges, struct status *st)
{
    for (size_t i = 0; i < v->num_merges; i++) {
        const struct gguf_text *m = &v->merges[i];
        /* A piece may begin with a space only where it is one. */
        const char *space = m->len > 1 ? memchr(m->data + 1, ' ', m->len - 1) : NULL;
        if (!space)
            return status_set(st, STATUS_INVALID,
                              "tokenizer.ggml.merges: merge %zu is not two pieces", i);
        const char *const side[2] = { m->data, space + 1 };
        const size_t len[2] = { (size_t)(space - m->data), m->len - (size_t)(space + 1 - m->data) };
        merges[i].rank = (uint32_t)i;
        if (!bpe_merge_of(vocab, side, len, 0, &merges[i], st))
            return status_prefix(st, "tokenizer.ggml.merges: ");
    }
    return true;
}

static bool load_merges(struct pipeline_tokenizer *t, const struct gguf_vocab *v,
                        const struct bpe_options *options, struct status *st)
{
    if (!v->merges || v->num_merges > BPE_MAX_MERGES)
        return status_set(st, STATUS_INVALID, "there is no tokenizer.ggml.merges of at most %d",
                          BPE_MAX_MERGES);
    struct bpe_merge *merges = xmalloc((v->num_merges + 1) * sizeof *merges);
    bool ok = read_merges(v, &t->base.vocab, merges, st) &&
              bpe_build(options, merges, v->num_merges, &t->base.vocab, &t->bpe, st);
    free(merges);
    return ok;
}

static bool find_pre(const struct gguf_vocab *v, const struct gguf_pre **pre, struct status *st)
{
    if (!v->pre.data) {
        log_warning(
            "%s has no tokenizer.ggml.pre: texts are cut as in \"default\", which may not be "
            "how the model was trained",
            v->file);
        *pre = gguf_pre_find("default", strlen("default"));
        return true;
    }
    *pre = gguf_pre_find(v->pre.data, v->pre.len);
    if (*pre)
        return true;
    struct buf names;
    buf_init(&names, 0);
    gguf_pre_names(&names);
    status_set(st, STATUS_UNSUPPORTED, "tokenizer.ggml.pre \"%.*s\" is not one of: %s",
               (int)(v->pre.len < 60 ? v->pre.len : 60), v->pre.data, buf_str(&names));
    buf_free(&names);
    return false;
}

static bool build_gpt2(struct pipeline_tokenizer *t, const struct gguf_vocab *v, struct status *st)
{
    const struct gguf_pre *pre;
    if (!find_pre(v, &pre, st))
        return false;
    json_t *spec = gguf_pre_spec(pre), *decoder = json_pack("{s:s}", "type", "ByteLevel");
    bool ok = pretokenizer_load(spec, UNSET, &t->pretokenizer, st) &&
              token_decoder_load(decoder, &t->decoder, st);
    json_decref(spec);
    json_decref(decoder);
    struct bpe_options options = { .ignore_merges = pre->ignore_merges };
    options.raw_bytes = ok && pretokenizer_take_raw_bytes(t->pretokenizer);
    return ok && load_merges(t, v, &options, st) && set_ends(t, v, pre->add_bos, st);
}

/* --- "llama": SentencePiece's BPE ------------------------------------------------------------- */

struct scored {
    float score;
    int32_t id;
};

static int by_falling_score(const void *a, const void *b)
{
    float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return (x < y) - (x > y);
}

/* ranks[id]: 0 for the highest score; equal scores have equal ranks, so that of two merges the left
 * one goes first. */
static bool rank_scores(const struct gguf_vocab *v, uint32_t *ranks, struct status *st)
{
    struct scored *order = xmalloc(v->num_tokens * sizeof *order);
    bool ok = true;
    for (size_t id = 0; id < v->num_tokens; id++) {
        order[id] = (struct scored){ v->scores[id], (int32_t)id };
        if (isnan(v->scores[id]))
            ok = status_set(st, STATUS_INVALID,
                            "tokenizer.ggml.scores: the score of token %zu is not a number", id);
    }
    if (ok) {
        qsort(order, v->num_tokens, sizeof *order, by_falling_score);
        uint32_t rank = 0;
        for (size_t i = 0; i < v->num_tokens; i++) {
            rank += i > 0 && order[i].score != order[i - 1].score;
            ranks[order[i].id] = rank;
        }
    }
    free(order);
    return ok;
}

struct merge_list {
    struct bpe_merge *merges;
    size_t num, cap;
};

static void add_merge(struct merge_list *l, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    if (l->num == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 1 << 16;
        l->merges = xrealloc(l->merges, l->cap * sizeof *l->merges);
    }
    l->merges[l->num++] = (struct bpe_merge){ bpe_pair(left, right), rank, id };
}

/* Every way to put a piece together from two others is a merge of its rank. */
static bool split_pieces(const struct gguf_vocab *v, const struct vocab *vocab,
                         const uint32_t *ranks, struct merge_list *l, struct status *st)
{
    for (size_t id = 0; id < v->num_tokens; id++) {
        const struct gguf_text *p = &v->tokens[id];
        for (size_t i = 1; i < p->len; i++) {
            if (((unsigned char)p->data[i] & 0xC0) == 0x80)
                continue; /* inside a character */
            int32_t left = string_map_get(&vocab->model_ids, p->data, i, -1);
            if (left < 0)
                continue;
            int32_t right = string_map_get(&vocab->model_ids, p->data + i, p->len - i, -1);
            if (right >= 0)
                add_merge(l, left, right, ranks[id], (int32_t)id);
        }
        if (l->num > BPE_MAX_MERGES)
            return status_set(st, STATUS_INVALID,
                              "tokenizer.ggml.tokens: the pieces merge in more than %d ways",
                              BPE_MAX_MERGES);
    }
    return true;
}

static bool load_scores(struct pipeline_tokenizer *t, const struct gguf_vocab *v,
                        const struct bpe_options *options, struct status *st)
{
    if (!v->scores)
        return status_set(st, STATUS_INVALID, "there is no tokenizer.ggml.scores");
    uint32_t *ranks = xmalloc(v->num_tokens * sizeof *ranks);
    struct merge_list l = { 0 };
    bool ok = rank_scores(v, ranks, st) && split_pieces(v, &t->base.vocab, ranks, &l, st) &&
              bpe_build(options, l.merges, l.num, &t->base.vocab, &t->bpe, st);
    free(l.merges);
    free(ranks);
    return ok;
}

#define UNDERLINE "\xE2\x96\x81"

/* A prefix space stands before every text and behind every added token, and decoding takes the
 * first one away. */
static bool load_spaces(struct pipeline_tokenizer *t, bool prefix, struct status *st)
{
    json_t *normalizers = json_array(), *decoders = json_array();
    if (prefix)
        json_array_append_new(normalizers,
                              json_pack("{s:s, s:s}", "type", "Prepend", "prepend", UNDERLINE));
    json_array_append_new(normalizers, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace",
                                                 "pattern", "String", " ", "content", UNDERLINE));
    json_array_append_new(decoders, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern",
                                              "String", UNDERLINE, "content", " "));
    json_array_append_new(decoders, json_pack("{s:s}", "type", "ByteFallback"));
    json_array_append_new(decoders, json_pack("{s:s}", "type", "Fuse"));
    if (prefix)
        json_array_append_new(decoders, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                  "content", " ", "start", 1, "stop", 0));
    json_t *normalizer = json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", normalizers);
    json_t *decoder = json_pack("{s:s, s:o}", "type", "Sequence", "decoders", decoders);
    bool ok = normalizer_load(normalizer, &t->normalizer, st) &&
              token_decoder_load(decoder, &t->decoder, st);
    json_decref(normalizer);
    json_decref(decoder);
    return ok;
}

static bool build_llama(struct pipeline_tokenizer *t, const struct gguf_vocab *v, struct status *st)
{
    struct bpe_options options = { .byte_fallback = true, .fuse_unk = true };
    int32_t unk = gguf_vocab_id(v, v->unk_id);
    const struct gguf_text *unk_token = &v->tokens[unk >= 0 ? unk : 0];
    options.unk_token = unk_token->data;
    options.unk_len = unk_token->len;
    return load_spaces(t, v->add_space_prefix != GGUF_FLAG_FALSE, st) &&
           load_scores(t, v, &options, st) && set_ends(t, v, true, st);
}

/* --- the table ----------------------------------------------------------------------------------
 */

static const struct {
    const char *model;
    bool (*build)(struct pipeline_tokenizer *t, const struct gguf_vocab *v, struct status *st);
    int32_t bos_id, eos_id; /* where the file names none; -1: none */
} KINDS[] = {
    { "gpt2", build_gpt2, -1, -1 },
    { "llama", build_llama, 1, 2 },
};

enum { NUM_KINDS = sizeof KINDS / sizeof KINDS[0] };

static bool build(struct pipeline_tokenizer *t, const struct gguf_vocab *v, struct status *st)
{
    int k = 0;
    while (k < NUM_KINDS && !gguf_text_is(&v->model, KINDS[k].model))
        k++;
    if (!v->model.data)
        return status_set(st, STATUS_INVALID, "there is no tokenizer.ggml.model");
    if (k == NUM_KINDS)
        return status_set(st, STATUS_UNSUPPORTED,
                          "tokenizer.ggml.model \"%.*s\" is not one of: gpt2 llama",
                          (int)(v->model.len < 60 ? v->model.len : 60), v->model.data);
    struct gguf_vocab named = *v;
    if (named.bos_id < 0)
        named.bos_id = KINDS[k].bos_id;
    if (named.eos_id < 0)
        named.eos_id = KINDS[k].eos_id;
    return check_arrays(v, st) && put_tokens(t, v, st) && KINDS[k].build(t, &named, st) &&
           put_added(t, v, st) && pipeline_tokenizer_finish(t, st);
}

bool gguf_tokenizer_load(const struct gguf_vocab *v, struct tokenizer **out, struct status *st)
{
    struct pipeline_tokenizer *t = pipeline_tokenizer_new();
    *out = NULL;
    if (!build(t, v, st)) {
        pipeline_tokenizer_free(t);
        return status_prefix(st, "%s: ", v->file);
    }
    *out = &t->base;
    return true;
}
