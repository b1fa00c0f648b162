/* fuzz_hub_json.c - any text as a hub's answer, as huggingface_hub's tree, as the index of a
 * sharded checkpoint, and as a model's name. What is taken may become paths and sizes on disk. */
#include "base/arena.h"
#include "config/limits.h"
#include "engine/model/hub_listing.h"
#include "engine/model/hub_ref.h"
#include "engine/model/hub_select.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_message(const struct status *st)
{
    check(st->message[0] != '\0');
    for (const char *p = st->message; *p; p++)
        check((unsigned char)*p >= 0x20);
}

static void check_selection(const struct hub_listing *l, const char *file)
{
    struct hub_selection s;
    struct status st;
    if (!hub_select(l, file, true, &s, &st)) {
        check_message(&st);
        return;
    }
    check(s.num_files > 0 && hub_selection_bytes(&s) < UINT64_C(1) << 62);
    for (int32_t i = 0; i < s.num_files; i++)
        check(hub_listing_find(l, s.files[i]->path) == s.files[i]);
    hub_selection_free(&s);
}

static void check_listing(struct hub_listing *l)
{
    for (int32_t i = 0; i < l->num_files; i++) {
        const struct hub_file *f = &l->files[i];
        check(f->path[0] != '/' && strlen(f->path) <= LIMIT_HUB_PATH_BYTES);
        check(!strstr(f->path, "/../") && strncmp(f->path, "../", 3) != 0);
        check(f->size_bytes <= (uint64_t)LIMIT_HUB_FILE_GIB << 30);
        check(!f->digest[0] || hub_is_commit(f->digest) || hub_is_sha256(f->digest));
        check(i == 0 || strcmp(l->files[i - 1].path, f->path) < 0);
    }
    check_selection(l, NULL);
    check_selection(l, "Q4_K_M");
    if (l->num_files > 0)
        check_selection(l, l->files[0].path);
    hub_listing_free(l);
}

static void check_index(const char *text, size_t size)
{
    struct arena a;
    struct status st;
    const char **names;
    int32_t count;
    arena_init(&a);
    if (hub_index_shards(text, size, &a, &names, &count, &st)) {
        check(count >= 1 && count <= LIMIT_CHECKPOINT_FILES);
        for (int32_t i = 0; i < count; i++)
            check(names[i][0] != '.' && !strchr(names[i], '/'));
    } else {
        check_message(&st);
    }
    arena_free(&a);
}

static void check_name(const uint8_t *data, size_t size)
{
    struct hub_ref ref;
    struct status st;
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    if (hub_ref_parse(text, &ref, &st)) {
        check(strchr(ref.repo, '/') && strchr(ref.repo, '/') == strrchr(ref.repo, '/'));
        check(!strstr(ref.repo, "..") && !strstr(ref.repo, "--") && ref.repo[0] != '/');
        check(!ref.file[0] || hub_path_is_safe(ref.file));
        check(!ref.revision[0] || hub_revision_is_safe(ref.revision));
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct hub_listing l;
    struct status st;
    if (hub_listing_parse(text, size, &l, &st)) {
        check(hub_is_commit(l.commit));
        check_listing(&l);
    } else {
        check_message(&st);
    }
    if (hub_listing_parse_tree(text, size, &l, &st))
        check_listing(&l);
    check_index(text, size);
    check_name(data, size);
    return 0;
}
