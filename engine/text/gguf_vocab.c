/* gguf_vocab.c - what the tokens of a GGUF vocabulary are: their types, and which end an answer. */
#include "engine/text/gguf_internal.h"

#include <string.h>

void gguf_vocab_init(struct gguf_vocab *v)
{
    *v = (struct gguf_vocab){ .file = "", .add_bos = GGUF_FLAG_UNSET };
    v->add_eos = v->add_space_prefix = GGUF_FLAG_UNSET;
    v->bos_id = v->eos_id = v->unk_id = v->sep_id = v->pad_id = -1;
    v->cls_id = v->mask_id = v->eot_id = v->eom_id = -1;
}

bool gguf_text_is(const struct gguf_text *t, const char *text)
{
    return t->data && t->len == strlen(text) && memcmp(t->data, text, t->len) == 0;
}

/* Beyond EOS, EOT and EOM no key says which tokens end an answer. llama.cpp knows them by their
 * text (llama_vocab::impl::load), and these are the texts it knows: first the ends of texts and
 * turns, then what comes behind a file when code is filled in. */
static const char *const ENDS[] = { "<|eot_id|>",
                                    "<|im_end|>",
                                    "<|end|>",
                                    "<|return|>",
                                    "<|call|>",
                                    "<|flush|>",
                                    "<|calls|>",
                                    "<end_of_turn>",
                                    "<|endoftext|>",
                                    "</s>",
                                    "<|eom_id|>",
                                    "<EOT>",
                                    "_<EOT>",
                                    "[EOT]",
                                    "[EOS]",
                                    "<|end_of_text|>",
                                    "<end_of_utterance>",
                                    "<eos>",
                                    "<turn|>",
                                    "<|tool_response>",
                                    "<｜end▁of▁sentence｜>",
                                    "[e~[",
                                    "<|fim_pad|>",
                                    "<fim-pad>",
                                    "<fim_pad>",
                                    "<PAD>",
                                    "[PAD]",
                                    "<|fim_repo|>",
                                    "<|repo_name|>",
                                    "<fim-repo>",
                                    "<REPO>",
                                    "<reponame>",
                                    "<|file_sep|>" };

enum { NUM_ENDS = sizeof ENDS / sizeof ENDS[0] };

static bool is_end(const struct gguf_text *t)
{
    if (!t->data || t->len < 4 || !strchr("<[_", t->data[0]))
        return false;
    for (int i = 0; i < NUM_ENDS; i++) {
        if (gguf_text_is(t, ENDS[i]))
            return true;
    }
    return false;
}

enum gguf_token_type gguf_vocab_type(const struct gguf_vocab *v, size_t id)
{
    int32_t type = v->types ? v->types[id] : GGUF_TOKEN_NORMAL;
    bool cut_out = type == GGUF_TOKEN_CONTROL || type == GGUF_TOKEN_USER_DEFINED;
    if (!cut_out && is_end(&v->tokens[id]))
        return GGUF_TOKEN_CONTROL;
    return (enum gguf_token_type)type;
}

int32_t gguf_vocab_id(const struct gguf_vocab *v, int64_t id)
{
    return id >= 0 && (uint64_t)id < v->num_tokens && id < INT32_MAX ? (int32_t)id : -1;
}

static int64_t find(const struct gguf_vocab *v, const struct token_list *ids, const char *text)
{
    for (size_t i = 0; i < ids->len; i++) {
        if (gguf_text_is(&v->tokens[ids->ids[i]], text))
            return (int64_t)i;
    }
    return -1;
}

static bool has(const struct gguf_vocab *v, const struct token_list *ids, const char *text)
{
    return find(v, ids, text) >= 0;
}

static void drop(const struct gguf_vocab *v, struct token_list *ids, const char *text)
{
    int64_t i = find(v, ids, text);
    if (i >= 0)
        ids->ids[i] = ids->ids[--ids->len];
}

static void add(struct token_list *ids, int32_t id)
{
    for (size_t i = 0; i < ids->len; i++) {
        if (ids->ids[i] == id)
            return;
    }
    token_list_append(ids, &id, 1);
}

void gguf_vocab_eog_ids(const struct gguf_vocab *v, struct token_list *out)
{
    const int64_t named[] = { v->eos_id, v->eot_id, v->eom_id };
    struct token_list ids = { 0 };
    for (size_t id = 0; id < v->num_tokens && id < INT32_MAX; id++) {
        if (is_end(&v->tokens[id]))
            token_list_append(&ids, &(int32_t){ (int32_t)id }, 1);
    }
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        if (gguf_vocab_id(v, named[i]) >= 0)
            add(&ids, (int32_t)named[i]);
    }
    /* In the harmony format and its kin <|end|> ends a part of an answer only. */
    if (has(v, &ids, "<|end|>") && (has(v, &ids, "<|call|>") || has(v, &ids, "<|calls|>")) &&
        (has(v, &ids, "<|return|>") || has(v, &ids, "<|flush|>")))
        drop(v, &ids, "<|end|>");
    /* Where <|tool_response> is, </s> is a word like others. */
    if (has(v, &ids, "<|tool_response>"))
        drop(v, &ids, "</s>");
    for (size_t i = 0; i < ids.len; i++)
        add(out, ids.ids[i]);
    token_list_free(&ids);
}

static void put_token(json_t *tokens, const char *name, const struct gguf_vocab *v, int64_t id)
{
    int32_t known = gguf_vocab_id(v, id);
    const struct gguf_text *token = known >= 0 ? &v->tokens[known] : NULL;
    json_t *text = token && token->data ? json_stringn(token->data, token->len) : NULL;
    if (text) /* NULL, too, where it is not UTF-8 */
        json_object_set_new(tokens, name, text);
}

bool gguf_chat_template_load(const struct gguf_vocab *v, const char *override,
                             struct chat_template **out, struct status *st)
{
    json_t *tokens = json_object();
    put_token(tokens, "bos_token", v, v->bos_id);
    put_token(tokens, "eos_token", v, v->eos_id);
    put_token(tokens, "unk_token", v, v->unk_id);
    put_token(tokens, "sep_token", v, v->sep_id);
    put_token(tokens, "pad_token", v, v->pad_id);
    put_token(tokens, "cls_token", v, v->cls_id);
    put_token(tokens, "mask_token", v, v->mask_id);
    const struct chat_template_source source = { .where = v->file,
                                                 .plain = v->chat_template.data,
                                                 .plain_len = v->chat_template.len,
                                                 .tool_use = v->chat_template_tool_use.data,
                                                 .tool_use_len = v->chat_template_tool_use.len,
                                                 .special_tokens = tokens };
    bool ok = chat_template_from_source(&source, override, out, st);
    json_decref(tokens);
    return ok;
}
