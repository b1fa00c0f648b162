/* option.h - the option table as data: one row per line of options.def, and the rules by which text
 * and JSON become values. Private to config/; constant, any thread. */
#ifndef INFERD_CONFIG_OPTION_H
#define INFERD_CONFIG_OPTION_H

#include "base/status.h"
#include "config/config.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum option_kind {
    OPTION_KIND_GROUP, /* a heading, no option */
    OPTION_KIND_STRING,
    OPTION_KIND_CHOICE,
    OPTION_KIND_INT,
    OPTION_KIND_FLOAT,
    OPTION_KIND_BOOL
};

struct option {
    enum option_kind kind;
    const char *name;  /* "max_model_len"; of a group its title */
    const char *value; /* what --help calls the value: "N"; of a choice "a|b|c" */
    const char *help;
    size_t offset; /* of the field in struct config */
    union option_value {
        const char *text;
        int64_t integer;
        double number;
        bool flag;
    } def, min, max;
};

extern const struct option option_table[];
extern const int32_t option_count;

/* A value and where it was found, for messages: "--port", "environment variable INFERD_PORT",
 * "/etc/inferd/inferd.json, key \"port\"". */
struct option_text {
    const char *text;
    const char *origin;
};

/* The row called `name`, in either spelling ("max-model-len", "max_model_len"), or NULL. */
const struct option *option_find(const char *name, size_t len);
/* The row whose name is nearest to a misspelt one, or NULL when none is near. */
const struct option *option_nearest(const char *name, size_t len);
/* Writes the command-line spelling, "--max-model-len", into out. */
void option_flag(const struct option *o, char out[64]);
/* The field of `c` as a value, and the other way round. */
union option_value option_get(const struct option *o, const struct config *c);
void option_put(const struct option *o, struct config *c, union option_value v);
bool option_is_default(const struct option *o, const struct config *c);
/* True when the value is a key that must not be logged. */
bool option_is_secret(const struct option *o);
/* True when the row's value may be left out, --no-<name> is false, and a file may say true or false
 * without quotes: a BOOL, or a CHOICE that has these words. */
bool option_is_switch(const struct option *o);
/* True when `text` is one of a switch's words, which may follow it: of a BOOL true and false. */
bool option_has_word(const struct option *o, const char *text);
/* True when the row takes a comma-separated list. */
bool option_is_list(const struct option *o);
/* True when the row takes JSON: a file may hold the object itself. */
bool option_is_json(const struct option *o);

/* Checks the text and stores it in `c`; the message names the option, the value, the range and the
 * origin. */
bool option_set_text(const struct option *o, struct config *c, struct option_text t,
                     struct status *st);
bool option_set_json(const struct option *o, struct config *c, const json_t *value,
                     const char *origin, struct status *st);
/* An integer with an optional suffix: k m g are powers of 1000, K M G of 1024. */
bool option_parse_int(const char *text, int64_t *out);

/* Fills c->hub from the options and the environment; once the options are final. */
bool config_read_hub(struct config *c, struct status *st);
/* Fills c->speculative from its option, and sees that the others go with it. */
bool config_read_speculative(struct config *c, struct status *st);

#endif
