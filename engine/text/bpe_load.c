/* bpe_load.c - the "model" of tokenizer.json where it is BPE. */
#include "base/alloc.h"
#include "engine/text/bpe_internal.h"
#include "engine/text/json_field.h"

#include <stdlib.h>
#include <string.h>

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

static bool load_merges(const struct vocab *vocab, size_t prefix_len, const json_t *list,
                        struct bpe_merge **out, struct status *st)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > BPE_MAX_MERGES)
        return status_set(st, STATUS_INVALID, "\"merges\" of the BPE model is no proper list");
    struct bpe_merge *merges = xmalloc((count + 1) * sizeof *merges);
    for (size_t i = 0; i < count; i++) {
        const char *side[2];
        size_t len[2];
        merges[i].rank = (uint32_t)i;
        if (!merge_sides(json_array_get(list, i), i, side, len, st) ||
            !bpe_merge_of(vocab, side, len, prefix_len, &merges[i], st)) {
            free(merges);
            return false;
        }
    }
    *out = merges;
    return true;
}

bool bpe_takes_raw_bytes(const json_t *spec)
{
    return json_string_length(json_object_get(spec, "continuing_subword_prefix")) == 0 &&
           json_string_length(json_object_get(spec, "end_of_word_suffix")) == 0;
}

bool bpe_load(const json_t *spec, const struct vocab *vocab, bool raw_bytes, struct bpe **out,
              struct status *st)
{
    const json_t *dropout = json_object_get(spec, "dropout");
    struct bpe_merge *merges = NULL;
    size_t len;
    *out = NULL;
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0.0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "the BPE model has a \"dropout\", which would make encoding random; set "
                          "it to null");
    struct bpe_options o = {
        .byte_fallback = json_field_bool(spec, "byte_fallback", false, st),
        .fuse_unk = json_field_bool(spec, "fuse_unk", false, st),
        .ignore_merges = json_field_bool(spec, "ignore_merges", false, st),
        .raw_bytes = raw_bytes,
        .prefix = json_field_text(spec, "continuing_subword_prefix", &len, st),
        .suffix = json_field_text(spec, "end_of_word_suffix", &len, st),
    };
    o.unk_token = json_field_text(spec, "unk_token", &o.unk_len, st);
    bool ok =
        st->code == STATUS_OK &&
        load_merges(vocab, o.prefix ? strlen(o.prefix) : 0, json_object_get(spec, "merges"),
                    &merges, st) &&
        bpe_build(&o, merges, json_array_size(json_object_get(spec, "merges")), vocab, out, st);
    free(merges);
    return ok;
}
