/* gguf_fixture.h - a struct gguf_vocab from JSON, for tests and for the comparison with other
 * implementations:
 *   {"model": T, "pre": T, "name": T, "tokens": [T], "scores": [x], "types": [n], "merges": [T],
 *    "bos_id": n, ..., "add_bos": B, "chat_template": T, ...}, each key optional. */
#ifndef INFERD_TESTS_GGUF_FIXTURE_H
#define INFERD_TESTS_GGUF_FIXTURE_H

#include "base/alloc.h"
#include "engine/text/gguf_vocab.h"

#include <jansson.h>
#include <stdlib.h>

/* Owns the arrays; the texts are the JSON value's. */
struct gguf_fixture {
    struct gguf_vocab vocab;
    struct gguf_text *tokens, *merges;
    float *scores;
    int32_t *types;
};

static inline struct gguf_text gguf_fixture_text(const json_t *value)
{
    return (struct gguf_text){ json_string_value(value), json_string_length(value) };
}

static inline struct gguf_text *gguf_fixture_texts(const json_t *list, size_t *count)
{
    *count = json_array_size(list);
    if (!list)
        return NULL;
    struct gguf_text *out = xcalloc(*count + 1, sizeof *out);
    for (size_t i = 0; i < *count; i++)
        out[i] = gguf_fixture_text(json_array_get(list, i));
    return out;
}

static inline void gguf_fixture_flag(const json_t *root, const char *key, enum gguf_flag *out)
{
    const json_t *v = json_object_get(root, key);
    if (v)
        *out = json_is_true(v) ? GGUF_FLAG_TRUE : GGUF_FLAG_FALSE;
}

static inline void gguf_fixture_id(const json_t *root, const char *key, int64_t *out)
{
    const json_t *v = json_object_get(root, key);
    if (v)
        *out = json_integer_value(v);
}

static inline void gguf_fixture_numbers(struct gguf_fixture *f, const json_t *scores,
                                        const json_t *types)
{
    struct gguf_vocab *v = &f->vocab;
    v->num_scores = json_array_size(scores);
    v->num_types = json_array_size(types);
    if (scores)
        f->scores = xcalloc(v->num_scores + 1, sizeof *f->scores);
    for (size_t i = 0; i < v->num_scores; i++)
        f->scores[i] = (float)json_number_value(json_array_get(scores, i));
    if (types)
        f->types = xcalloc(v->num_types + 1, sizeof *f->types);
    for (size_t i = 0; i < v->num_types; i++)
        f->types[i] = (int32_t)json_integer_value(json_array_get(types, i));
    v->scores = f->scores;
    v->types = f->types;
}

static inline void gguf_fixture_read(const json_t *root, struct gguf_fixture *f)
{
    struct gguf_vocab *v = &f->vocab;
    *f = (struct gguf_fixture){ .tokens = NULL };
    gguf_vocab_init(v);
    v->file = "test.gguf";
    v->model = gguf_fixture_text(json_object_get(root, "model"));
    v->pre = gguf_fixture_text(json_object_get(root, "pre"));
    v->name = gguf_fixture_text(json_object_get(root, "name"));
    v->chat_template = gguf_fixture_text(json_object_get(root, "chat_template"));
    v->chat_template_tool_use = gguf_fixture_text(json_object_get(root, "chat_template_tool_use"));
    v->tokens = f->tokens = gguf_fixture_texts(json_object_get(root, "tokens"), &v->num_tokens);
    v->merges = f->merges = gguf_fixture_texts(json_object_get(root, "merges"), &v->num_merges);
    gguf_fixture_numbers(f, json_object_get(root, "scores"), json_object_get(root, "types"));
    gguf_fixture_id(root, "bos_id", &v->bos_id);
    gguf_fixture_id(root, "eos_id", &v->eos_id);
    gguf_fixture_id(root, "unk_id", &v->unk_id);
    gguf_fixture_id(root, "pad_id", &v->pad_id);
    gguf_fixture_id(root, "eot_id", &v->eot_id);
    gguf_fixture_id(root, "eom_id", &v->eom_id);
    gguf_fixture_flag(root, "add_bos", &v->add_bos);
    gguf_fixture_flag(root, "add_eos", &v->add_eos);
    gguf_fixture_flag(root, "add_space_prefix", &v->add_space_prefix);
}

static inline void gguf_fixture_free(struct gguf_fixture *f)
{
    free(f->tokens);
    free(f->merges);
    free(f->scores);
    free(f->types);
}

#endif
