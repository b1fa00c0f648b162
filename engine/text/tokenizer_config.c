/* tokenizer_config.c - reading and merging the three small files. */
#include "engine/text/tokenizer_config.h"
#include "engine/text/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 32 << 20 };

static const char CONFIG_FILE[] = "tokenizer_config.json";
static const char SPECIAL_FILE[] = "special_tokens_map.json";
static const char ADDED_FILE[] = "added_tokens.json";

static const char *const ROLE_KEYS[NUM_SPECIAL_ROLES] = { "bos_token", "eos_token", "unk_token",
                                                          "sep_token", "pad_token", "cls_token",
                                                          "mask_token" };

static bool set_content(struct tokenizer_config *c, const json_t *value, struct added_token *t,
                        const char *key, struct status *st)
{
    size_t len = json_string_length(value);
    if (len > TOKENIZER_MAX_PIECE_BYTES)
        return status_set(st, STATUS_INVALID, "\"%s\" holds a token of %zu bytes; the limit is %d",
                          key, len, TOKENIZER_MAX_PIECE_BYTES);
    t->content = arena_strndup(&c->arena, json_string_value(value), len);
    t->len = (uint32_t)len;
    return true;
}

static bool flag(const json_t *object, const char *key, bool missing)
{
    const json_t *v = json_object_get(object, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

/* A token is a string, or an object with its flags. `special` is what a plain string is. */
static bool parse_token(struct tokenizer_config *c, const json_t *value, bool special,
                        struct added_token *t, const char *key, struct status *st)
{
    *t = (struct added_token){ .id = -1, .special = special, .normalized = !special };
    if (json_is_string(value))
        return set_content(c, value, t, key, st);
    const json_t *content = json_object_get(value, "content");
    if (!json_is_string(content))
        return status_set(st, STATUS_INVALID,
                          "\"%s\" is neither a string nor an object with a string \"content\"",
                          key);
    t->special = flag(value, "special", special);
    t->lstrip = flag(value, "lstrip", false);
    t->rstrip = flag(value, "rstrip", false);
    t->single_word = flag(value, "single_word", false);
    t->normalized = flag(value, "normalized", !t->special);
    return set_content(c, content, t, key, st);
}

/* Additional tokens only grow: those already there stay. */
static bool parse_additional(struct tokenizer_config *c, const json_t *list, struct status *st)
{
    if (!json_is_array(list) && !json_is_object(list))
        return true;
    size_t more = json_is_array(list) ? json_array_size(list) : json_object_size(list);
    if (more > TOKENIZER_MAX_ID)
        return status_set(st, STATUS_INVALID, "\"additional_special_tokens\" is too long");
    struct added_token *all =
        arena_array(&c->arena, (size_t)c->num_additional + more + 1, sizeof *all);
    for (int32_t i = 0; i < c->num_additional; i++)
        all[i] = c->additional[i];
    int32_t n = c->num_additional;
    if (json_is_array(list)) {
        for (size_t i = 0; i < more; i++) {
            if (!parse_token(c, json_array_get(list, i), true, &all[n++],
                             "additional_special_tokens", st))
                return false;
        }
    } else {
        void *it = json_object_iter((json_t *)list);
        for (; it; it = json_object_iter_next((json_t *)list, it)) {
            if (!parse_token(c, json_object_iter_value(it), true, &all[n++], "extra_special_tokens",
                             st))
                return false;
        }
    }
    c->additional = all;
    c->num_additional = n;
    return true;
}

static bool parse_special(struct tokenizer_config *c, const json_t *root, struct status *st)
{
    for (int r = 0; r < NUM_SPECIAL_ROLES; r++) {
        const json_t *v = json_object_get(root, ROLE_KEYS[r]);
        if (!v)
            continue;
        c->special_null[r] = json_is_null(v);
        if (json_is_null(v)) {
            c->special[r] = (struct added_token){ .id = -1 };
            continue;
        }
        if (!parse_token(c, v, true, &c->special[r], ROLE_KEYS[r], st))
            return false;
        c->special[r].special = true;
    }
    return parse_additional(c, json_object_get(root, "additional_special_tokens"), st) &&
           parse_additional(c, json_object_get(root, "extra_special_tokens"), st);
}

static int by_id(const void *a, const void *b)
{
    int32_t x = ((const struct added_token *)a)->id, y = ((const struct added_token *)b)->id;
    return (x > y) - (x < y);
}

static bool check_id(long long id, const char *content, struct status *st)
{
    if (id < 0 || id >= TOKENIZER_MAX_ID)
        return status_set(st, STATUS_INVALID, "token \"%s\" has the id %lld, outside 0 .. %d",
                          content, id, TOKENIZER_MAX_ID - 1);
    return true;
}

static bool parse_added_decoder(struct tokenizer_config *c, json_t *decoder, struct status *st)
{
    if (!json_is_object(decoder))
        return status_set(st, STATUS_INVALID, "\"added_tokens_decoder\" is not an object");
    c->added = arena_array(&c->arena, json_object_size(decoder) + 1, sizeof *c->added);
    const char *key;
    json_t *value;
    json_object_foreach(decoder, key, value)
    {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (end == key || *end)
            return status_set(st, STATUS_INVALID,
                              "\"added_tokens_decoder\" has the key \"%.40s\", which is no id",
                              key);
        struct added_token *t = &c->added[c->num_added];
        if (!parse_token(c, value, false, t, "added_tokens_decoder", st) ||
            !check_id(id, t->content, st))
            return false;
        t->id = (int32_t)id;
        c->num_added++;
    }
    qsort(c->added, (size_t)c->num_added, sizeof *c->added, by_id);
    return true;
}

bool tokenizer_config_is_special(const struct tokenizer_config *c, const char *content, size_t len)
{
    return string_map_find(&c->specials, content, len) >= 0;
}

static void collect_specials(struct tokenizer_config *c)
{
    string_map_free(&c->specials);
    for (int r = 0; r < NUM_SPECIAL_ROLES; r++) {
        if (c->special[r].content)
            string_map_put(&c->specials, c->special[r].content, c->special[r].len, r);
    }
    for (int32_t i = 0; i < c->num_additional; i++)
        string_map_put(&c->specials, c->additional[i].content, c->additional[i].len, i);
}

static bool parse_added_map(struct tokenizer_config *c, json_t *map, struct status *st)
{
    c->added = arena_array(&c->arena, json_object_size(map) + 1, sizeof *c->added);
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        if (!json_is_integer(value))
            return status_set(st, STATUS_INVALID, "\"%.80s\" has no integer id", key);
        size_t len = strlen(key);
        bool special = tokenizer_config_is_special(c, key, len);
        if (!check_id(json_integer_value(value), key, st))
            return false;
        if (len > TOKENIZER_MAX_PIECE_BYTES)
            return status_set(st, STATUS_INVALID, "a token of %zu bytes; the limit is %d", len,
                              TOKENIZER_MAX_PIECE_BYTES);
        c->added[c->num_added++] =
            (struct added_token){ .content = arena_strndup(&c->arena, key, len),
                                  .len = (uint32_t)len,
                                  .id = (int32_t)json_integer_value(value),
                                  .special = special,
                                  .normalized = !special };
    }
    qsort(c->added, (size_t)c->num_added, sizeof *c->added, by_id);
    return true;
}

/* A named token given as a plain string takes the flags under which it was added. */
static void adopt_flags(struct tokenizer_config *c)
{
    for (int r = 0; r < NUM_SPECIAL_ROLES; r++) {
        struct added_token *t = &c->special[r];
        for (int32_t i = 0; t->content && i < c->num_added; i++) {
            const struct added_token *a = &c->added[i];
            if (a->len == t->len && memcmp(a->content, t->content, t->len) == 0)
                *t = *a;
        }
    }
}

static enum tristate tristate_of(const json_t *root, const char *key)
{
    const json_t *v = json_object_get(root, key);
    return !json_is_boolean(v) ? UNSET : json_is_true(v) ? YES : NO;
}

static bool parse_config(struct tokenizer_config *c, json_t *root, struct status *st)
{
    const json_t *name = json_object_get(root, "tokenizer_class");
    if (json_is_string(name)) {
        size_t len = json_string_length(name);
        const char *text = json_string_value(name);
        if (len > 4 && strcmp(text + len - 4, "Fast") == 0)
            len -= 4;
        c->tokenizer_class = arena_strndup(&c->arena, text, len);
    }
    c->add_bos_token = tristate_of(root, "add_bos_token");
    c->add_eos_token = tristate_of(root, "add_eos_token");
    c->legacy = tristate_of(root, "legacy");
    c->add_prefix_space = tristate_of(root, "add_prefix_space");
    if (!parse_special(c, root, st))
        return false;
    json_t *decoder = json_object_get(root, "added_tokens_decoder");
    return !decoder || parse_added_decoder(c, decoder, st);
}

/* Reads an optional file; *root is NULL where it is not there. */
static bool read_optional(const char *dir, const char *name, json_t **root, struct status *st)
{
    if (model_file_read_json(dir, name, MAX_CONFIG_BYTES, root, st))
        return true;
    if (st->code != STATUS_NOT_FOUND)
        return false;
    status_clear(st);
    return true;
}

static bool load_older_files(const char *dir, struct tokenizer_config *c, struct status *st)
{
    json_t *root;
    if (!read_optional(dir, SPECIAL_FILE, &root, st))
        return false;
    bool ok = !root || parse_special(c, root, st);
    json_decref(root);
    if (!ok)
        return status_prefix(st, "%s/%s: ", dir, SPECIAL_FILE);
    collect_specials(c);
    if (!read_optional(dir, ADDED_FILE, &root, st))
        return false;
    ok = !root || parse_added_map(c, root, st);
    json_decref(root);
    return ok || status_prefix(st, "%s/%s: ", dir, ADDED_FILE);
}

bool tokenizer_config_load(const char *dir, struct tokenizer_config *c, struct status *st)
{
    memset(c, 0, sizeof *c);
    arena_init(&c->arena);
    c->add_bos_token = c->add_eos_token = c->legacy = c->add_prefix_space = UNSET;
    for (int r = 0; r < NUM_SPECIAL_ROLES; r++)
        c->special[r].id = -1;
    json_t *root;
    if (!read_optional(dir, CONFIG_FILE, &root, st))
        return false;
    bool has_decoder = root && json_object_get(root, "added_tokens_decoder");
    bool ok = !root || parse_config(c, root, st);
    c->present = root != NULL;
    json_decref(root);
    if (!ok)
        status_prefix(st, "%s/%s: ", dir, CONFIG_FILE);
    else if (!has_decoder)
        ok = load_older_files(dir, c, st);
    if (!ok) {
        tokenizer_config_free(c);
        return false;
    }
    adopt_flags(c);
    collect_specials(c);
    return true;
}

void tokenizer_config_free(struct tokenizer_config *c)
{
    string_map_free(&c->specials);
    arena_free(&c->arena);
    memset(c, 0, sizeof *c);
}
