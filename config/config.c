/* config.c - reads the sources in rising precedence, file, environment, command line, and checks
 * what no single row can. */
#include "config/config.h"
#include "config/limits.h"
#include "config/option.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENV_PREFIX "INFERD_"

/* What the command line says about where to look; it is read before the other sources are. */
struct command_line {
    int argc;
    char **argv;
    const char *config_file, *config_origin;
    const char *positional; /* MODEL */
    bool help, version;
};

static const struct {
    const char *word;
    enum config_command command;
} commands[] = {
    { "serve", COMMAND_SERVE }, { "plan", COMMAND_PLAN }, { "bench", COMMAND_BENCH },
    { "pull", COMMAND_PULL },   { "help", COMMAND_HELP }, { "version", COMMAND_VERSION },
};

void config_defaults(struct config *out)
{
    memset(out, 0, sizeof(*out));
    arena_init(&out->strings);
    out->command = COMMAND_SERVE;
    for (int32_t i = 0; i < option_count; i++)
        if (option_table[i].kind != OPTION_KIND_GROUP)
            option_put(&option_table[i], out, option_table[i].def);
}

void config_free(struct config *c)
{
    arena_free(&c->strings);
}

static bool same_name(const char *name, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(name, word, len) == 0;
}

static bool unknown_option(const char *name, size_t len, const char *origin, struct status *st)
{
    const struct option *near = option_nearest(name, len);
    char flag[64] = "";
    if (near)
        option_flag(near, flag);
    status_set(st, STATUS_INVALID, "unknown option '%.*s' (from %s)%s%s%s",
               (int)(len < 80 ? len : 80), name, origin,
               near ? "; did you mean " : "; see inferd --help", flag, near ? "?" : "");
    return status_detail(st, "option", NULL);
}

/* --- command line --------------------------------------------------------------------------------
 */

/* One argument taken apart: --name, --name=value or --no-name. */
struct argument {
    const struct option *option; /* NULL: --model, --config, --help or --version, or unknown */
    const char *name;            /* after the dashes */
    size_t name_len;
    const char *value; /* after '=', or NULL */
    bool negated;
};

static struct argument split_argument(const char *text)
{
    struct argument a = { .name = text + 2 };
    const char *equals = strchr(a.name, '=');
    a.name_len = equals ? (size_t)(equals - a.name) : strlen(a.name);
    a.value = equals ? equals + 1 : NULL;
    a.option = option_find(a.name, a.name_len);
    if (!a.option && a.name_len > 3 && memcmp(a.name, "no", 2) == 0 &&
        (a.name[2] == '-' || a.name[2] == '_')) {
        const struct option *o = option_find(a.name + 3, a.name_len - 3);
        if (o && option_is_switch(o)) {
            a.option = o;
            a.negated = true;
        }
    }
    return a;
}

/* The value of an argument that needs one: behind '=', or the next word. */
static bool take_value(struct command_line *line, const struct argument *a, int *index,
                       const char **value, struct status *st)
{
    *value = a->value;
    if (*value)
        return true;
    /* "--host --port 8000" lacks a value; no value of ours begins with two dashes. */
    if (*index + 1 >= line->argc || strncmp(line->argv[*index + 1], "--", 2) == 0) {
        status_set(st, STATUS_INVALID, "--%.*s needs a value", (int)a->name_len, a->name);
        return status_detail(st, a->option ? a->option->name : NULL, NULL);
    }
    *value = line->argv[++*index];
    return true;
}

static bool take_switch(struct command_line *line, const struct argument *a, int *index,
                        const char **value, struct status *st)
{
    *value = a->value;
    if (a->negated) {
        if (a->value)
            return status_set(st, STATUS_INVALID, "--%.*s takes no value, found '%.40s'",
                              (int)a->name_len, a->name, a->value);
        *value = "false";
    } else if (!*value) {
        const char *next = *index + 1 < line->argc ? line->argv[*index + 1] : "";
        /* Only its own words: anything else after a flag is MODEL. */
        const bool follows = option_has_word(a->option, next);
        *index += follows;
        *value = follows ? next : "true";
    }
    return true;
}

static bool set_model(struct command_line *line, const char *text, struct status *st)
{
    if (line->positional && strcmp(line->positional, text) != 0)
        return status_set(st, STATUS_INVALID,
                          "more than one MODEL on the command line: '%.100s' and '%.100s'",
                          line->positional, text);
    line->positional = text;
    return true;
}

/* `c` is NULL in the first pass, which only looks for --config, --help and MODEL. */
static bool read_argument(struct command_line *line, int *index, struct config *c,
                          struct status *st)
{
    struct argument a = split_argument(line->argv[*index]);
    const char *value;
    if (a.option) {
        bool taken = option_is_switch(a.option) ? take_switch(line, &a, index, &value, st)
                                                : take_value(line, &a, index, &value, st);
        struct option_text t = { .text = value, .origin = "the command line" };
        return taken && (!c || option_set_text(a.option, c, t, st));
    }
    if (same_name(a.name, a.name_len, "help") || same_name(a.name, a.name_len, "version")) {
        line->help |= a.name[0] == 'h';
        line->version |= a.name[0] == 'v';
        return true;
    }
    bool is_config = same_name(a.name, a.name_len, "config");
    if (!is_config && !same_name(a.name, a.name_len, "model"))
        return unknown_option(line->argv[*index], 2 + a.name_len, "the command line", st);
    if (!take_value(line, &a, index, &value, st))
        return false;
    if (value[0] == '\0')
        return status_set(st, STATUS_INVALID, "--%.*s needs a value, found an empty one",
                          (int)a.name_len, a.name);
    if (!is_config)
        return set_model(line, value, st);
    line->config_file = value;
    line->config_origin = "--config";
    return true;
}

static bool read_command_line(struct command_line *line, struct config *c, struct status *st)
{
    bool options_ended = false;
    for (int i = 2; i < line->argc; i++) {
        const char *text = line->argv[i];
        if (!options_ended && strcmp(text, "--") == 0) {
            options_ended = true;
        } else if (!options_ended && strcmp(text, "-h") == 0) {
            line->help = true;
        } else if (!options_ended && strncmp(text, "--", 2) == 0) {
            if (!read_argument(line, &i, c, st))
                return false;
        } else if (!options_ended && text[0] == '-') {
            return unknown_option(text, strlen(text), "the command line", st);
        } else if (text[0] == '\0') {
            return status_set(st, STATUS_INVALID, "MODEL on the command line is empty");
        } else if (!set_model(line, text, st)) {
            return false;
        }
    }
    return true;
}

static bool read_command(int argc, char **argv, struct config *out, struct status *st)
{
    const char *word = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(word, commands[i].word) == 0) {
            out->command = commands[i].command;
            return true;
        }
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        out->command = COMMAND_HELP;
    else if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        out->command = COMMAND_VERSION;
    else if (word[0] == '\0')
        return status_set(st, STATUS_INVALID,
                          "no command given: inferd serve MODEL, plan MODEL, bench MODEL or pull "
                          "MODEL; see inferd --help");
    else if (word[0] == '-')
        return status_set(st, STATUS_INVALID,
                          "the command comes first, before '%.100s': inferd serve MODEL [options]; "
                          "see inferd --help",
                          word);
    else
        return status_set(
            st, STATUS_INVALID,
            "unknown command '%.100s', it must be serve, plan, bench or pull; did you "
            "mean inferd serve %.100s?",
            word, word);
    return true;
}

/* --- environment ---------------------------------------------------------------------------------
 */

/* Container platforms describe a service called "inferd-x" to its neighbours as
 * INFERD_X_PORT=tcp://.., INFERD_X_SERVICE_HOST, INFERD_X_PORT_8000_TCP_ADDR and so on. They are
 * not meant for us, even where the service's plain name makes one of them INFERD_PORT. */
static bool is_service_link(const char *name, size_t len, const char *value)
{
    bool url = strncmp(value, "tcp://", 6) == 0 || strncmp(value, "udp://", 6) == 0;
    if (url && len >= 4 && memcmp(name + len - 4, "PORT", 4) == 0)
        return true;
    char copy[128];
    snprintf(copy, sizeof(copy), "%.*s", (int)len, name);
    return strstr(copy, "SERVICE_HOST") || strstr(copy, "SERVICE_PORT") ||
           (strstr(copy, "PORT_") && (strstr(copy, "_TCP") || strstr(copy, "_UDP")));
}

/* INFERD_MAX_MODEL_LEN -> max_model_len; false when it cannot be a name of ours. */
static bool env_option_name(const char *name, size_t len, char out[64])
{
    if (len >= 64)
        return false;
    for (size_t i = 0; i < len; i++) {
        bool upper = name[i] >= 'A' && name[i] <= 'Z';
        if (!upper && name[i] != '_' && !(name[i] >= '0' && name[i] <= '9'))
            return false;
        out[i] = upper ? (char)(name[i] - 'A' + 'a') : name[i];
    }
    out[len] = '\0';
    return true;
}

static bool read_environment(struct config *out, struct status *st)
{
    const size_t prefix_len = strlen(ENV_PREFIX);
    for (char **entry = environ; entry && *entry; entry++) {
        const char *equals = strchr(*entry, '=');
        if (strncmp(*entry, ENV_PREFIX, prefix_len) != 0 || !equals)
            continue;
        const char *name = *entry + prefix_len, *value = equals + 1;
        size_t len = (size_t)(equals - name);
        char option_name[64], origin[128];
        /* An empty variable is how env files and containers unset one. */
        if (value[0] == '\0' || is_service_link(name, len, value))
            continue;
        snprintf(origin, sizeof(origin), "the environment variable %.*s",
                 (int)(len + prefix_len < 90 ? len + prefix_len : 90), *entry);
        if (!env_option_name(name, len, option_name))
            return unknown_option(*entry, prefix_len + len, origin, st);
        const struct option *o = option_find(option_name, len);
        struct option_text t = { .text = value, .origin = origin };
        if (o) {
            if (!option_set_text(o, out, t, st))
                return false;
        } else if (strcmp(option_name, "model") == 0) {
            out->model = arena_strdup(&out->strings, value);
        } else if (strcmp(option_name, "config") != 0) {
            return unknown_option(option_name, len, origin, st);
        }
    }
    return true;
}

/* --- file ----------------------------------------------------------------------------------------
 */

static bool read_file(const char *path, struct buf *out, struct status *st)
{
    char chunk[16384];
    struct stat info;
    /* O_NONBLOCK: opening a FIFO that nobody writes must not hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return status_set(st, STATUS_IO, "cannot open it: %s", strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return status_set(st, STATUS_INVALID, "not a regular file");
    }
    ssize_t n;
    do {
        n = read(fd, chunk, sizeof(chunk));
        if (n > 0)
            buf_append(out, chunk, (size_t)n);
    } while ((n > 0 && !out->overflow) || (n < 0 && errno == EINTR));
    int error = errno;
    close(fd);
    if (n < 0)
        return status_set(st, STATUS_IO, "cannot read it: %s", strerror(error));
    if (out->overflow)
        return status_set(st, STATUS_INVALID, "larger than %d bytes, that is no list of options",
                          LIMIT_CONFIG_FILE_BYTES);
    return true;
}

static bool read_key(const char *path, const char *key, const json_t *value, struct config *out,
                     struct status *st)
{
    char origin[256];
    snprintf(origin, sizeof(origin), "%.150s, key \"%.64s\"", path, key);
    const struct option *o = option_find(key, strlen(key));
    if (!o && strcmp(key, "model") != 0)
        return unknown_option(key, strlen(key), origin, st);
    if (json_is_null(value)) /* as in the sample file: not set here */
        return true;
    if (o)
        return option_set_json(o, out, value, origin, st);
    if (!json_is_string(value) || json_string_length(value) == 0)
        return status_set(st, STATUS_INVALID, "%s: must be a text, the model's directory", origin);
    out->model = arena_strdup(&out->strings, json_string_value(value));
    return true;
}

static bool apply_file(const char *path, const json_t *root, struct config *out, struct status *st)
{
    bool seen[256] = { false }; /* by row, to refuse the two spellings of one name */
    const char *key;
    json_t *value;
    if (!json_is_object(root))
        return status_set(st, STATUS_INVALID, "%s: the file must hold one JSON object", path);
    json_object_foreach((json_t *)root, key, value)
    {
        const struct option *o = option_find(key, strlen(key));
        size_t row = o ? (size_t)(o - option_table) : 0;
        if (o && seen[row])
            return status_set(st, STATUS_INVALID, "%s: option '%s' stands there twice", path,
                              o->name);
        seen[row] = o != NULL;
        if (!read_key(path, key, value, out, st))
            return false;
    }
    return true;
}

static bool read_config_file(const struct command_line *line, struct config *out, struct status *st)
{
    const char *path = line->config_file;
    struct buf text;
    json_error_t error;
    buf_init(&text, LIMIT_CONFIG_FILE_BYTES);
    if (!read_file(path, &text, st)) {
        buf_free(&text);
        return status_prefix(st, "%s (the file of %s): ", path, line->config_origin);
    }
    json_t *root =
        json_loadb(buf_str(&text), text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    buf_free(&text);
    if (!root)
        return status_set(st, STATUS_INVALID, "%s (the file of %s): line %d, column %d: %s", path,
                          line->config_origin, error.line, error.column, error.text);
    bool ok = apply_file(path, root, out, st);
    json_decref(root);
    return ok;
}

/* --- what only the whole can tell ----------------------------------------------------------------
 */

static bool check_lists(const struct config *c, struct status *st)
{
    for (int32_t i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (!option_is_list(o))
            continue;
        int32_t count = 1;
        bool empty_entry = false;
        const char *text = option_get(o, c).text, *start = text;
        for (const char *p = text; p && *p != '\0'; p++) {
            if (*p != ',')
                continue;
            empty_entry |= p == start;
            start = p + 1;
            count++;
        }
        empty_entry |= text && *start == '\0';
        if (!empty_entry && count <= LIMIT_LIST_ENTRIES)
            continue;
        char flag[64];
        option_flag(o, flag);
        if (empty_entry)
            status_set(st, STATUS_INVALID, "%s: an entry of the list is empty", flag);
        else
            status_set(st, STATUS_INVALID, "%s: %d entries, the most are %d", flag, count,
                       LIMIT_LIST_ENTRIES);
        return status_detail(st, o->name, NULL);
    }
    return true;
}

static bool check_together(struct config *c, struct status *st)
{
    if ((c->block_size & (c->block_size - 1)) != 0) {
        status_set(st, STATUS_INVALID,
                   "--block-size: %" PRId64
                   " is not valid, it must be a power of two from 1 to 256",
                   c->block_size);
        return status_detail(st, "block_size", NULL);
    }
    if (c->max_num_batched_tokens < c->max_num_seqs) {
        /* Every running sequence takes a token of each step. Who asked for small steps only has not
         * asked for this many sequences, so the default gives way; a number he gave does not. */
        if (!option_is_default(option_find("max_num_seqs", strlen("max_num_seqs")), c)) {
            status_set(
                st, STATUS_INVALID,
                "--max-num-batched-tokens: %" PRId64 " is smaller than --max-num-seqs %" PRId64
                ", and every running sequence needs a token of each step: raise the first or "
                "lower the second",
                c->max_num_batched_tokens, c->max_num_seqs);
            return status_detail(st, "max_num_batched_tokens", NULL);
        }
        c->max_num_seqs = c->max_num_batched_tokens;
    }
    return check_lists(c, st);
}

static bool check_model(const struct config *c, struct status *st)
{
    static const char *const words[] = { "serve", "plan", "bench", "pull" };
    if (c->model)
        return true;
    status_set(st, STATUS_INVALID,
               "no MODEL given: inferd %s MODEL, where MODEL is the directory with the model's "
               "config.json and *.safetensors, or ORG/NAME on the hub",
               words[c->command]);
    return status_detail(st, "model", NULL);
}

/* What systemd tells about the place we run in; see sd_notify(3), sd_watchdog_enabled(3) and
 * systemd.exec(5). Nonsense there is as good as nothing: it is not the operator's to correct. */
static void read_supervisor(struct config *c)
{
    const char *socket = getenv("NOTIFY_SOCKET");
    if (socket && socket[0] != '\0')
        c->notify_socket = arena_strdup(&c->strings, socket);
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    int64_t value = 0, for_pid = getpid();
    if (pid && pid[0] != '\0' && !option_parse_int(pid, &for_pid))
        for_pid = -1;
    if (usec && option_parse_int(usec, &value) && value > 0 && for_pid == getpid())
        c->watchdog_usec = value;
    /* The variable is inherited by children whose standard error went elsewhere. */
    const char *journal = getenv("JOURNAL_STREAM");
    uintmax_t device, inode;
    struct stat info;
    c->journal_stream = journal && sscanf(journal, "%ju:%ju", &device, &inode) == 2 &&
                        fstat(STDERR_FILENO, &info) == 0 && (uintmax_t)info.st_dev == device &&
                        (uintmax_t)info.st_ino == inode;
}

static bool load_sources(struct command_line *line, struct config *out, struct status *st)
{
    if (!line->config_file) {
        const char *path = getenv(ENV_PREFIX "CONFIG");
        line->config_file = path && path[0] != '\0' ? path : NULL;
        line->config_origin = ENV_PREFIX "CONFIG";
    }
    if (line->config_file && !read_config_file(line, out, st))
        return false;
    if (!read_environment(out, st) || !read_command_line(line, out, st))
        return false;
    if (line->positional)
        out->model = arena_strdup(&out->strings, line->positional);
    return check_model(out, st) && check_together(out, st) && config_read_speculative(out, st) &&
           config_read_hub(out, st);
}

bool config_load(int argc, char **argv, struct config *out, struct status *st)
{
    struct command_line line = { .argc = argc, .argv = argv };
    config_defaults(out);
    if (!read_command(argc, argv, out, st))
        return false;
    if (out->command == COMMAND_HELP || out->command == COMMAND_VERSION)
        return true;
    if (!read_command_line(&line, NULL, st))
        return false;
    if (line.help || line.version) {
        out->command = line.help ? COMMAND_HELP : COMMAND_VERSION;
        return true;
    }
    read_supervisor(out);
    if (!load_sources(&line, out, st)) {
        config_free(out);
        return false;
    }
    return true;
}
