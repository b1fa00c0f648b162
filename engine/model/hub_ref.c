/* hub_ref.c - parsing by hand: the grammar is three optional tails. */
#include "engine/model/hub_ref.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_hex(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
    return text[len] == '\0';
}

bool hub_is_commit(const char *text)
{
    return strlen(text) == 40 && is_hex(text, 40);
}

bool hub_is_sha256(const char *text)
{
    return strlen(text) == 64 && is_hex(text, 64);
}

/* ORG or NAME: word characters, '-' and '.', not beginning or ending with the latter two. */
static bool is_repo_name(const char *text, size_t len)
{
    if (len == 0 || len > LIMIT_HUB_REPO_NAME_BYTES || !is_word(text[0]) || !is_word(text[len - 1]))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_word(text[i]) && text[i] != '-' && text[i] != '.')
            return false;
        /* "--" stands for '/' in the cache's directory names. */
        if (i > 0 && text[i] == text[i - 1] && !is_word(text[i]))
            return false;
    }
    return true;
}

static bool is_repo(const char *text, size_t len)
{
    const char *slash = memchr(text, '/', len);
    if (!slash)
        return false;
    size_t org = (size_t)(slash - text);
    bool git = len > 4 && memcmp(text + len - 4, ".git", 4) == 0;
    return !git && is_repo_name(text, org) && is_repo_name(slash + 1, len - org - 1);
}

bool hub_path_is_safe(const char *path)
{
    size_t name = 0; /* length of the part so far */
    const char *start = path;
    if (strlen(path) > LIMIT_HUB_PATH_BYTES)
        return false;
    for (const char *p = path;; p++) {
        if (*p != '/' && *p != '\0') {
            if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == '\\')
                return false;
            name++;
            continue;
        }
        bool dots = (name == 1 && start[0] == '.') || (name == 2 && memcmp(start, "..", 2) == 0);
        if (name == 0 || dots || name > LIMIT_HUB_NAME_BYTES)
            return false;
        if (*p == '\0')
            return true;
        name = 0;
        start = p + 1;
    }
}

bool hub_revision_is_safe(const char *revision)
{
    return strlen(revision) <= LIMIT_HUB_REVISION_BYTES && hub_path_is_safe(revision) &&
           revision[0] != '-' && !strpbrk(revision, " ~^:?*[") && !strstr(revision, "..");
}

bool hub_ref_is_local(const char *model)
{
    struct stat info;
    if (stat(model, &info) == 0 || strchr("/.~", model[0]))
        return true;
    size_t len = strcspn(model, "@:");
    const char *slash = memchr(model, '/', len);
    if (len > 5 && memcmp(model + len - 5, ".gguf", 5) == 0)
        return true; /* a file that is not there; no repository is called so */
    return !slash || memchr(slash + 1, '/', len - (size_t)(slash + 1 - model));
}

/* Copies one tail, without its mark. */
static bool take(const char *text, size_t len, char *out, size_t size, const char *what,
                 struct status *st)
{
    if (len == 0)
        return status_set(st, STATUS_INVALID, "the %s is empty", what);
    if (len >= size)
        return status_set(st, STATUS_INVALID, "the %s is longer than %zu bytes", what, size - 1);
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

bool hub_ref_parse(const char *model, struct hub_ref *out, struct status *st)
{
    memset(out, 0, sizeof *out);
    size_t len = strcspn(model, "@:");
    if (!is_repo(model, len))
        return status_set(st, STATUS_INVALID,
                          "'%.200s' is no directory here, and '%.*s' is no name of a model on a "
                          "hub; that is ORG/NAME, of letters, digits, '-', '_' and '.'",
                          model, (int)(len < 200 ? len : 200), model);
    memcpy(out->repo, model, len);
    const char *tail = model + len;
    bool ok = true;
    if (*tail == '@') {
        len = strcspn(++tail, ":");
        ok = take(tail, len, out->revision, sizeof out->revision, "revision after '@'", st);
        tail += len;
    }
    if (ok && *tail == ':')
        ok = take(tail + 1, strlen(tail + 1), out->file, sizeof out->file, "FILE after ':'", st);
    if (ok && out->revision[0] && !hub_revision_is_safe(out->revision))
        ok = status_set(st, STATUS_INVALID, "'%.100s' is no branch, tag or commit", out->revision);
    if (ok && out->file[0] && !hub_path_is_safe(out->file))
        ok = status_set(st, STATUS_INVALID, "'%.100s' is no path of a file in a repository",
                        out->file);
    return ok || status_prefix(st, "model '%.200s': ", model);
}
