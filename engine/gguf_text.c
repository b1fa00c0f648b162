/* gguf_text.c - fills struct gguf_vocab from the metadata; strings stay where they are mapped. */
#include "engine/gguf_text.h"
#include "base/alloc.h"
#include "config/limits.h"

#include <stdlib.h>

/* What a vocabulary points to, for the length of a call. */
struct lists {
    struct gguf_text *tokens, *merges;
    float *scores;
    int32_t *types;
};

static bool read_text(const struct gguf_metadata *m, const char *key, struct gguf_text *out,
                      struct status *st)
{
    return gguf_get_string(m, key, &out->data, &out->len, st);
}

static bool read_texts(const struct gguf_metadata *m, const char *key, struct gguf_text **list,
                       size_t *count, struct status *st)
{
    const struct gguf_value *v;
    if (!gguf_get_array(m, key, GGUF_STRING, &v, st) || !v)
        return v == NULL && st->code == STATUS_OK;
    if (v->count > 2ull * LIMIT_VOCAB_SIZE)
        return status_set(st, STATUS_INVALID, "%s: key '%s' has %llu entries, at most %d are read",
                          m->file, key, (unsigned long long)v->count, 2 * LIMIT_VOCAB_SIZE);
    struct gguf_cursor at = v->data;
    *count = (size_t)v->count;
    *list = xcalloc(*count + 1, sizeof **list);
    for (size_t i = 0; i < *count; i++)
        gguf_array_next_string(&at, &(*list)[i].data, &(*list)[i].len);
    return true;
}

/* Numbers one for each token; more of them are refused by whoever takes the vocabulary. */
static bool read_numbers(const struct gguf_metadata *m, struct gguf_vocab *v, struct lists *l,
                         struct status *st)
{
    const struct gguf_value *scores, *types;
    if (!gguf_get_array(m, "tokenizer.ggml.scores", GGUF_F32, &scores, st) ||
        !gguf_get_array(m, "tokenizer.ggml.token_type", GGUF_I32, &types, st))
        return false;
    v->num_scores = scores ? (size_t)scores->count : 0;
    v->num_types = types ? (size_t)types->count : 0;
    if (v->num_scores > LIMIT_VOCAB_SIZE || v->num_types > LIMIT_VOCAB_SIZE)
        return status_set(st, STATUS_INVALID, "%s: more than %d scores or token types", m->file,
                          LIMIT_VOCAB_SIZE);
    if (scores)
        v->scores = l->scores = xcalloc(v->num_scores + 1, sizeof *l->scores);
    for (size_t i = 0; i < v->num_scores; i++)
        l->scores[i] = (float)gguf_array_float(scores, i);
    if (types)
        v->types = l->types = xcalloc(v->num_types + 1, sizeof *l->types);
    for (size_t i = 0; i < v->num_types; i++) {
        int64_t type = gguf_array_int(types, i);
        l->types[i] = type >= 0 && type <= INT32_MAX ? (int32_t)type : -1;
    }
    return true;
}

static bool read_ids(const struct gguf_metadata *m, struct gguf_vocab *v, struct status *st)
{
    const struct {
        const char *key;
        int64_t *id;
    } rows[] = {
        { "tokenizer.ggml.bos_token_id", &v->bos_id },
        { "tokenizer.ggml.eos_token_id", &v->eos_id },
        { "tokenizer.ggml.unknown_token_id", &v->unk_id },
        { "tokenizer.ggml.seperator_token_id", &v->sep_id },
        { "tokenizer.ggml.padding_token_id", &v->pad_id },
        { "tokenizer.ggml.cls_token_id", &v->cls_id },
        { "tokenizer.ggml.mask_token_id", &v->mask_id },
        { "tokenizer.ggml.eot_token_id", &v->eot_id },
        { "tokenizer.ggml.eom_token_id", &v->eom_id },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!gguf_get_int(m, rows[i].key, INT32_MIN, UINT32_MAX, rows[i].id, st))
            return false;
    return true;
}

static bool read_flags(const struct gguf_metadata *m, struct gguf_vocab *v, struct status *st)
{
    const struct {
        const char *key;
        enum gguf_flag *flag;
    } rows[] = {
        { "tokenizer.ggml.add_bos_token", &v->add_bos },
        { "tokenizer.ggml.add_eos_token", &v->add_eos },
        { "tokenizer.ggml.add_space_prefix", &v->add_space_prefix },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool set = false;
        if (!gguf_get_bool(m, rows[i].key, &set, st))
            return false;
        if (gguf_find(m, rows[i].key))
            *rows[i].flag = set ? GGUF_FLAG_TRUE : GGUF_FLAG_FALSE;
    }
    return true;
}

static bool read_vocab(const struct gguf_metadata *m, struct gguf_vocab *v, struct lists *l,
                       struct status *st)
{
    gguf_vocab_init(v);
    v->file = m->file;
    status_clear(st);
    if (!read_text(m, "tokenizer.ggml.model", &v->model, st) ||
        !read_text(m, "tokenizer.ggml.pre", &v->pre, st) ||
        !read_text(m, "general.name", &v->name, st) ||
        !read_text(m, "tokenizer.chat_template", &v->chat_template, st) ||
        !read_text(m, "tokenizer.chat_template.tool_use", &v->chat_template_tool_use, st) ||
        !read_texts(m, "tokenizer.ggml.tokens", &l->tokens, &v->num_tokens, st) ||
        !read_texts(m, "tokenizer.ggml.merges", &l->merges, &v->num_merges, st))
        return false;
    v->tokens = l->tokens;
    v->merges = l->merges;
    return read_numbers(m, v, l, st) && read_ids(m, v, st) && read_flags(m, v, st);
}

bool gguf_text_load(const struct gguf *g, const char *override, struct tokenizer **tokenizer,
                    struct chat_template **template, struct token_list *ends, struct status *st)
{
    struct gguf_vocab v;
    struct lists l = { 0 };
    *tokenizer = NULL;
    bool ok = read_vocab(&g->metadata, &v, &l, st) && gguf_tokenizer_load(&v, tokenizer, st) &&
              gguf_chat_template_load(&v, override, template, st);
    if (ok)
        gguf_vocab_eog_ids(&v, ends);
    else
        tokenizer_free(*tokenizer);
    free(l.tokens);
    free(l.merges);
    free(l.scores);
    free(l.types);
    return ok;
}
