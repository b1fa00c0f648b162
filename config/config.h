/* config.h - every option of the daemon, resolved and checked, in one struct.
 *
 * Sources in falling precedence: command line, environment (INFERD_...), the JSON file named by
 * --config, the default. An unknown option, a wrong type or a value out of range is refused with
 * the option's name, the value and the range. The only getenv() of the project is here.
 * Owned by main, constant after config_load, read from any thread. */
#ifndef INFERD_CONFIG_CONFIG_H
#define INFERD_CONFIG_CONFIG_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"
#include <stdint.h>

enum config_command {
    COMMAND_SERVE,
    COMMAND_PLAN,
    COMMAND_BENCH,
    COMMAND_PULL,
    COMMAND_HELP,
    COMMAND_VERSION
};

/* Where models come from that are no directory: huggingface_hub's variables, with its precedence.
 */
struct config_hub {
    const char *cache_dir;  /* --download-dir, HF_HUB_CACHE, HF_HOME/hub, ...; NULL: no home */
    const char *endpoint;   /* HF_ENDPOINT, without a slash at its end */
    const char *token;      /* --hf-token, HF_TOKEN; NULL: see token_file */
    const char *token_file; /* HF_TOKEN_PATH, HF_HOME/token; NULL: no home. May not exist */
    bool offline;           /* HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE */
    bool no_bars;           /* HF_HUB_DISABLE_PROGRESS_BARS */
    int32_t timeout_s;      /* HF_HUB_DOWNLOAD_TIMEOUT */
    const char *tmp_dir;    /* TMPDIR, or /tmp */
    const char *ca_file;    /* SSL_CERT_FILE, REQUESTS_CA_BUNDLE; NULL: the system's certificates */
};

/* --speculative-config, with vLLM's keys. */
struct config_speculative {
    int32_t num_tokens; /* drafts of a sequence in a step; 0: none are made */
    /* Method ngram: so many of the latest tokens are looked up in what came before. */
    int32_t prompt_lookup_min, prompt_lookup_max;
};

struct config {
    enum config_command command;
    const char *model; /* MODEL: a directory, a .gguf file, or a name on a hub */
#define OPTION_GROUP(title)
#define OPTION_STRING(field, def, value, help)          const char *field;
#define OPTION_CHOICE(field, def, choices, help)        const char *field;
#define OPTION_INT(field, def, min, max, value, help)   int64_t field;
#define OPTION_FLOAT(field, def, min, max, value, help) double field;
#define OPTION_BOOL(field, def, help)                   bool field;
#include "config/options.def"
#undef OPTION_GROUP
#undef OPTION_STRING
#undef OPTION_CHOICE
#undef OPTION_INT
#undef OPTION_FLOAT
#undef OPTION_BOOL
    const char *notify_socket; /* $NOTIFY_SOCKET, or NULL */
    int64_t watchdog_usec;     /* $WATCHDOG_USEC when it is meant for this process, else 0 */
    bool journal_stream;       /* standard error is the journal ($JOURNAL_STREAM) */
    struct config_hub hub;
    struct config_speculative speculative;
    struct arena strings; /* private: what the const char * above point into */
};

/* Reads argv (and what it names). Strings live as long as the config. On false there is nothing to
 * free. With COMMAND_HELP and COMMAND_VERSION no other source is read. */
bool config_load(int argc, char **argv, struct config *out, struct status *st);
void config_free(struct config *c);
/* The defaults alone, for tests and tools. */
void config_defaults(struct config *out);
/* --help: usage, then every option with its default and range, from the table. */
void config_help(struct buf *out);
/* Options that differ from their defaults, as "--name=value ..."; keys are masked. */
void config_describe(const struct config *c, struct buf *out);
/* The sample file: every option at its default, as JSON. */
void config_sample_json(struct buf *out);

#endif
