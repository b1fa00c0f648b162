/* hub_select.c - names decide: repositories follow transformers' and llama.cpp's conventions. */
#include "engine/model/hub_select.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "config/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SHOWN_NAMES = 8 };

const char *const hub_optional_files[] = {
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "quantize_config.json", /* GPTQ and AWQ, where config.json has no quantization_config */
    "quant_config.json",
    "hf_quant_config.json",
};
const int32_t hub_num_optional_files = sizeof hub_optional_files / sizeof hub_optional_files[0];

/* --- lists of names for messages ---------------------------------------------------------------
 */

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), n = strlen(end);
    return len >= n && strcasecmp(text + len - n, end) == 0;
}

/* "a.gguf, b.gguf and 3 more", of the files with this ending. */
static bool name_files(const struct hub_listing *l, const char *ending, struct buf *out)
{
    int32_t count = 0;
    for (int32_t i = 0; i < l->num_files; i++) {
        if (!ends_with(l->files[i].path, ending))
            continue;
        if (count < SHOWN_NAMES)
            buf_printf(out, "%s%.80s", count ? ", " : "", l->files[i].path);
        count++;
    }
    if (count > SHOWN_NAMES)
        buf_printf(out, " and %d more", count - SHOWN_NAMES);
    return count > 0;
}

static void add(struct hub_selection *s, const struct hub_file *file)
{
    s->files = xrealloc(s->files, ((size_t)s->num_files + 1) * sizeof *s->files);
    s->files[s->num_files++] = file;
}

/* --- GGUF --------------------------------------------------------------------------------------
 */

/* "dir/name-00002-of-00005.gguf": part 2 of 5, the stem being "dir/name". */
struct split_name {
    size_t stem_len;
    int32_t part, count; /* 1 of 1 where it is not split */
};

static struct split_name split_of(const char *path)
{
    size_t len = strlen(path);
    struct split_name s = { len, 1, 1 };
    const char *tail = len > 20 ? path + len - 20 : ""; /* "-00002-of-00005.gguf" */
    int part, count, end = 0;
    if (sscanf(tail, "-%5d-of-%5d.gguf%n", &part, &count, &end) == 2 && end == 20 && part >= 1 &&
        part <= count)
        s = (struct split_name){ len - 20, part, count };
    return s;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Whether `quant` stands in the path as a word of its own: Q4_K is not in Q4_K_M. */
static bool has_word(const char *path, const char *quant)
{
    size_t len = strlen(quant);
    for (const char *p = path; strlen(p) >= len; p++) {
        if (strncasecmp(p, quant, len) != 0)
            continue;
        bool begins = p == path || !is_alnum(p[-1]);
        if (begins && !is_alnum(p[len]) && p[len] != '_')
            return true;
    }
    return false;
}

/* Projectors of vision models lie beside the model and have its quantization in their names. */
static bool is_projector(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strncasecmp(slash ? slash + 1 : path, "mmproj", 6) == 0;
}

static bool add_split(const struct hub_listing *l, const struct hub_file *first,
                      struct hub_selection *s, struct status *st)
{
    struct split_name split = split_of(first->path);
    if (split.count > LIMIT_CHECKPOINT_FILES)
        return status_set(st, STATUS_INVALID, "'%.200s': more than %d parts", first->path,
                          LIMIT_CHECKPOINT_FILES);
    if (split.count == 1) {
        add(s, first);
        s->first = first->path;
        return true;
    }
    for (int32_t part = 1; part <= split.count; part++) {
        char path[LIMIT_HUB_PATH_BYTES + 32];
        snprintf(path, sizeof path, "%.*s-%05d-of-%05d.gguf", (int)split.stem_len, first->path,
                 part, split.count);
        const struct hub_file *file = hub_listing_find(l, path);
        if (!file)
            return status_set(st, STATUS_NOT_FOUND,
                              "'%.200s' is missing, part %d of %d of a split GGUF file", path, part,
                              split.count);
        add(s, file);
        s->first = part == 1 ? file->path : s->first;
    }
    return true;
}

static bool no_such_gguf(const struct hub_listing *l, const char *asked, struct status *st)
{
    struct buf names;
    buf_init(&names, 400);
    bool some = name_files(l, ".gguf", &names);
    status_set(st, STATUS_NOT_FOUND, "there is no GGUF file '%.100s'; %s%s", asked,
               some ? "there are: " : "the repository has none", buf_str(&names));
    buf_free(&names);
    return false;
}

static bool select_gguf(const struct hub_listing *l, const char *asked, struct hub_selection *s,
                        struct status *st)
{
    const struct hub_file *found = NULL;
    if (ends_with(asked, ".gguf")) {
        found = hub_listing_find(l, asked);
        return found ? add_split(l, found, s, st) : no_such_gguf(l, asked, st);
    }
    for (int32_t i = 0; i < l->num_files; i++) {
        const struct hub_file *file = &l->files[i];
        if (!ends_with(file->path, ".gguf") || split_of(file->path).part != 1 ||
            is_projector(file->path) || !has_word(file->path, asked))
            continue;
        if (found)
            return status_set(st, STATUS_INVALID,
                              "both '%.150s' and '%.150s' are %.40s; name one of them behind the "
                              "':'",
                              found->path, file->path, asked);
        found = file;
    }
    return found ? add_split(l, found, s, st) : no_such_gguf(l, asked, st);
}

/* --- safetensors -------------------------------------------------------------------------------
 */

/* Says what there is instead. */
static bool no_weights(const struct hub_listing *l, struct status *st)
{
    struct buf names;
    buf_init(&names, 300);
    if (name_files(l, ".gguf", &names))
        status_set(st, STATUS_INVALID,
                   "the repository holds GGUF files; name one as ORG/NAME:FILE or "
                   "ORG/NAME:QUANT. There are: %s",
                   buf_str(&names));
    else if (name_files(l, ".safetensors", &names))
        status_set(st, STATUS_UNSUPPORTED,
                   "the repository has neither " HUB_WEIGHTS_FILE " nor " HUB_INDEX_FILE
                   ", only: %s",
                   buf_str(&names));
    else if (name_files(l, ".bin", &names))
        status_set(st, STATUS_UNSUPPORTED,
                   "the repository has its weights as pickled .bin files only (%s), which can run "
                   "code and are not read; convert them to safetensors",
                   buf_str(&names));
    else
        status_set(st, STATUS_NOT_FOUND, "the repository holds no weights (" HUB_WEIGHTS_FILE ")");
    buf_free(&names);
    return false;
}

static bool select_weights(const struct hub_listing *l, struct hub_selection *s, struct status *st)
{
    const struct hub_file *file = hub_listing_find(l, HUB_WEIGHTS_FILE);
    if (!file) {
        file = hub_listing_find(l, HUB_INDEX_FILE);
        s->needs_index = file != NULL;
    }
    if (!file)
        return no_weights(l, st);
    add(s, file);
    return true;
}

static bool select_model(const struct hub_listing *l, bool with_weights, struct hub_selection *s,
                         struct status *st)
{
    const struct hub_file *config = hub_listing_find(l, HUB_CONFIG_FILE);
    for (int32_t i = 0; i < hub_num_optional_files; i++) {
        const struct hub_file *file = hub_listing_find(l, hub_optional_files[i]);
        if (file)
            add(s, file);
    }
    if (with_weights && !select_weights(l, s, st))
        return false;
    if (!config)
        return status_set(st, STATUS_NOT_FOUND,
                          "the repository has no " HUB_CONFIG_FILE ": it is no model of "
                          "transformers");
    add(s, config);
    return true;
}

/* --- both --------------------------------------------------------------------------------------
 */

bool hub_select(const struct hub_listing *l, const char *file, bool with_weights,
                struct hub_selection *out, struct status *st)
{
    *out = (struct hub_selection){ 0 };
    bool ok = file ? select_gguf(l, file, out, st) : select_model(l, with_weights, out, st);
    if (!ok)
        hub_selection_free(out);
    return ok;
}

bool hub_select_shards(const struct hub_listing *l, const char *const *names, int32_t count,
                       struct hub_selection *s, struct status *st)
{
    const struct hub_file *config = s->files[--s->num_files]; /* stays the last one */
    s->needs_index = false;
    for (int32_t i = 0; i < count; i++) {
        const struct hub_file *file = hub_listing_find(l, names[i]);
        if (!file)
            return status_set(st, STATUS_NOT_FOUND,
                              "'%.200s', which " HUB_INDEX_FILE " names, is not there", names[i]);
        add(s, file);
    }
    add(s, config);
    return true;
}

void hub_selection_free(struct hub_selection *s)
{
    free(s->files);
    *s = (struct hub_selection){ 0 };
}

uint64_t hub_selection_bytes(const struct hub_selection *s)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < s->num_files; i++)
        sum += s->files[i]->size_bytes;
    return sum;
}
