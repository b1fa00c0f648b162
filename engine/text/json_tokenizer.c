/* json_tokenizer.c - loads the parts of tokenizer.json. */
#include "engine/text/json_tokenizer.h"
#include "base/log.h"
#include "engine/text/json_field.h"
#include "engine/text/model_file.h"
#include "engine/text/model_json.h"
#include "engine/text/pipeline_tokenizer.h"

#include <stdlib.h>
#include <string.h>

static const char FILE_NAME[] = "tokenizer.json";

#define MAX_FILE_BYTES ((size_t)256 << 20)

/* Unigram's [["piece", score], ...]. */
static bool load_vocab_list(struct pipeline_tokenizer *t, const json_t *vocab, struct status *st)
{
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *piece = json_array_get(json_array_get(vocab, i), 0);
        if (!json_is_string(piece))
            return status_set(st, STATUS_INVALID, "entry %zu of the vocabulary is no piece", i);
        if (!pipeline_tokenizer_put_piece(t, (json_int_t)i, json_string_value(piece),
                                          json_string_length(piece), st))
            return false;
    }
    t->added.model_size = (int32_t)json_array_size(vocab);
    return true;
}

/* {"piece": id, ...} */
static bool load_vocab(struct pipeline_tokenizer *t, const struct model_json *file, json_t *vocab,
                       struct status *st)
{
    const char *key;
    json_t *value;
    struct buf room;
    bool ok = true;
    if (!json_is_object(vocab))
        return status_set(st, STATUS_INVALID, "the model has no \"vocab\"");
    buf_init(&room, 0);
    json_object_foreach(vocab, key, value)
    {
        size_t len;
        const char *piece = model_json_key(file, key, &len, &room);
        if (!json_is_integer(value))
            ok = status_set(st, STATUS_INVALID, "the piece \"%.60s\" has no integer id", key);
        ok = ok && pipeline_tokenizer_put_piece(t, json_integer_value(value), piece, len, st);
        if (!ok)
            break;
    }
    buf_free(&room);
    t->added.model_size = (int32_t)t->base.vocab.model_ids.num_entries;
    return ok;
}

/* Files of early versions do not say which model they hold. */
static const char *model_type(const json_t *model)
{
    if (*json_field_type(model))
        return json_field_type(model);
    if (json_object_get(model, "merges"))
        return "BPE";
    if (json_is_array(json_object_get(model, "vocab")))
        return "Unigram";
    return json_object_get(model, "continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

static bool load_model(struct pipeline_tokenizer *t, const struct model_json *file,
                       struct status *st)
{
    const json_t *model = json_object_get(file->root, "model");
    const char *type = model_type(model);
    json_t *vocab = json_object_get(model, "vocab");
    bool unigram = strcmp(type, "Unigram") == 0;
    bool known = unigram || strcmp(type, "BPE") == 0 || strcmp(type, "WordPiece") == 0 ||
                 strcmp(type, "WordLevel") == 0;
    if (!json_is_object(model))
        return status_set(st, STATUS_INVALID, "there is no \"model\"");
    if (!known)
        return json_field_unknown("model", model, st);
    if (unigram != json_is_array(vocab))
        return status_set(st, STATUS_INVALID, "the vocabulary of the %s model has the wrong form",
                          type);
    if (unigram ? !load_vocab_list(t, vocab, st) : !load_vocab(t, file, vocab, st))
        return false;
    if (unigram)
        return unigram_load(model, &t->base.vocab, &t->unigram, st);
    if (strcmp(type, "BPE") != 0)
        return wordpiece_load(model, &t->base.vocab, strcmp(type, "WordLevel") == 0, &t->wordpiece,
                              st);
    bool raw = bpe_takes_raw_bytes(model) && pretokenizer_take_raw_bytes(t->pretokenizer);
    return bpe_load(model, &t->base.vocab, raw, &t->bpe, st);
}

static bool flag(const json_t *token, const char *name)
{
    return json_is_true(json_object_get(token, name));
}

static bool load_added_tokens(struct pipeline_tokenizer *t, const json_t *list, struct status *st)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *content = json_object_get(item, "content");
        if (!json_is_string(content) || json_string_length(content) > TOKENIZER_MAX_PIECE_BYTES)
            return status_set(st, STATUS_INVALID,
                              "added token %zu has no \"content\" of at most %d bytes", i,
                              TOKENIZER_MAX_PIECE_BYTES);
        struct added_token token = { .content = json_string_value(content),
                                     .len = (uint32_t)json_string_length(content),
                                     .id = -1,
                                     .special = flag(item, "special"),
                                     .lstrip = flag(item, "lstrip"),
                                     .rstrip = flag(item, "rstrip"),
                                     .normalized = flag(item, "normalized"),
                                     .single_word = flag(item, "single_word") };
        if (!added_vocab_put(&t->added, &token, st))
            return false;
        const json_t *id = json_object_get(item, "id");
        int32_t got = vocab_find(&t->base.vocab, token.content, token.len);
        if (json_is_integer(id) && json_integer_value(id) != got && token.len > 0)
            log_warning(
                "tokenizer.json gives the added token \"%.60s\" the id %lld, but it follows "
                "the vocabulary as %d",
                token.content, (long long)json_integer_value(id), got);
    }
    return true;
}

/* What PreTrainedTokenizerFast.__init__ adds: tokens of added_tokens_decoder that tokenizer.json
 * does not have in the same form, then named special tokens that are nowhere yet. */
static bool add_config_tokens(struct pipeline_tokenizer *t, const struct tokenizer_config *c,
                              struct status *st)
{
    for (int32_t i = 0; i < c->num_added; i++) {
        struct added_token token = c->added[i];
        token.special |= tokenizer_config_is_special(c, token.content, token.len);
        if (!added_vocab_put(&t->added, &token, st))
            return false;
    }
    for (int32_t i = 0; i < NUM_SPECIAL_ROLES + c->num_additional; i++) {
        const struct added_token *token =
            i < NUM_SPECIAL_ROLES ? &c->special[i] : &c->additional[i - NUM_SPECIAL_ROLES];
        if (token->content &&
            string_map_find(&t->added.by_content, token->content, token->len) < 0 &&
            !added_vocab_put(&t->added, token, st))
            return false;
    }
    return true;
}

/* The classes that replace the file's post-processor by their own, from add_bos_token and
 * add_eos_token, and what they take these for when the configuration does not say. */
static const struct {
    const char *name;
    bool add_bos, add_eos;
    const char *bos, *eos;
} CLASSES[] = {
    { "LlamaTokenizer", true, false, "<s>", "</s>" },
    { "CodeLlamaTokenizer", true, false, "<s>", "</s>" },
    { "GemmaTokenizer", true, false, "<bos>", "<eos>" },
    { "CohereTokenizer", true, false, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>" },
    { "GPTNeoXTokenizer", false, false, "<|endoftext|>", "<|endoftext|>" },
};

static int32_t find_named(const struct pipeline_tokenizer *t, const struct tokenizer_config *c,
                          enum special_role role, const char *missing)
{
    const struct added_token *named = &c->special[role];
    if (named->content)
        return vocab_find(&t->base.vocab, named->content, named->len);
    if (c->special_null[role] || !missing)
        return -1;
    return vocab_find(&t->base.vocab, missing, strlen(missing));
}

static bool apply_class(struct pipeline_tokenizer *t, const struct tokenizer_config *c,
                        struct status *st)
{
    size_t k = 0, num = sizeof CLASSES / sizeof *CLASSES;
    while (k < num && (!c->tokenizer_class || strcmp(c->tokenizer_class, CLASSES[k].name) != 0))
        k++;
    t->base.bos_id = find_named(t, c, SPECIAL_BOS, k < num ? CLASSES[k].bos : NULL);
    t->base.eos_id = find_named(t, c, SPECIAL_EOS, k < num ? CLASSES[k].eos : NULL);
    if (k == num)
        return true;
    bool add_bos = c->add_bos_token == UNSET ? CLASSES[k].add_bos : c->add_bos_token == YES;
    bool add_eos = c->add_eos_token == UNSET ? CLASSES[k].add_eos : c->add_eos_token == YES;
    if ((add_bos && t->base.bos_id < 0) || (add_eos && t->base.eos_id < 0))
        return status_set(st, STATUS_INVALID,
                          "%s puts a %s token around every text, but tokenizer_config.json names "
                          "none that the vocabulary has",
                          CLASSES[k].name, add_bos && t->base.bos_id < 0 ? "BOS" : "EOS");
    post_processor_free(&t->post_processor);
    if (add_bos)
        token_list_append(&t->post_processor.before, &t->base.bos_id, 1);
    if (add_eos)
        token_list_append(&t->post_processor.behind, &t->base.eos_id, 1);
    return true;
}

/* transformers sets the prefix space of a lone ByteLevel from its own configuration. */
static enum tristate prefix_space_override(const struct tokenizer_config *c)
{
    return !c || !c->present ? UNSET : c->add_prefix_space == YES ? YES : NO;
}

static bool load_parts(struct pipeline_tokenizer *t, const struct model_json *file,
                       const struct tokenizer_config *c, struct status *st)
{
    const json_t *root = file->root;
    if (!normalizer_load(json_object_get(root, "normalizer"), &t->normalizer, st) ||
        !pretokenizer_load(json_object_get(root, "pre_tokenizer"), prefix_space_override(c),
                           &t->pretokenizer, st) ||
        !load_model(t, file, st) ||
        !token_decoder_load(json_object_get(root, "decoder"), &t->decoder, st) ||
        !post_processor_load(json_object_get(root, "post_processor"), &t->post_processor, st) ||
        !load_added_tokens(t, json_object_get(root, "added_tokens"), st))
        return false;
    if (c && (!add_config_tokens(t, c, st) || !apply_class(t, c, st)))
        return false;
    return pipeline_tokenizer_finish(t, st);
}

bool json_tokenizer_parse(const char *text, size_t len, const struct tokenizer_config *config,
                          struct tokenizer **out, struct status *st)
{
    struct model_json file;
    *out = NULL;
    if (!model_json_parse(text, len, &file, st))
        return false;
    struct pipeline_tokenizer *t = pipeline_tokenizer_new();
    bool ok = load_parts(t, &file, config, st);
    if (ok)
        *out = &t->base;
    else
        pipeline_tokenizer_free(t);
    json_decref(file.root);
    return ok;
}

bool json_tokenizer_load(const char *dir, const struct tokenizer_config *config,
                         struct tokenizer **out, struct status *st)
{
    struct buf text;
    *out = NULL;
    buf_init(&text, 0);
    bool ok = model_file_read(dir, FILE_NAME, MAX_FILE_BYTES, &text, st);
    if (ok)
        ok = json_tokenizer_parse(buf_str(&text), text.len, config, out, st) ||
             status_prefix(st, "%s/%s: ", dir, FILE_NAME);
    buf_free(&text);
    return ok;
}
