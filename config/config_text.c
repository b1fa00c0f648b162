/* config_text.c - the options as text: --help, the line of those that were changed, and the sample
 * file. All three walk the table, so they cannot fall behind it. */
#include "config/config.h"
#include "config/option.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 34, HELP_WIDTH = 100 };

/* The shortest text that reads back as the same number: 0.92, not 0.92000000000000004. */
static void append_number(struct buf *out, double number)
{
    char text[40];
    if (fabs(number) < 1e15 && number == floor(number)) {
        buf_printf(out, "%.0f", number);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        double back = 0;
        snprintf(text, sizeof(text), "%.*g", digits, number);
        if (sscanf(text, "%lf", &back) == 1 && back == number)
            break;
    }
    buf_append_str(out, text);
}

static void append_value(struct buf *out, const struct option *o, union option_value v)
{
    switch (o->kind) {
    case OPTION_KIND_STRING:
    case OPTION_KIND_CHOICE:
        buf_append_str(out, v.text ? v.text : "");
        break;
    case OPTION_KIND_INT:
        buf_printf(out, "%" PRId64, v.integer);
        break;
    case OPTION_KIND_FLOAT:
        append_number(out, v.number);
        break;
    case OPTION_KIND_BOOL:
        buf_append_str(out, v.flag ? "true" : "false");
        break;
    case OPTION_KIND_GROUP:
        break;
    }
}

/* Words from HELP_COLUMN on; breaks lines at blanks. */
static void append_wrapped(struct buf *out, const char *text)
{
    size_t column = HELP_COLUMN;
    bool first = true;
    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        if (!first && column + 1 + len > HELP_WIDTH) {
            buf_printf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (!first) {
            buf_append_char(out, ' ');
            column++;
        }
        buf_append(out, text, len);
        column += len;
        text += len + (text[len] == ' ');
        first = false;
    }
    buf_append_char(out, '\n');
}

/* "(default 16; 1 to 256)" */
static void append_range(struct buf *out, const struct option *o)
{
    if (o->kind == OPTION_KIND_STRING && !o->def.text)
        return;
    buf_append_str(out, " (default ");
    append_value(out, o, o->def);
    if (o->kind == OPTION_KIND_INT || o->kind == OPTION_KIND_FLOAT) {
        buf_append_str(out, "; ");
        append_value(out, o, o->min);
        buf_append_str(out, " to ");
        append_value(out, o, o->max);
    }
    buf_append_char(out, ')');
}

static void help_entry(struct buf *out, const char *left, const char *right)
{
    buf_printf(out, "  %-*s", HELP_COLUMN - 2, left);
    if (strlen(left) + 3 > HELP_COLUMN)
        buf_printf(out, "\n%*s", HELP_COLUMN, "");
    append_wrapped(out, right);
}

static void help_option(struct buf *out, const struct option *o)
{
    struct buf left, right;
    char flag[64];
    option_flag(o, flag);
    buf_init(&left, 0);
    buf_init(&right, 0);
    if (option_is_switch(o))
        buf_printf(&left, "--[no-]%s", flag + 2);
    else if (o->kind == OPTION_KIND_CHOICE)
        buf_append_str(&left, flag);
    else
        buf_printf(&left, "%s %s", flag, o->value);
    if (o->kind == OPTION_KIND_CHOICE)
        buf_printf(&right, "%s: ", o->value);
    buf_append_str(&right, o->help);
    append_range(&right, o);
    help_entry(out, buf_str(&left), buf_str(&right));
    buf_free(&left);
    buf_free(&right);
}

void config_help(struct buf *out)
{
    buf_append_str(
        out,
        "Usage:\n"
        "  inferd serve MODEL [options]   load the model and answer OpenAI-style requests\n"
        "  inferd plan  MODEL [options]   print the memory plan; loads no weights\n"
        "  inferd bench MODEL [options]   measure prefill and decode speed, without HTTP\n"
        "  inferd pull  MODEL [options]   download a model of the hub; prints where it is\n"
        "  inferd --help | --version\n"
        "\n"
        "MODEL is a directory in Hugging Face's layout (config.json, *.safetensors, tokenizer),\n"
        "or a model on the hub: ORG/NAME[@REVISION], or ORG/NAME[@REVISION]:FILE-or-QUANT for a\n"
        "GGUF file. The hub's cache is shared with huggingface_hub, whose variables count:\n"
        "HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE,\n"
        "HF_HUB_DOWNLOAD_TIMEOUT (seconds without a byte), HF_HUB_DISABLE_PROGRESS_BARS; so do\n"
        "HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE.\n"
        "\n"
        "An option can stand on the command line (--max-model-len 4096), in the environment\n"
        "(INFERD_MAX_MODEL_LEN=4096) or in the JSON file that --config names (\"max_model_len\": "
        "4096);\n"
        "the first of these that has it counts. A variable that is empty counts as not set.\n"
        "Integers take a suffix: 1k is 1000, 1K is 1024; likewise m, M, g and G.\n"
        "\n");
    help_entry(out, "--config FILE", "read options from this JSON file");
    help_entry(out, "--model MODEL", "the same as MODEL");
    for (int32_t i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (o->kind == OPTION_KIND_GROUP)
            buf_printf(out, "\n%s\n", o->name);
        else
            help_option(out, o);
    }
}

void config_describe(const struct config *c, struct buf *out)
{
    for (int32_t i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        char flag[64];
        if (o->kind == OPTION_KIND_GROUP || option_is_default(o, c))
            continue;
        option_flag(o, flag);
        if (out->len > 0)
            buf_append_char(out, ' ');
        buf_printf(out, "%s=", flag);
        if (option_is_secret(o))
            buf_append_str(out, "***");
        else
            append_value(out, o, option_get(o, c));
    }
}

static void sample_value(struct buf *out, const struct option *o)
{
    bool is_text = o->kind == OPTION_KIND_STRING || o->kind == OPTION_KIND_CHOICE;
    if (is_text && !o->def.text) {
        buf_append_str(out, "null");
    } else if (is_text) {
        json_t *text = json_string(o->def.text);
        char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
        buf_append_str(out, quoted ? quoted : "null");
        free(quoted);
        json_decref(text);
    } else {
        append_value(out, o, o->def);
    }
}

void config_sample_json(struct buf *out)
{
    buf_append_str(out, "{\n    \"model\": null");
    for (int32_t i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (o->kind == OPTION_KIND_GROUP) {
            buf_append_str(out, i + 1 < option_count ? ",\n" : "");
            continue;
        }
        /* A heading has already ended the line before it. */
        bool after_group = i > 0 && option_table[i - 1].kind == OPTION_KIND_GROUP;
        buf_printf(out, "%s\n    \"%s\": ", after_group ? "" : ",", o->name);
        sample_value(out, o);
    }
    buf_append_str(out, "\n}\n");
}
