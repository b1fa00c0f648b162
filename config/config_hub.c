/* config_hub.c - the environment variables of huggingface_hub, read as it reads them, so that both
 * find the same cache, the same token and the same hub. */
#include "config/config.h"
#include "config/option.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEFAULT_ENDPOINT "https://huggingface.co"

enum { DEFAULT_TIMEOUT_S = 10, MAX_TIMEOUT_S = 3600 };

/* A variable that is empty counts as not set: env files and containers unset one so. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] != '\0' ? value : NULL;
}

static bool is_true(const char *value)
{
    static const char *const words[] = { "1", "on", "yes", "true" };
    for (size_t i = 0; value && i < sizeof(words) / sizeof(words[0]); i++)
        if (strcasecmp(value, words[i]) == 0)
            return true;
    return false;
}

/* "~/x" is below the home directory. NULL where there is no such thing. */
static const char *expand(struct config *c, const char *path)
{
    if (!path || path[0] != '~' || (path[1] != '/' && path[1] != '\0'))
        return path ? arena_strdup(&c->strings, path) : NULL;
    const char *home = variable("HOME");
    return home ? arena_printf(&c->strings, "%s%s", home, path + 1) : NULL;
}

static const char *below(struct config *c, const char *dir, const char *name)
{
    return dir ? arena_printf(&c->strings, "%s/%s", dir, name) : NULL;
}

static const char *first_of(struct config *c, const char *const *names, size_t count)
{
    const char *found = NULL;
    for (size_t i = 0; i < count && !found; i++)
        found = variable(names[i]);
    return expand(c, found);
}

static void read_paths(struct config *c)
{
    static const char *const cache_names[] = { "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE" };
    const char *home = expand(c, variable("HF_HOME"));
    if (!home)
        home = below(c, expand(c, variable("XDG_CACHE_HOME")), "huggingface");
    if (!home)
        home = expand(c, "~/.cache/huggingface");
    c->hub.cache_dir = expand(c, c->download_dir);
    if (!c->hub.cache_dir)
        c->hub.cache_dir = first_of(c, cache_names, 2);
    if (!c->hub.cache_dir)
        c->hub.cache_dir = below(c, home, "hub");
    c->hub.token_file = expand(c, variable("HF_TOKEN_PATH"));
    if (!c->hub.token_file)
        c->hub.token_file = below(c, home, "token");
}

static bool read_endpoint(struct config *c, struct status *st)
{
    const char *text = variable("HF_ENDPOINT");
    if (!text)
        text = DEFAULT_ENDPOINT;
    if (strncmp(text, "https://", 8) != 0 && strncmp(text, "http://", 7) != 0)
        return status_set(st, STATUS_INVALID,
                          "the environment variable HF_ENDPOINT is '%.100s', it must begin with "
                          "https:// or http://",
                          text);
    char *endpoint = arena_strdup(&c->strings, text);
    size_t len = strlen(endpoint);
    while (len > 8 && endpoint[len - 1] == '/')
        endpoint[--len] = '\0';
    c->hub.endpoint = endpoint;
    return true;
}

static bool read_timeout(struct config *c, struct status *st)
{
    const char *text = variable("HF_HUB_DOWNLOAD_TIMEOUT");
    int64_t seconds = DEFAULT_TIMEOUT_S;
    if (text && (!option_parse_int(text, &seconds) || seconds < 1 || seconds > MAX_TIMEOUT_S))
        return status_set(st, STATUS_INVALID,
                          "the environment variable HF_HUB_DOWNLOAD_TIMEOUT is '%.40s', it must be "
                          "a number of seconds from 1 to %d",
                          text, MAX_TIMEOUT_S);
    c->hub.timeout_s = (int32_t)seconds;
    return true;
}

/* It becomes a header: nothing in it may end that header. */
static bool check_token(const char *token, struct status *st)
{
    for (const char *p = token; p && *p != '\0'; p++)
        if (*p <= ' ' || *p >= 0x7f)
            return status_set(st, STATUS_INVALID,
                              "the hub's token (--hf-token, HF_TOKEN) holds a character that no "
                              "token has");
    return true;
}

static bool read_token(struct config *c, struct status *st)
{
    const char *token = c->hf_token ? c->hf_token : variable("HF_TOKEN");
    if (!token)
        token = variable("HUGGING_FACE_HUB_TOKEN");
    if (token) {
        size_t len = strlen(token);
        while (len > 0 && strchr(" \r\n\t", token[len - 1]))
            len--;
        c->hub.token = len ? arena_strndup(&c->strings, token, len) : NULL;
    }
    return check_token(c->hub.token, st);
}

bool config_read_hub(struct config *c, struct status *st)
{
    read_paths(c);
    const char *offline = variable("HF_HUB_OFFLINE");
    c->hub.offline = is_true(offline ? offline : variable("TRANSFORMERS_OFFLINE"));
    static const char *const ca_names[] = { "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
                                            "CURL_CA_BUNDLE" };
    const char *tmp_dir = variable("TMPDIR");
    c->hub.tmp_dir = arena_strdup(&c->strings, tmp_dir ? tmp_dir : "/tmp");
    c->hub.ca_file = first_of(c, ca_names, 3);
    c->hub.no_bars = is_true(variable("HF_HUB_DISABLE_PROGRESS_BARS"));
    return read_endpoint(c, st) && read_timeout(c, st) && read_token(c, st);
}
